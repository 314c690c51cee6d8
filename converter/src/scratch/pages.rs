//! Pages of the scratch room, a bounded number of which are in memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::{REGION_SIZE, START};

pub(crate) const PAGE: usize = 4096;

/// Most pages in memory: 16 MiB, what the tree of some 150,000 files takes.
const CACHED_MAX: usize = 4096;

/// No frame holds the page.
const NONE: u32 = u32::MAX;

/// What pages are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Region {
    Nodes,
    Names,
    Bytes,
    Freed,
}

impl Region {
    pub(super) const COUNT: usize = 4;
}

#[derive(Clone, Copy, Debug)]
struct Key {
    region: Region,
    number: u32,
}

impl Key {
    fn position(self) -> u64 {
        START + self.region as u64 * REGION_SIZE + u64::from(self.number) * PAGE as u64
    }
}

#[derive(Debug)]
struct Frame {
    bytes: Box<[u8; PAGE]>,
    key: Key,
    /// Differs from what is on disk.
    dirty: bool,
    /// Used since the hand was here.
    used: bool,
}

/// Numbered pages of each region, of zeros at first. Those that are not used for long go to disk.
#[derive(Debug)]
pub(crate) struct Pages<'a> {
    file: &'a File,
    frames: Vec<Frame>,
    frames_max: usize,
    /// By region and page: the frame that holds it. A page that was never asked for has no entry.
    places: [Vec<u32>; Region::COUNT],
    /// The frame that is looked at next when one is needed.
    hand: usize,
}

impl<'a> Pages<'a> {
    pub(crate) fn new(file: &'a File) -> Self {
        Self::with_cache(file, CACHED_MAX)
    }

    pub(crate) fn with_cache(file: &'a File, frames_max: usize) -> Self {
        Self { file, frames: Vec::new(), frames_max, places: Default::default(), hand: 0 }
    }

    pub(crate) fn get(&mut self, region: Region, number: u32) -> io::Result<&[u8; PAGE]> {
        let frame = self.frame(Key { region, number })?;
        Ok(&self.frames[frame].bytes)
    }

    pub(crate) fn get_mut(&mut self, region: Region, number: u32) -> io::Result<&mut [u8; PAGE]> {
        let frame = self.frame(Key { region, number })?;
        let frame = &mut self.frames[frame];
        frame.dirty = true;
        Ok(&mut frame.bytes)
    }

    /// Bytes at a position of a region, wherever pages end.
    pub(crate) fn read(&mut self, region: Region, mut position: u64, mut bytes: &mut [u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (number, start) = split(position)?;
            let count = bytes.len().min(PAGE - start);
            let (piece, rest) = bytes.split_at_mut(count);
            piece.copy_from_slice(&self.get(region, number)?[start..start + count]);
            position += count as u64;
            bytes = rest;
        }
        Ok(())
    }

    /// The other way.
    pub(crate) fn write(&mut self, region: Region, mut position: u64, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (number, start) = split(position)?;
            let count = bytes.len().min(PAGE - start);
            let (piece, rest) = bytes.split_at(count);
            self.get_mut(region, number)?[start..start + count].copy_from_slice(piece);
            position += count as u64;
            bytes = rest;
        }
        Ok(())
    }

    fn frame(&mut self, key: Key) -> io::Result<usize> {
        let places = &mut self.places[key.region as usize];
        let index = key.number as usize;
        if index >= places.len() {
            if u64::from(key.number) >= REGION_SIZE / PAGE as u64 {
                let text = "the tree of the image exceeds its room on disk";
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
            }
            places.resize(index + 1, NONE);
        }
        let place = places[index];
        if place != NONE {
            let frame = place as usize;
            self.frames[frame].used = true;
            return Ok(frame);
        }
        self.load(key)
    }

    #[cold]
    fn load(&mut self, key: Key) -> io::Result<usize> {
        let index = if self.frames.len() < self.frames_max {
            self.frames.push(Frame { bytes: Box::new([0; PAGE]), key, dirty: false, used: true });
            self.frames.len() - 1
        } else {
            let index = self.victim();
            let frame = &mut self.frames[index];
            if frame.dirty {
                self.file.write_all_at(&*frame.bytes, frame.key.position())?;
                frame.dirty = false;
            }
            self.places[frame.key.region as usize][frame.key.number as usize] = NONE;
            frame.key = key;
            frame.used = true;
            index
        };
        let frame = &mut self.frames[index];
        read_or_zeros(self.file, &mut *frame.bytes, key.position())?;
        self.places[key.region as usize][key.number as usize] =
            u32::try_from(index).expect("there are few frames");
        Ok(index)
    }

    /// The clock's choice: one that was not used while the hand went round.
    fn victim(&mut self) -> usize {
        loop {
            let index = self.hand;
            self.hand = (self.hand + 1) % self.frames.len();
            if !std::mem::take(&mut self.frames[index].used) {
                return index;
            }
        }
    }
}

fn split(position: u64) -> io::Result<(u32, usize)> {
    let number = u32::try_from(position / PAGE as u64).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let start = usize::try_from(position % PAGE as u64).expect("a page is short");
    Ok((number, start))
}

/// What was never written is zeros, also behind the end of the file.
pub(super) fn read_or_zeros(file: &File, mut bytes: &mut [u8], mut position: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.read_at(bytes, position) {
            Ok(0) => {
                bytes.fill(0);
                return Ok(());
            }
            Ok(count) => {
                bytes = &mut bytes[count..];
                position += count as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => (),
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

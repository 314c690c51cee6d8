//! Contents of short files, which the image holds beside their inodes: kept until those are written.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::TAILS_START;

const BUFFER_SIZE: usize = 256 << 10;

/// How much is read at once. Not more, because files of a directory may come in another order than in the
/// archive; not less, because mostly they do not.
const READ_SIZE: u64 = 16 << 10;

/// Where such a content is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tail {
    /// From the first byte kept.
    pub(crate) start: u64,
    pub(crate) size: u64,
}

/// Written once from start to end, then read in any order; mostly the same one.
#[derive(Debug)]
pub(crate) struct Tails<'a> {
    file: &'a File,
    /// What lies at `start`: not yet written, or read.
    buffer: Vec<u8>,
    start: u64,
}

impl<'a> Tails<'a> {
    pub(crate) fn new(file: &'a File) -> Self {
        Self { file, buffer: Vec::new(), start: 0 }
    }

    pub(crate) fn position(&self) -> u64 {
        self.start + self.buffer.len() as u64
    }

    pub(crate) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.buffer.len() + bytes.len() > BUFFER_SIZE {
            self.flush()?;
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    pub(crate) fn append_zeros(&mut self, count: u64) -> io::Result<()> {
        let count = usize::try_from(count).expect("tails are shorter than a block");
        self.append(&[0; crate::erofs::BLOCK as usize][..count])
    }

    /// No more will be appended.
    pub(crate) fn into_reader(mut self) -> io::Result<TailsReader<'a>> {
        self.flush()?;
        Ok(TailsReader { file: self.file, buffer: Vec::new(), start: 0, end: self.start })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.buffer, TAILS_START + self.start)?;
        self.start += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

/// Reads what [`Tails`] kept.
#[derive(Debug)]
pub(crate) struct TailsReader<'a> {
    file: &'a File,
    buffer: Vec<u8>,
    start: u64,
    end: u64,
}

impl TailsReader<'_> {
    pub(crate) fn get(&mut self, tail: Tail) -> io::Result<&[u8]> {
        let end = tail.start + tail.size;
        if tail.start < self.start || end > self.start + self.buffer.len() as u64 {
            let count = (self.end - tail.start).min(READ_SIZE);
            self.buffer.resize(usize::try_from(count).expect("the buffer is short"), 0);
            self.file.read_exact_at(&mut self.buffer, TAILS_START + tail.start)?;
            self.start = tail.start;
        }
        let start = usize::try_from(tail.start - self.start).expect("the buffer is short");
        Ok(&self.buffer[start..][..usize::try_from(tail.size).expect("a tail is short")])
    }
}

//! The data area of the output: file contents, appended while the archives stream by.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

use super::format::BLOCK;
use crate::tree::Extent;

/// Largest output, holes included.
pub(crate) const IMAGE_SIZE_MAX: u64 = 64 << 30;

// Block numbers have 32 bits.
const _: () = assert!(IMAGE_SIZE_MAX / BLOCK < u32::MAX as u64);

const BUFFER_SIZE: usize = 1 << 20;

/// A piece of zeros at least this long becomes a hole: a few megabytes of archive can hold gigabytes.
const ZEROS_MIN: usize = 32 << 10;

// A hole that `skip` writes out comes back to `write`.
const _: () = assert!(ZEROS_MIN > 2 * BLOCK as usize);

/// Appends to a file, in large pieces.
pub(crate) struct DataArea<'a> {
    file: &'a File,
    buffer: Vec<u8>,
    /// Where the buffer's first byte belongs.
    start: u64,
}

impl<'a> DataArea<'a> {
    /// The first block is left free for the superblock.
    pub(crate) fn new(file: &'a File) -> Self {
        Self { file, buffer: Vec::with_capacity(BUFFER_SIZE), start: BLOCK }
    }

    pub(crate) fn position(&self) -> u64 {
        self.start + self.buffer.len() as u64
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.check_room(bytes.len() as u64)?;
        if bytes.len() >= ZEROS_MIN && bytes.iter().all(|b| *b == 0) {
            return self.skip(bytes.len() as u64);
        }
        if self.buffer.len() + bytes.len() > BUFFER_SIZE {
            self.flush()?;
        }
        if bytes.len() >= BUFFER_SIZE {
            self.file.write_all_at(bytes, self.start)?;
            self.start += bytes.len() as u64;
        } else {
            self.buffer.extend_from_slice(bytes);
        }
        Ok(())
    }

    /// Leaves `count` bytes as a hole, which reads as zeros.
    pub(crate) fn skip(&mut self, count: u64) -> io::Result<()> {
        self.check_room(count)?;
        // Shorter than two blocks there is hardly a hole to win.
        if count < 2 * BLOCK {
            return self.write(&[0; 2 * BLOCK as usize][..usize::try_from(count).expect("it is short")]);
        }
        self.flush()?;
        self.start += count;
        Ok(())
    }

    /// Goes on at the next block.
    pub(crate) fn align(&mut self) -> io::Result<()> {
        self.skip(self.position().next_multiple_of(BLOCK) - self.position())
    }

    /// Gives the blocks of an extent back to the host's file system.
    pub(crate) fn punch(&mut self, extent: Extent) -> io::Result<()> {
        let end = (extent.start + extent.size).next_multiple_of(BLOCK);
        if end > self.start {
            self.flush()?;
        }
        let offset = |position: u64| i64::try_from(position).expect("IMAGE_SIZE_MAX bounds positions");
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        match fallocate(self.file, flags, offset(extent.start), offset(end - extent.start)) {
            // The image is as good with the dead blocks in it, only larger.
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => Ok(()),
            done => Ok(done?),
        }
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.buffer, self.start)?;
        self.start += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    fn check_room(&self, count: u64) -> io::Result<()> {
        if count > IMAGE_SIZE_MAX - self.position() {
            let text = format!("the image exceeds {IMAGE_SIZE_MAX} bytes");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
        }
        Ok(())
    }
}

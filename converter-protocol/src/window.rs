//! A part of a file as a reader of its own.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

/// The bytes from `start` up to `end`, or up to the end of the file. Reads without moving the position that the file's descriptor has.
#[derive(Debug)]
pub struct Window<'a> {
    file: &'a File,
    position: u64,
    end: u64,
}

impl<'a> Window<'a> {
    /// From `start` up to `end`.
    pub fn new(file: &'a File, start: u64, end: u64) -> Self {
        Self { file, position: start, end }
    }

    /// All of a file.
    pub fn whole(file: &'a File) -> Self {
        Self::new(file, 0, u64::MAX)
    }
}

impl Read for Window<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.position)).unwrap_or(usize::MAX);
        let length = buffer.len().min(left);
        let count = self.file.read_at(&mut buffer[..length], self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}

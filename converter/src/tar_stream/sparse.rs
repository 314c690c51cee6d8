//! Sparse files: which bytes of a file an archive holds. The rest are zeros.

use std::io::{self, Read};

use tar::{GnuExtSparseHeader, GnuSparseHeader, Header};

use super::pax::{PaxSparse, decimal};

/// Most pieces of one sparse file.
pub(super) const SEGMENTS_MAX: usize = 1 << 17;

/// A piece of a file that the archive holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) offset: u64,
    pub(crate) size: u64,
}

/// A file's size and its pieces: in order, apart, within the size, none empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    size: u64,
    segments: Vec<Segment>,
}

impl Content {
    /// A file without holes.
    pub(super) fn whole(size: u64) -> Self {
        let segments = if size == 0 { vec![] } else { vec![Segment { offset: 0, size }] };
        Self { size, segments }
    }

    /// `stored` is how many bytes of content the archive holds.
    fn sparse(size: u64, mut segments: Vec<Segment>, stored: u64) -> Result<Self, String> {
        let (mut end, mut sum) = (0, 0);
        for segment in &segments {
            let next = segment.offset.checked_add(segment.size).filter(|next| *next <= size);
            end = match next {
                Some(next) if segment.offset >= end => next,
                _ => return Err("the pieces of the sparse file overlap or exceed its size".into()),
            };
            sum += segment.size; // Cannot wrap: the pieces lie apart within `size`.
        }
        if sum != stored {
            return Err(format!("a sparse file with pieces of {sum} bytes and {stored} bytes of content"));
        }
        segments.retain(|s| s.size != 0);
        Ok(Self { size, segments })
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The size of a file without holes.
    pub(crate) fn whole_size(&self) -> Option<u64> {
        (self.segments.iter().map(|s| s.size).sum::<u64>() == self.size).then_some(self.size)
    }

    pub(crate) fn segments(&self) -> &[Segment] {
        &self.segments
    }
}

/// The old GNU format: pieces in the header, and in the blocks after it. `read_block` gives those.
pub(super) fn gnu(
    header: &Header,
    stored: u64,
    mut read_block: impl FnMut(&mut [u8; 512]) -> io::Result<()>,
) -> Result<io::Result<Content>, String> {
    let header = header.as_gnu().ok_or("a sparse file in an archive that is not of GNU tar")?;
    let size = header.real_size().map_err(|e| format!("the size of the sparse file: {e}"))?;
    let mut segments = Vec::new();
    collect(&header.sparse, &mut segments)?;
    let mut more = header.is_extended();
    while more {
        let mut block = GnuExtSparseHeader::new();
        if let Err(e) = read_block(block.as_mut_bytes()) {
            return Ok(Err(e));
        }
        collect(block.sparse(), &mut segments)?;
        more = block.is_extended();
    }
    Content::sparse(size, segments, stored).map(Ok)
}

fn collect(headers: &[GnuSparseHeader], segments: &mut Vec<Segment>) -> Result<(), String> {
    for header in headers.iter().filter(|h| !h.is_empty()) {
        let number = |n: io::Result<u64>| n.map_err(|e| format!("a piece of the sparse file: {e}"));
        push(segments, Segment { offset: number(header.offset())?, size: number(header.length())? })?;
    }
    Ok(())
}

fn push(segments: &mut Vec<Segment>, segment: Segment) -> Result<(), String> {
    if segments.len() == SEGMENTS_MAX {
        return Err(format!("a sparse file of more than {SEGMENTS_MAX} pieces"));
    }
    segments.push(segment);
    Ok(())
}

/// The formats of pax archives: 0.1 has the pieces in a pax header, 1.0 at the start of the content,
/// which `content` reads. Returns how much of the content the pieces themselves took.
pub(super) fn pax(
    sparse: &PaxSparse,
    stored: u64,
    content: &mut dyn Read,
) -> Result<io::Result<(Content, u64)>, String> {
    let size = sparse.real_size.ok_or("a sparse file without its size")?;
    match (sparse.major, sparse.minor, &sparse.map) {
        (None | Some(0), None | Some(1), Some(map)) if !sparse.is_version_0_0 => {
            let segments = comma_separated(map)?;
            Ok(Ok((Content::sparse(size, segments, stored)?, 0)))
        }
        (Some(1), Some(0), None) => {
            let mut lines = Lines { content, block: [0; 512], position: 512, taken: 0, stored };
            let segments = match lines.segments() {
                Ok(segments) => segments?,
                Err(e) => return Ok(Err(e)),
            };
            let rest = stored - lines.taken;
            Ok(Ok((Content::sparse(size, segments, rest)?, lines.taken)))
        }
        _ => Err("a sparse file in a format other than GNU tar's old, 0.1 and 1.0".into()),
    }
}

fn comma_separated(map: &[u8]) -> Result<Vec<Segment>, String> {
    let malformed = || "a malformed map of a sparse file".to_owned();
    let mut segments = Vec::new();
    let mut numbers = map.split(|b| *b == b',').map(decimal);
    while let Some(offset) = numbers.next() {
        let size = numbers.next().flatten().ok_or_else(malformed)?;
        push(&mut segments, Segment { offset: offset.ok_or_else(malformed)?, size })?;
    }
    Ok(segments)
}

/// Decimal numbers, one a line, padded with anything to a whole block.
struct Lines<'a> {
    content: &'a mut dyn Read,
    block: [u8; 512],
    position: usize,
    taken: u64,
    stored: u64,
}

impl Lines<'_> {
    fn segments(&mut self) -> io::Result<Result<Vec<Segment>, String>> {
        let malformed = || Err("a malformed map of a sparse file".to_owned());
        let Some(count) = self.number()? else { return Ok(malformed()) };
        let mut segments = Vec::new();
        for _ in 0..count {
            let (Some(offset), Some(size)) = (self.number()?, self.number()?) else {
                return Ok(malformed());
            };
            if let Err(e) = push(&mut segments, Segment { offset, size }) {
                return Ok(Err(e));
            }
        }
        Ok(Ok(segments))
    }

    fn number(&mut self) -> io::Result<Option<u64>> {
        // As many digits as the largest 64-bit number has.
        const DIGITS_MAX: usize = 20;
        let mut digits = Vec::new();
        loop {
            match self.byte()? {
                Some(b'\n') if !digits.is_empty() => return Ok(decimal(&digits)),
                Some(digit) if digits.len() < DIGITS_MAX => digits.push(digit),
                _ => return Ok(None),
            }
        }
    }

    fn byte(&mut self) -> io::Result<Option<u8>> {
        if self.position == self.block.len() {
            if self.stored - self.taken < self.block.len() as u64 {
                return Ok(None);
            }
            self.content.read_exact(&mut self.block)?;
            self.taken += self.block.len() as u64;
            self.position = 0;
        }
        self.position += 1;
        Ok(Some(self.block[self.position - 1]))
    }
}

//! The kernel file: an ELF executable whose segments are read straight to where they are linked.

use std::fs::File;
use std::os::unix::fs::FileExt;

use hull_errors::Doing;

use crate::error::{Error, Kind};
use crate::layout::HIGH_RAM;
use crate::memory::{Claimed, GuestRam};
use crate::volatile_io::{Direction, transfer};

/// Sizes and values of the ELF-64 format, /usr/include/elf.h.
const HEADER_SIZE: usize = 64;
const SEGMENT_SIZE: usize = 56;
const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
const EXECUTABLE: u16 = 2;
const X86_64: u16 = 62;
const PT_LOAD: u32 = 1;

/// Most program headers we look at; vmlinux has five.
const SEGMENTS_MAX: u16 = 32;
/// Bytes read by one transfer: a claim's length has 32 bits.
const PIECE_MAX: u64 = 1 << 30;

/// A kernel in RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kernel {
    /// Physical address of the 64-bit entry point.
    pub entry: u64,
    /// The first address behind the kernel, its zeroed parts included.
    pub end: u64,
    pub bytes_copied: u64,
}

/// One part of the file that belongs into RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    offset: u64,
    first: u64,
    file_size: u64,
    end: u64,
}

/// Reads the kernel into `ram`, which must be all zero, below `low_end`.
///
/// # Errors
/// `BadKernel` with what is wrong with the file; the caller knows its name.
pub(crate) fn load(ram: &GuestRam, file: &File, low_end: u64) -> Result<Kernel, Error> {
    let file_size = file.metadata().doing(Kind::BadKernel, || "look at the kernel file".to_owned())?.len();
    let header = read_header(file, file_size)?;
    let (entry, segments) = read_segments(file, file_size, &header, low_end)?;
    for segment in &segments {
        copy(ram, file, segment)?;
    }
    Ok(Kernel {
        entry,
        end: segments.iter().map(|segment| segment.end).max().unwrap_or(HIGH_RAM),
        bytes_copied: segments.iter().map(|segment| segment.file_size).sum(),
    })
}

fn bad(why: impl Into<String>) -> Error {
    Error::new(Kind::BadKernel, why)
}

fn read_header(file: &File, file_size: u64) -> Result<[u8; HEADER_SIZE], Error> {
    if file_size < HEADER_SIZE as u64 {
        return Err(bad(format!("it has {file_size} bytes and so cannot be an ELF kernel (vmlinux)")));
    }
    let mut header = [0; HEADER_SIZE];
    file.read_exact_at(&mut header, 0).doing(Kind::BadKernel, || "read the ELF header".to_owned())?;
    if header.starts_with(b"MZ") {
        return Err(bad("it is a compressed bzImage: give the uncompressed ELF file, vmlinux"));
    }
    if !header.starts_with(b"\x7fELF") {
        return Err(bad("it is not an ELF file: give the uncompressed kernel, vmlinux"));
    }
    if header[4] != CLASS_64 || header[5] != LITTLE_ENDIAN || u16_at(&header, 18) != X86_64 {
        return Err(bad("it is an ELF file for another machine: 64-bit x86 is needed"));
    }
    if u16_at(&header, 16) != EXECUTABLE {
        return Err(bad("it is an ELF file, but no executable one: give the linked kernel, vmlinux"));
    }
    Ok(header)
}

fn read_segments(
    file: &File,
    file_size: u64,
    header: &[u8; HEADER_SIZE],
    low_end: u64,
) -> Result<(u64, Vec<Segment>), Error> {
    let entry = u64_at(header, 24);
    let table = u64_at(header, 32);
    let count = u16_at(header, 56);
    if usize::from(u16_at(header, 54)) != SEGMENT_SIZE || count == 0 || SEGMENTS_MAX < count {
        return Err(bad(format!("its ELF header names {count} program headers of an unknown size")));
    }
    let table_size = u64::from(count) * SEGMENT_SIZE as u64;
    if table.checked_add(table_size).is_none_or(|end| file_size < end) {
        return Err(bad("it is cut off: its program headers lie behind its end"));
    }
    let mut bytes = vec![0; usize::from(count) * SEGMENT_SIZE];
    file.read_exact_at(&mut bytes, table).doing(Kind::BadKernel, || "read the program headers".to_owned())?;
    let loaded = |raw: &&[u8]| u32_at(raw, 0) == PT_LOAD && u64_at(raw, 40) != 0;
    // A program would be loaded, and crash in the guest without a word. A kernel's text is linked into the
    // upper half of the address space (Documentation/arch/x86/x86_64/mm.rst).
    if !bytes.chunks_exact(SEGMENT_SIZE).filter(loaded).any(|raw| u64_at(raw, 16) >> 63 == 1) {
        return Err(bad("it is a program, not a kernel: nothing in it is linked at a kernel's address"));
    }
    let segments = bytes
        .chunks_exact(SEGMENT_SIZE)
        .filter(loaded)
        .map(|raw| parse_segment(raw, file_size, low_end))
        .collect::<Result<Vec<_>, _>>()?;
    if !segments.iter().any(|segment| segment.first <= entry && entry < segment.end) {
        return Err(bad(format!("its entry point {entry:#x} is in none of its segments")));
    }
    Ok((entry, segments))
}

fn parse_segment(raw: &[u8], file_size: u64, low_end: u64) -> Result<Segment, Error> {
    let (offset, first) = (u64_at(raw, 8), u64_at(raw, 24));
    let (in_file, in_memory) = (u64_at(raw, 32), u64_at(raw, 40));
    if in_memory < in_file {
        return Err(bad(format!("its segment at {first:#x} is larger in the file than in memory")));
    }
    if offset.checked_add(in_file).is_none_or(|end| file_size < end) {
        return Err(bad(format!("it is cut off: its segment at {first:#x} lies behind its end")));
    }
    let end = first.checked_add(in_memory).filter(|end| HIGH_RAM <= first && *end <= low_end);
    let end = end.ok_or_else(|| {
        bad(format!(
            "its segment of {in_memory} bytes at {first:#x} does not fit into the guest's RAM \
             ({HIGH_RAM:#x} to {low_end:#x}): give more RAM"
        ))
    })?;
    Ok(Segment { offset, first, file_size: in_file, end })
}

/// The one copy: from the page cache to guest RAM. The rest of the segment is zero, as new RAM is.
fn copy(ram: &GuestRam, file: &File, segment: &Segment) -> Result<(), Error> {
    let mut done = 0;
    while done < segment.file_size {
        let piece = (segment.file_size - done).min(PIECE_MAX);
        let len = u32::try_from(piece).expect("PIECE_MAX fits in 32 bits");
        let claim = Claimed::new(segment.first + done, len).map_err(|_| bad("a segment wraps"))?;
        let target = ram.admit(claim).map_err(|_| bad("a segment lies outside RAM"))?;
        transfer(file, &[target], segment.offset + done, Direction::FileToGuest)
            .doing(Kind::BadKernel, || format!("read the segment at {:#x}", segment.first))?;
        done += piece;
    }
    Ok(())
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

#[cfg(test)]
#[path = "elf_tests.rs"]
mod tests;

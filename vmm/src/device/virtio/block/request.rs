//! Bytes -> [`Request`]; reads only the head of the chain, touches no disk.

use crate::device::virtio::queue::{Buffers, Chain, Violation};
use crate::memory::{BadClaim, GuestRam};

/// The unit of all addresses, whatever the block size (virtio 1.2 section 5.2).
pub(super) const SECTOR_SIZE: u64 = 512;

const HEAD_SIZE: usize = 16;
/// Request types, section 5.2.6.
const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;

/// `struct virtio_blk_discard_write_zeroes`: first sector, how many, flags.
const EXTENT_SIZE: usize = 16;
const FLAG_UNMAP: u32 = 1;
/// Most extents of one discard; Linux zeroes one at a time.
pub(super) const DISCARD_EXTENTS_MAX: u32 = 16;
/// Most sectors of one extent to discard: 256 MiB, each a system call.
pub(super) const DISCARD_SECTORS_MAX: u32 = 512 << 10;
/// Most sectors to zero by one request: 16 MiB, which may have to be written.
pub(super) const ZERO_SECTORS_MAX: u32 = 32 << 10;

/// What the last byte of a request says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Ok = 0,
    IoError = 1,
    Unsupported = 2,
}

/// What the driver wants, as it says; whether the sectors exist is not known yet.
#[derive(Debug)]
pub(super) enum Request {
    Read {
        sector: u64,
        into: Buffers,
    },
    Write {
        sector: u64,
        from: Buffers,
    },
    Flush,
    Id {
        into: Buffers,
    },
    Discard(Vec<Extent>),
    WriteZeroes {
        extent: Extent,
        unmap: bool,
    },
    /// It is none of these, or breaks their rules.
    Refused(Status),
}

/// Sectors that are to be forgotten or zeroed; whether they exist is not known yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub sector: u64,
    pub count: u32,
}

#[derive(Debug)]
pub(super) struct Parsed {
    pub request: Request,
    /// Room for one byte.
    pub status: Buffers,
}

impl Parsed {
    /// # Errors
    /// A chain without a whole head, or without room for the status.
    pub(super) fn new(chain: &Chain, ram: &GuestRam) -> Result<Self, Violation> {
        let mut readable = chain.readable();
        let mut status = chain.writable();
        if readable.len() < HEAD_SIZE as u64 || status.len() == 0 {
            return Err(Violation::NoRoom { head: chain.head() });
        }
        let mut head = [0; HEAD_SIZE];
        readable.read(ram, &mut head)?;
        let [t0, t1, t2, t3, _, _, _, _, sector @ ..] = head;
        let sector = u64::from_le_bytes(sector);
        let into = status.take(status.len() - 1);
        let request = match u32::from_le_bytes([t0, t1, t2, t3]) {
            IN => Request::Read { sector, into },
            OUT => Request::Write { sector, from: readable },
            FLUSH => Request::Flush,
            GET_ID => Request::Id { into },
            DISCARD => discard(readable, ram)?,
            WRITE_ZEROES => write_zeroes(readable, ram)?,
            _ => Request::Refused(Status::Unsupported),
        };
        Ok(Self { request, status })
    }
}

/// Section 5.2.6.2: what there is too much of is an error, a flag that we do not know is not supported.
fn discard(mut data: Buffers, ram: &GuestRam) -> Result<Request, BadClaim> {
    let count = data.len() / EXTENT_SIZE as u64;
    let whole = data.len().is_multiple_of(EXTENT_SIZE as u64);
    if !whole || count == 0 || u64::from(DISCARD_EXTENTS_MAX) < count {
        return Ok(Request::Refused(Status::IoError));
    }
    let mut extents = Vec::new();
    for _ in 0..count {
        let (extent, flags) = next_extent(&mut data, ram)?;
        if flags != 0 {
            return Ok(Request::Refused(Status::Unsupported));
        }
        if DISCARD_SECTORS_MAX < extent.count {
            return Ok(Request::Refused(Status::IoError));
        }
        extents.push(extent);
    }
    Ok(Request::Discard(extents))
}

fn write_zeroes(mut data: Buffers, ram: &GuestRam) -> Result<Request, BadClaim> {
    if data.len() != EXTENT_SIZE as u64 {
        return Ok(Request::Refused(Status::IoError));
    }
    let (extent, flags) = next_extent(&mut data, ram)?;
    Ok(match flags {
        0 | FLAG_UNMAP if extent.count <= ZERO_SECTORS_MAX => {
            Request::WriteZeroes { extent, unmap: flags == FLAG_UNMAP }
        }
        0 | FLAG_UNMAP => Request::Refused(Status::IoError),
        _ => Request::Refused(Status::Unsupported),
    })
}

fn next_extent(data: &mut Buffers, ram: &GuestRam) -> Result<(Extent, u32), BadClaim> {
    let mut bytes = [0; EXTENT_SIZE];
    data.read(ram, &mut bytes)?;
    let [sector @ .., c0, c1, c2, c3, f0, f1, f2, f3] = bytes;
    let extent = Extent { sector: u64::from_le_bytes(sector), count: u32::from_le_bytes([c0, c1, c2, c3]) };
    Ok((extent, u32::from_le_bytes([f0, f1, f2, f3])))
}

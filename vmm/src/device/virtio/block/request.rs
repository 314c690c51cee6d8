//! Bytes -> [`Request`]; reads only the head of the chain, touches no disk.

use crate::device::virtio::queue::{Buffers, Chain, Violation};
use crate::memory::GuestRam;

/// The unit of all addresses, whatever the block size (virtio 1.2 section 5.2).
pub(super) const SECTOR_SIZE: u64 = 512;

const HEAD_SIZE: usize = 16;
/// Request types, section 5.2.6.
const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;

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
    Read { sector: u64, into: Buffers },
    Write { sector: u64, from: Buffers },
    Flush,
    Id { into: Buffers },
    Unknown,
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
            _ => Request::Unknown,
        };
        Ok(Self { request, status })
    }
}

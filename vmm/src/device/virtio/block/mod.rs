//! The block device, virtio 1.2 section 5.2: chain -> request -> backend -> used ring, synchronously.

mod backend;
mod request;

pub(crate) use backend::Backend;

use crate::device::virtio::block::request::{Parsed, SECTOR_SIZE, Status};
use crate::device::virtio::queue::{Chain, Drained, Rings, Violation};
use crate::device::virtio::{Device, F_COMMON, Spec, Wake};

const ID: u32 = 2;
const QUEUE: usize = 0;
const QUEUE_SIZE: u16 = 128;
/// Data buffers of one request: a chain is as long as the queue, less head and status.
const SEGMENTS_MAX: u32 = QUEUE_SIZE as u32 - 2;

/// Bytes moved for one wake-up, the request that goes beyond them included: more would keep the thread that
/// serves it, a vCPU's or that of all devices, for seconds.
const ROUND_MAX: u64 = 16 << 20;

/// Feature bits, section 5.2.3.
const F_SEG_MAX: u64 = 1 << 2;
const F_RO: u64 = 1 << 5;
const F_FLUSH: u64 = 1 << 9;

/// Has no state of its own.
pub(crate) struct Block {
    backend: Backend,
}

impl Block {
    pub(crate) fn new(backend: Backend) -> Self {
        Self { backend }
    }

    pub(crate) fn spec(&self) -> Spec {
        let read_only = if self.backend.read_only() { F_RO } else { 0 };
        // `struct virtio_blk_config`: capacity, size_max, seg_max.
        let mut config = self.backend.sectors().to_le_bytes().to_vec();
        config.extend(0_u32.to_le_bytes());
        config.extend(SEGMENTS_MAX.to_le_bytes());
        let features = F_COMMON | F_SEG_MAX | F_FLUSH | read_only;
        Spec { id: ID, features, queue_sizes: &[QUEUE_SIZE], config }
    }

    fn serve_chain(&self, rings: &mut Rings<'_>, chain: Chain) -> Result<u64, Violation> {
        let parsed = match Parsed::new(&chain, rings.ram()) {
            Ok(parsed) => parsed,
            Err(violation) => return Err(rings.refuse(chain, violation)),
        };
        let moved = chain.readable().len() + chain.writable().len();
        let Parsed { request, mut status } = parsed;
        let (outcome, written) = match self.backend.execute(&request, rings.ram()) {
            Ok(written) => (Status::Ok, written),
            Err(status) => (status, 0),
        };
        if let Err(bad) = status.write(rings.ram(), &[outcome as u8]) {
            return Err(rings.refuse(chain, bad.into()));
        }
        rings.complete(QUEUE, chain, written + 1)?;
        Ok(moved)
    }
}

impl Device for Block {
    fn serve(&mut self, why: Wake, rings: &mut Rings<'_>) -> Result<Drained, Violation> {
        if matches!(why, Wake::Socket { .. } | Wake::Last) {
            return Ok(Drained::Empty);
        }
        rings.drain_within(ROUND_MAX, QUEUE, |rings, chain| self.serve_chain(rings, chain))
    }

    fn reset(&mut self) {}
}

/// The capacity in sectors of a file or block device of `bytes`; `None` if it is no whole number.
pub(crate) fn sectors(bytes: u64) -> Option<u64> {
    bytes.is_multiple_of(SECTOR_SIZE).then_some(bytes / SECTOR_SIZE)
}

#[cfg(test)]
mod tests;

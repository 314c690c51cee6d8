//! The block device, virtio 1.2 section 5.2: chain -> request -> backend -> used ring, synchronously.

mod backend;
mod request;

pub(crate) use backend::Backend;

use crate::device::limit::{Gate, Limits};
use crate::device::virtio::block::request::{
    DISCARD_EXTENTS_MAX, DISCARD_SECTORS_MAX, Parsed, Request, SECTOR_SIZE, Status, ZERO_SECTORS_MAX,
};
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
const F_DISCARD: u64 = 1 << 13;
const F_WRITE_ZEROES: u64 = 1 << 14;

/// What an extent to discard counts as, in bytes: a system call that moves none.
const DISCARD_EFFORT: u64 = 1 << 20;

/// What has happened since the machine began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counters {
    requests: u64,
    bytes: u64,
    /// Requests that could not be done.
    errors: u64,
    /// How often limits have held requests back.
    held_back: u64,
}

/// Has no state of the driver's.
pub(crate) struct Block {
    backend: Backend,
    gate: Gate,
    counters: Counters,
}

impl Block {
    pub(crate) fn new(backend: Backend, limits: Limits) -> Self {
        Self { backend, gate: Gate::new(limits), counters: Counters::default() }
    }

    pub(crate) fn spec(&self) -> Spec {
        let kind = if self.backend.read_only() { F_RO } else { F_DISCARD | F_WRITE_ZEROES };
        let features = F_COMMON | F_SEG_MAX | F_FLUSH | kind;
        Spec { id: ID, features, queue_sizes: &[QUEUE_SIZE], config: self.config() }
    }

    /// `struct virtio_blk_config`, section 5.2.4. What belongs to features that are not offered is 0.
    fn config(&self) -> Vec<u8> {
        let mut config = self.backend.sectors().to_le_bytes().to_vec();
        config.extend(0_u32.to_le_bytes());
        config.extend(SEGMENTS_MAX.to_le_bytes());
        if !self.backend.read_only() {
            // Up to max_discard_sectors: geometry, block size, topology, cache, number of queues.
            config.resize(36, 0);
            // Extents of any alignment; zeroing may free, and does one extent at a time.
            for word in [DISCARD_SECTORS_MAX, DISCARD_EXTENTS_MAX, 1, ZERO_SECTORS_MAX, 1, 1] {
                config.extend(word.to_le_bytes());
            }
        }
        config
    }

    fn serve_chain(
        backend: &Backend,
        counters: &mut Counters,
        rings: &mut Rings<'_>,
        chain: Chain,
    ) -> Result<u64, Violation> {
        let parsed = match Parsed::new(&chain, rings.ram()) {
            Ok(parsed) => parsed,
            Err(violation) => return Err(rings.refuse(chain, violation)),
        };
        let Parsed { request, mut status } = parsed;
        let (outcome, written) = match backend.execute(&request, rings.ram()) {
            Ok(written) => (Status::Ok, written),
            Err(status) => (status, 0),
        };
        if let Err(bad) = status.write(rings.ram(), &[outcome as u8]) {
            return Err(rings.refuse(chain, bad.into()));
        }
        rings.complete(QUEUE, chain, written + 1)?;
        let moved = effort(&request);
        counters.requests += 1;
        counters.bytes += moved;
        counters.errors += u64::from(outcome != Status::Ok);
        Ok(moved)
    }
}

impl Device for Block {
    fn serve(&mut self, why: Wake, rings: &mut Rings<'_>) -> Result<Drained, Violation> {
        if matches!(why, Wake::Socket { .. } | Wake::Last) {
            return Ok(Drained::Empty);
        }
        let Self { backend, gate, counters } = self;
        let drained = rings.drain_through(gate, ROUND_MAX, QUEUE, |rings, chain| {
            Self::serve_chain(backend, counters, rings, chain)
        })?;
        self.counters.held_back += u64::from(matches!(drained, Drained::Later(_)));
        Ok(drained)
    }

    fn reset(&mut self) {}

    fn counters(&self) -> Vec<(&'static str, u64)> {
        let Counters { requests, bytes, errors, held_back } = self.counters;
        vec![("requests", requests), ("bytes", bytes), ("errors", errors), ("rounds held back", held_back)]
    }
}

/// What a request counts as, in bytes.
fn effort(request: &Request) -> u64 {
    match request {
        Request::Read { into: data, .. } | Request::Write { from: data, .. } => data.len(),
        Request::WriteZeroes { extent, .. } => u64::from(extent.count) * SECTOR_SIZE,
        Request::Discard(extents) => extents.len() as u64 * DISCARD_EFFORT,
        Request::Flush | Request::Id { .. } | Request::Refused(_) => 0,
    }
}

/// The capacity in sectors of a file or block device of `bytes`; `None` if it is no whole number.
pub(crate) fn sectors(bytes: u64) -> Option<u64> {
    bytes.is_multiple_of(SECTOR_SIZE).then_some(bytes / SECTOR_SIZE)
}

#[cfg(test)]
mod tests;

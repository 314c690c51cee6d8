//! The balloon, virtio 1.2 section 5.5: RAM that the guest does not need goes back to the host. What comes
//! back needs no word: touching it is enough. There is no statistics queue: nobody would read it, and each
//! queue costs exits at boot.

mod request;

use crate::device::virtio::balloon::request::Pages;
use crate::device::virtio::queue::{Chain, Drained, Rings, Violation};
use crate::device::virtio::{Device, F_COMMON, Spec, Wake};

const ID: u32 = 5;
const INFLATE: usize = 0;
const DEFLATE: usize = 1;
/// The third that exists, as Linux counts: features whose queues come before it are not offered.
const REPORTING: usize = 2;
/// Linux inflates one buffer at a time, and reports 32 ranges (PAGE_REPORTING_CAPACITY).
const QUEUE_SIZES: &[u16] = &[8, 8, 32];
/// Pages per MiB, in the standard's pages of 4 KiB.
const PAGES_PER_MIB: u32 = 256;

/// Feature bits, section 5.5.3.
const F_DEFLATE_ON_OOM: u64 = 1 << 2;
const F_PAGE_REPORTING: u64 = 1 << 5;

/// What has happened since the machine began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counters {
    /// Bytes that went back to the host, again and again.
    inflated: u64,
    reported: u64,
}

#[derive(Default)]
pub(crate) struct Balloon {
    counters: Counters,
}

impl Balloon {
    /// The guest is asked to do without `target_mib`, and takes it back before it runs out of memory.
    pub(crate) fn spec(target_mib: u32) -> Spec {
        // `struct virtio_balloon_config`: pages to give; pages given, which only the driver knows.
        let pages = target_mib.saturating_mul(PAGES_PER_MIB);
        let config = [pages.to_le_bytes(), [0; 4]].concat();
        let features = F_COMMON | F_DEFLATE_ON_OOM | F_PAGE_REPORTING;
        Spec { id: ID, features, queue_sizes: QUEUE_SIZES, config }
    }

    fn inflate(&mut self, rings: &mut Rings<'_>) -> Result<Drained, Violation> {
        let counters = &mut self.counters;
        serve(rings, INFLATE, |rings, chain| {
            for run in Pages::read(chain.readable(), rings.ram())?.runs() {
                counters.inflated += rings.ram().release(run?)?;
            }
            Ok(())
        })
    }

    fn report(&mut self, rings: &mut Rings<'_>) -> Result<Drained, Violation> {
        let counters = &mut self.counters;
        serve(rings, REPORTING, |rings, chain| {
            counters.reported += chain.writable().release(rings.ram())?;
            Ok(())
        })
    }
}

/// Nothing is ever written for the driver.
fn serve(
    rings: &mut Rings<'_>,
    queue: usize,
    mut hear: impl FnMut(&Rings<'_>, &Chain) -> Result<(), Violation>,
) -> Result<Drained, Violation> {
    rings.drain(queue, |rings, chain| match hear(rings, &chain) {
        Ok(()) => rings.complete(queue, chain, 0),
        Err(violation) => Err(rings.refuse(chain, violation)),
    })
}

impl Device for Balloon {
    fn serve(&mut self, why: Wake, rings: &mut Rings<'_>) -> Result<Drained, Violation> {
        if matches!(why, Wake::Socket { .. } | Wake::Last) {
            return Ok(Drained::Empty);
        }
        // Whichever asked to be served again: the others are empty, or would have to be served as well.
        let inflated = self.inflate(rings)?;
        let deflated = serve(rings, DEFLATE, |_, _| Ok(()))?;
        let reported = self.report(rings)?;
        let more = [inflated, deflated, reported].contains(&Drained::More);
        Ok(if more { Drained::More } else { Drained::Empty })
    }

    fn reset(&mut self) {}

    fn counters(&self) -> Vec<(&'static str, u64)> {
        vec![("bytes inflated", self.counters.inflated), ("bytes reported free", self.counters.reported)]
    }
}

#[cfg(test)]
mod tests;

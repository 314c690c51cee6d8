//! The entropy device, virtio 1.2 section 5.4: the host's random bytes, straight into the driver's buffers.

use std::fs::File;

use vm_memory::ReadVolatile;

use crate::device::virtio::queue::{Drained, Rings, Violation};
use crate::device::virtio::{Device, F_COMMON, Spec, Wake};

const ID: u32 = 4;
const QUEUE: usize = 0;
/// Most bytes for one request; more would let the guest keep the host busy.
const REQUEST_MAX: u64 = 64 << 10;

/// Has no state of the driver's.
pub(crate) struct Rng {
    source: File,
    /// Bytes given since the machine began.
    given: u64,
}

impl Rng {
    /// `source` never ends: `/dev/urandom`.
    pub(crate) fn new(source: File) -> Self {
        Self { source, given: 0 }
    }

    pub(crate) fn spec() -> Spec {
        Spec { id: ID, features: F_COMMON, queue_sizes: &[8], config: Vec::new() }
    }
}

impl Device for Rng {
    fn serve(&mut self, why: Wake, rings: &mut Rings<'_>) -> Result<Drained, Violation> {
        if matches!(why, Wake::Socket { .. } | Wake::Last) {
            return Ok(Drained::Empty);
        }
        let Self { source, given } = self;
        rings.drain(QUEUE, |rings, chain| {
            let room = chain.writable().take(REQUEST_MAX);
            let slices = match room.admit(rings.ram()) {
                Ok(slices) => slices,
                Err(bad) => return Err(rings.refuse(chain, bad.into())),
            };
            let mut written = 0;
            for mut slice in slices {
                // A source that fails gives fewer bytes: the standard allows that.
                if source.read_exact_volatile(&mut slice).is_err() {
                    break;
                }
                written += u32::try_from(slice.len()).unwrap_or(0);
            }
            *given += u64::from(written);
            rings.complete(QUEUE, chain, written)
        })
    }

    fn reset(&mut self) {}

    fn counters(&self) -> Vec<(&'static str, u64)> {
        vec![("bytes given", self.given)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::virtio::queue::tests::{DATA, Driver, WRITE, ram};

    /// Firecracker 5762: a buffer as long as the guest likes must not keep the host busy.
    #[test]
    fn fc_5762_one_request_gets_at_most_64_kib() {
        let ram = ram();
        let mut driver = Driver::new(&ram, 0x1000);
        let mut queues = [driver.queue()];
        driver.post_chain(0, &[(DATA, 0x4000, WRITE), (DATA, u32::MAX - 0x4000, WRITE)]);
        let mut rng = Rng::new(File::open("/dev/urandom").unwrap());
        rng.serve(Wake::Queue(0), &mut Rings::new(&ram, &mut queues)).unwrap();
        assert_eq!(driver.used(), [(0, 0x1_0000)]);
        assert_eq!(rng.counters(), [("bytes given", 0x1_0000)]);
        assert_eq!(driver.bytes(DATA + 0xc000, 0x1000), [0; 0x1000], "behind the 64 KiB of both buffers");
    }
}

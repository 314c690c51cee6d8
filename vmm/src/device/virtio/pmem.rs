//! The persistent memory device, virtio 1.2 section 5.19: tells the guest where an image lies in its memory.
//! The image is read-only, so that a flush has nothing to do.

use crate::device::virtio::queue::{Chain, Drained, Rings, Violation};
use crate::device::virtio::{Device, F_COMMON, Spec, Wake};
use crate::layout::Region;

const ID: u32 = 27;
const QUEUE: usize = 0;
/// `struct virtio_pmem_req` and `virtio_pmem_resp`: a type, a result, 32 bits each.
const REQUEST_SIZE: usize = 4;
const FLUSH: u32 = 0;
const DONE: i32 = 0;
const FAILED: i32 = -1;

/// Has no state of its own.
pub(crate) struct Pmem;

impl Pmem {
    pub(crate) fn spec(region: Region) -> Spec {
        let config = [region.first.to_le_bytes(), region.size.to_le_bytes()].concat();
        Spec { id: ID, features: F_COMMON, queue_sizes: &[8], config }
    }
}

impl Device for Pmem {
    fn serve(&mut self, why: Wake, rings: &mut Rings<'_>) -> Result<Drained, Violation> {
        if matches!(why, Wake::Socket { .. } | Wake::Last) {
            return Ok(Drained::Empty);
        }
        rings.drain(QUEUE, |rings, chain| match answer(rings, &chain) {
            Ok(written) => rings.complete(QUEUE, chain, written),
            Err(violation) => Err(rings.refuse(chain, violation)),
        })
    }

    fn reset(&mut self) {}
}

fn answer(rings: &Rings<'_>, chain: &Chain) -> Result<u32, Violation> {
    let (mut request, mut response) = (chain.readable(), chain.writable());
    if request.len() < REQUEST_SIZE as u64 || response.len() < REQUEST_SIZE as u64 {
        return Err(Violation::NoRoom { head: chain.head() });
    }
    let mut kind = [0; REQUEST_SIZE];
    request.read(rings.ram(), &mut kind)?;
    let result = if u32::from_le_bytes(kind) == FLUSH { DONE } else { FAILED };
    response.write(rings.ram(), &result.to_le_bytes())?;
    Ok(REQUEST_SIZE as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::virtio::queue::tests::{DATA, Driver, WRITE, ram};

    /// The result of a request, or `None` if it cost the device.
    fn request(chain: &[(u64, u32, u16)], kind: u32) -> Option<i32> {
        let ram = ram();
        let mut driver = Driver::new(&ram, 0x1000);
        let mut queues = [driver.queue()];
        driver.put(DATA, kind);
        driver.put(DATA + 8, 77_i32);
        driver.post_chain(0, chain);
        Pmem.serve(Wake::Queue(0), &mut Rings::new(&ram, &mut queues)).ok()?;
        Some(i32::from_le_bytes(driver.bytes(DATA + 8, 4).try_into().unwrap()))
    }

    #[test]
    fn a_flush_is_done_at_once() {
        assert_eq!(request(&[(DATA, 4, 0), (DATA + 8, 4, WRITE)], FLUSH), Some(0));
        assert_eq!(request(&[(DATA, 4, 0), (DATA + 8, 4, WRITE)], 1), Some(-1));
    }

    #[test]
    fn a_chain_that_is_no_request_costs_the_device() {
        assert_eq!(request(&[(DATA, 3, 0), (DATA + 8, 4, WRITE)], FLUSH), None);
        assert_eq!(request(&[(DATA, 4, 0), (DATA + 8, 3, WRITE)], FLUSH), None);
        assert_eq!(request(&[(DATA, 4, 0)], FLUSH), None);
    }
}

//! Pages that go, and those that must not.

use std::sync::Arc;

use virtio_queue::Queue;

use super::request::PAGES_MAX;
use super::*;
use crate::device::virtio::queue::tests::{DATA, Driver, WRITE, ram};
use crate::memory::GuestRam;

/// Where numbers of pages are written, and the pages that they mean.
const NUMBERS: u64 = DATA;
const FIRST: u32 = 0x1000;

struct Bench {
    ram: Arc<GuestRam>,
    drivers: [Driver; 3],
    queues: [Queue; 3],
    balloon: Balloon,
}

fn bench() -> Bench {
    let ram = ram();
    let drivers = [0x1_0000, 0x2_0000, 0x3_0000].map(|base| Driver::new(&ram, base));
    let queues = drivers.each_ref().map(Driver::queue);
    let bench = Bench { ram, drivers, queues, balloon: Balloon::default() };
    (FIRST..FIRST + 8).for_each(|page| bench.drivers[0].write(at(page), &[7; 4096]));
    bench
}

fn at(page: u32) -> u64 {
    u64::from(page) * 4096
}

impl Bench {
    fn serve(&mut self, queue: usize, chain: &[(u64, u32, u16)]) -> Result<(), Violation> {
        self.drivers[queue].post_chain(0, chain);
        let mut rings = Rings::new(&self.ram, &mut self.queues);
        self.balloon.serve(Wake::Queue(queue as u16), &mut rings)?;
        assert_eq!(self.drivers[queue].used().last(), Some(&(0, 0)));
        Ok(())
    }

    /// Inflates by these pages.
    fn inflate(&mut self, pages: &[u32]) -> Result<(), Violation> {
        let bytes: Vec<u8> = pages.iter().flat_map(|page| page.to_le_bytes()).collect();
        self.drivers[0].write(NUMBERS, &bytes);
        self.serve(INFLATE, &[(NUMBERS, u32::try_from(bytes.len()).unwrap(), 0)])
    }

    /// Which of the eight pages are still there.
    fn there(&self) -> [bool; 8] {
        let mut page = FIRST..;
        [(); 8].map(|()| self.drivers[0].bytes(at(page.next().unwrap()), 4096) == [7; 4096])
    }
}

const ALL: [bool; 8] = [true; 8];

#[test]
fn pages_in_the_balloon_are_the_hosts() {
    let mut bench = bench();
    bench.inflate(&[FIRST + 3, FIRST + 1, FIRST + 2, FIRST + 6, FIRST + 6]).unwrap();
    assert_eq!(bench.there(), [true, false, false, false, true, true, false, true]);
    assert_eq!(bench.balloon.counters, Counters { inflated: 4 * 4096, reported: 0 });
    // They come back by being used.
    bench.serve(DEFLATE, &[(NUMBERS, 20, 0)]).unwrap();
    (FIRST..FIRST + 8).for_each(|page| bench.drivers[0].write(at(page), &[7; 4096]));
    assert_eq!(bench.there(), ALL);
}

#[test]
fn ranges_that_are_reported_are_the_hosts_as_far_as_they_are_whole_pages() {
    let mut bench = bench();
    let first = at(FIRST);
    bench.serve(REPORTING, &[(first, 8192, WRITE), (first + 5 * 4096 - 1, 4098, WRITE)]).unwrap();
    assert_eq!(bench.there(), [false, false, true, true, true, false, true, true]);
    bench.serve(REPORTING, &[(first + 7 * 4096 + 1, 4095, WRITE)]).unwrap();
    assert!(bench.there()[7]);
    assert_eq!(bench.balloon.counters, Counters { inflated: 0, reported: 3 * 4096 });
}

#[test]
fn what_is_no_ram_costs_the_device() {
    for pages in [&[0x2000][..], &[0x000f_ffff, FIRST], &[u32::MAX]] {
        assert!(bench().inflate(pages).is_err(), "{pages:x?}");
    }
    for range in [(32 << 20, 4096, WRITE), ((32 << 20) - 4096, 8192, WRITE), (u64::MAX - 4095, 4096, WRITE)] {
        let mut bench = bench();
        assert!(bench.serve(REPORTING, &[range]).is_err(), "{range:x?}");
        assert_eq!(bench.there(), ALL);
    }
    assert!(bench().serve(INFLATE, &[(0xc000_0000, 64, 0)]).is_err());
}

#[test]
fn requests_of_odd_lengths_do_what_they_say() {
    let mut bench = bench();
    bench.serve(INFLATE, &[(NUMBERS, 0, 0)]).unwrap();
    bench.serve(INFLATE, &[(NUMBERS, 64, WRITE)]).unwrap();
    bench.serve(REPORTING, &[(at(FIRST), 8192, 0)]).unwrap();
    assert_eq!(bench.there(), ALL, "the wrong direction says nothing");
    // Half a number is none.
    bench.drivers[0].write(NUMBERS, &[FIRST.to_le_bytes(), (FIRST + 1).to_le_bytes()].concat());
    bench.serve(INFLATE, &[(NUMBERS, 7, 0)]).unwrap();
    assert_eq!(bench.there()[..2], [false, true]);
}

/// Firecracker 5794: a length that the guest chooses must not become an allocation.
#[test]
fn fc_5794_a_request_as_long_as_ram_is_cut() {
    let mut bench = bench();
    bench.drivers[0].write(NUMBERS, &FIRST.to_le_bytes().repeat(PAGES_MAX));
    bench.drivers[0].write(NUMBERS + PAGES_MAX as u64 * 4, &(FIRST + 1).to_le_bytes());
    bench.serve(INFLATE, &[(NUMBERS, u32::MAX, 0)]).unwrap();
    assert_eq!(bench.there()[..2], [false, true]);
}

#[test]
fn the_configuration_names_pages() {
    assert_eq!(Balloon::spec(3).config, [0, 3, 0, 0, 0, 0, 0, 0]);
    assert_eq!(Balloon::spec(u32::MAX).config[..4], [0xff; 4]);
}

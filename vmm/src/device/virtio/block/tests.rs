//! Requests, good and hostile, against a real file.

use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::Arc;

use proptest::prelude::*;
use virtio_queue::Queue;

use super::*;
use crate::device::virtio::queue::tests::{DATA, Driver, SIZE, WRITE, ram};
use crate::memory::GuestRam;

const HEAD: u64 = DATA - 0x1000;
const STATUS: u64 = DATA - 0x100;
const SECTORS: u64 = 8;

struct Bench {
    ram: Arc<GuestRam>,
    driver: Driver,
    queues: [Queue; 1],
    block: Block,
    file: std::fs::File,
}

fn bench(read_only: bool) -> Bench {
    let mut file = tempfile::tempfile().unwrap();
    for sector in 0..u8::try_from(SECTORS).unwrap() {
        file.write_all(&[sector; 512]).unwrap();
    }
    let backend = Backend::new(file.try_clone().unwrap(), SECTORS, read_only, 7);
    let ram = ram();
    let driver = Driver::new(&ram, 0x1000);
    let queues = [driver.queue()];
    Bench { driver, queues, block: Block::new(backend, Limits::default()), file, ram }
}

impl Bench {
    /// Serves one request; its status byte, or `None` if it cost the device.
    fn request(&mut self, kind: u32, sector: u64, data: &[(u64, u32, u16)]) -> Option<u8> {
        self.driver.put(HEAD, kind);
        self.driver.put(HEAD + 8, sector);
        self.driver.put(STATUS, 0xff_u8);
        let chain = [&[(HEAD, 16, 0)], data, &[(STATUS, 1, WRITE)]].concat();
        self.post(&chain)?;
        Some(self.driver.bytes(STATUS, 1)[0])
    }

    fn post(&mut self, chain: &[(u64, u32, u16)]) -> Option<()> {
        self.driver.post_chain(0, chain);
        let mut rings = Rings::new(&self.ram, &mut self.queues);
        let drained = self.block.serve(Wake::Queue(0), &mut rings).ok()?;
        // The one that uses a limit up is served.
        assert!(matches!(drained, Drained::Empty | Drained::Later(_)), "{drained:?}");
        Some(())
    }
}

#[test]
fn data_goes_both_ways_in_any_framing() {
    let mut bench = bench(false);
    assert_eq!(bench.request(IN, 2, &[(DATA, 100, WRITE), (DATA + 100, 924, WRITE)]), Some(0));
    assert_eq!(bench.driver.bytes(DATA, 1024), [[2; 512], [3; 512]].concat());
    assert_eq!(bench.driver.used(), [(0, 1025)]);
    bench.driver.write(DATA, &[9; 512]);
    assert_eq!(bench.request(OUT, 7, &[(DATA, 512, 0)]), Some(0));
    assert_eq!(bench.driver.used()[1], (0, 1));
    let mut last = [0; 512];
    bench.file.seek(SeekFrom::Start(7 * 512)).unwrap();
    bench.file.read_exact(&mut last).unwrap();
    assert_eq!(last, [9; 512]);
    assert_eq!(bench.request(FLUSH, 0, &[]), Some(0));
    assert_eq!(bench.request(GET_ID, 0, &[(DATA, 20, WRITE)]), Some(0));
    assert_eq!(&bench.driver.bytes(DATA, 7), b"hull-7\0");
}

#[test]
fn a_status_in_the_last_byte_of_a_data_buffer_is_found() {
    let mut bench = bench(false);
    bench.driver.put(HEAD, IN);
    bench.driver.put(HEAD + 8, 1_u64);
    bench.post(&[(HEAD, 16, 0), (DATA, 513, WRITE)]).unwrap();
    assert_eq!(bench.driver.bytes(DATA, 513), [vec![1; 512], vec![0]].concat());
}

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;

#[test]
fn what_cannot_be_done_is_an_error_of_the_request() {
    let mut bench = bench(false);
    let (ok, io_error, unsupported) = (Some(0), Some(1), Some(2));
    for (kind, sector, data, want) in [
        (IN, 7, vec![(DATA, 512, WRITE)], ok),
        (IN, 8, vec![(DATA, 512, WRITE)], io_error),
        (IN, 7, vec![(DATA, 1024, WRITE)], io_error),
        (IN, u64::MAX, vec![(DATA, 512, WRITE)], io_error),
        (IN, u64::MAX / 512, vec![(DATA, 512, WRITE)], io_error),
        (IN, 0, vec![(DATA, 511, WRITE)], io_error),
        (IN, 0, vec![(0xc000_0000, 512, WRITE)], io_error),
        (IN, 0, vec![], ok),
        (OUT, 8, vec![(DATA, 512, 0)], io_error),
        (OUT, u64::MAX, vec![(DATA, 512, 0)], io_error),
        (OUT, 0, vec![(0xc000_0000, 512, 0)], io_error),
        (GET_ID, 0, vec![(DATA, 19, WRITE)], io_error),
        (12, 0, vec![(DATA, 16, 0)], unsupported),
        (u32::MAX, 0, vec![], unsupported),
    ] {
        assert_eq!(bench.request(kind, sector, &data), want, "{kind} {sector} {data:?}");
    }
    // The file has become shorter than the disk.
    bench.file.set_len(512).unwrap();
    assert_eq!(bench.request(IN, 1, &[(DATA, 512, WRITE)]), io_error);
}

impl Bench {
    /// A request about extents: sector, count, flags.
    fn about(&mut self, kind: u32, extents: &[(u64, u32, u32)]) -> Option<u8> {
        for (at, (sector, count, flags)) in (DATA..).step_by(16).zip(extents) {
            self.driver.put(at, *sector);
            self.driver.put(at + 8, *count);
            self.driver.put(at + 12, *flags);
        }
        let len = u32::try_from(extents.len() * 16).unwrap();
        self.request(kind, 0, &[(DATA, len, 0)])
    }

    fn contents(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        self.file.rewind().unwrap();
        self.file.read_to_end(&mut all).unwrap();
        all
    }
}

#[test]
fn sectors_are_forgotten_and_zeroed() {
    for (kind, flags) in [(DISCARD, 0), (WRITE_ZEROES, 0), (WRITE_ZEROES, 1)] {
        let mut bench = bench(false);
        assert_eq!(bench.about(kind, &[(2, 3, flags)]), Some(0));
        let contents = bench.contents();
        let zero = |sector: usize| contents[sector * 512..][..512] == [0; 512];
        assert_eq!([1, 2, 3, 4, 5].map(zero), [false, true, true, true, false], "{kind} {flags}");
        assert_eq!(contents.len(), 8 * 512);
    }
    assert_eq!(bench(false).about(DISCARD, &[(0, 1, 0), (7, 1, 0), (3, 0, 0)]), Some(0));
}

#[test]
fn extents_that_are_not_on_the_disk_are_an_error() {
    let (io_error, unsupported) = (Some(1), Some(2));
    for (kind, extents, want) in [
        (DISCARD, &[(8, 1, 0)][..], io_error),
        (DISCARD, &[(7, 2, 0)], io_error),
        (DISCARD, &[(u64::MAX, 1, 0)], io_error),
        (DISCARD, &[(u64::MAX / 512, u32::MAX, 0)], io_error),
        (DISCARD, &[(0, DISCARD_SECTORS_MAX + 1, 0)], io_error),
        (DISCARD, &[], io_error),
        (DISCARD, &[(0, 1, 0); 17], io_error),
        (DISCARD, &[(0, 1, 1)], unsupported),
        (DISCARD, &[(0, 1, 2)], unsupported),
        (WRITE_ZEROES, &[(8, 1, 0)], io_error),
        (WRITE_ZEROES, &[(u64::MAX, u32::MAX, 0)], io_error),
        (WRITE_ZEROES, &[(0, ZERO_SECTORS_MAX + 1, 0)], io_error),
        (WRITE_ZEROES, &[(0, 1, 0); 2], io_error),
        (WRITE_ZEROES, &[(0, 1, 2)], unsupported),
    ] {
        let mut bench = bench(false);
        let before = bench.contents();
        assert_eq!(bench.about(kind, extents), want, "{kind} {extents:?}");
        assert_eq!(bench.contents(), before, "{kind} {extents:?}");
    }
    // Half an extent; extents that are not RAM cost the device.
    assert_eq!(bench(false).request(DISCARD, 0, &[(DATA, 24, 0)]), io_error);
    assert_eq!(bench(false).request(WRITE_ZEROES, 0, &[(DATA, 15, 0)]), io_error);
    assert_eq!(bench(false).request(DISCARD, 0, &[(0xc000_0000, 16, 0)]), None);
    let mut read_only = bench(true);
    assert_eq!(read_only.about(DISCARD, &[(0, 1, 0)]), io_error);
    assert_eq!(read_only.about(WRITE_ZEROES, &[(0, 1, 0)]), io_error);
}

#[test]
fn a_writable_disk_says_what_it_can_forget() {
    let spec = bench(false).block.spec();
    assert_eq!(spec.features & (F_DISCARD | F_WRITE_ZEROES), F_DISCARD | F_WRITE_ZEROES);
    let word = |at: usize| u32::from_le_bytes(spec.config[at..at + 4].try_into().unwrap());
    assert_eq!([36, 40, 44, 48, 52, 56].map(word), [512 << 10, 16, 1, 32 << 10, 1, 1]);
    let spec = bench(true).block.spec();
    assert_eq!((spec.features & (F_DISCARD | F_WRITE_ZEROES), spec.config.len()), (0, 16));
}

impl Bench {
    /// The same driver before a disk that is this file.
    fn on(path: &str) -> Self {
        let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
        let backend = Backend::new(file, SECTORS, false, 0);
        Self { block: Block::new(backend, Limits::default()), ..bench(false) }
    }
}

#[test]
fn a_host_that_fails_is_an_error_of_the_request() {
    // No space is left, whatever is written.
    let mut full = Bench::on("/dev/full");
    assert_eq!(full.request(OUT, 0, &[(DATA, 512, 0)]), Some(1));
    assert_eq!(full.request(IN, 0, &[(DATA, 512, WRITE)]), Some(0));
    // Neither a hole nor zeroes for free: the first may be ignored, the second may not.
    assert_eq!(full.about(WRITE_ZEROES, &[(0, 1, 0)]), Some(1));
    assert_eq!(full.request(FLUSH, 0, &[]), Some(1));
    assert_eq!((full.block.counters.requests, full.block.counters.errors), (4, 3));
    // The memory of this process has nothing at its beginning: EIO.
    let mut broken = Bench::on("/proc/self/mem");
    assert_eq!(broken.request(IN, 0, &[(DATA, 512, WRITE)]), Some(1));
    assert_eq!(broken.request(OUT, 1, &[(DATA, 512, 0)]), Some(1));
}

#[test]
fn a_limit_holds_requests_back_and_loses_none() {
    let rate = crate::device::limit::Rate::new(std::num::NonZeroU64::new(1).unwrap(), 512);
    let mut bench = bench(false);
    let backend = Backend::new(bench.file.try_clone().unwrap(), SECTORS, false, 0);
    bench.block = Block::new(backend, Limits { bytes: Some(rate), operations: None });
    assert_eq!(bench.request(IN, 0, &[(DATA, 512, WRITE)]), Some(0));
    bench.driver.put(HEAD, IN);
    bench.driver.post_chain(0, &[(HEAD, 16, 0), (DATA, 512, WRITE), (STATUS, 1, WRITE)]);
    let mut rings = Rings::new(&bench.ram, &mut bench.queues);
    let drained = bench.block.serve(Wake::Queue(0), &mut rings).unwrap();
    assert!(matches!(drained, Drained::Later(wait) if !wait.is_zero()), "{drained:?}");
    assert_eq!(bench.driver.used().len(), 1);
    assert_eq!(bench.block.counters, Counters { requests: 1, bytes: 512, errors: 0, held_back: 2 });
    // Without the limit it comes at once.
    bench.block.gate = Gate::default();
    bench.block.serve(Wake::Again, &mut rings).unwrap();
    assert_eq!(bench.driver.used().len(), 2);
}

/// Cloud Hypervisor: a disk whose first bytes name another file of the host (QCOW2's backing file).
#[test]
fn ghsa_jmr4_g2hv_mjj6_a_disk_names_no_other_file() {
    let mut bench = bench(false);
    let mut head = b"QFI\xfb\0\0\0\x03".to_vec();
    head.extend(0x68_u64.to_be_bytes());
    head.extend(11_u32.to_be_bytes());
    head.resize(0x68, 0);
    head.extend(b"/etc/passwd");
    head.resize(512, 0);
    bench.driver.write(DATA, &head);
    assert_eq!(bench.request(OUT, 0, &[(DATA, 512, 0)]), Some(0));
    // Opened anew, it is bytes as any other.
    let backend = Backend::new(bench.file.try_clone().unwrap(), SECTORS, false, 0);
    bench.block = Block::new(backend, Limits::default());
    bench.driver.write(DATA, &[0; 512]);
    assert_eq!(bench.request(IN, 0, &[(DATA, 512, WRITE)]), Some(0));
    assert_eq!(bench.driver.bytes(DATA, 512), head);
}

#[test]
fn a_read_only_disk_is_never_written() {
    let mut bench = bench(true);
    assert_eq!(bench.request(OUT, 0, &[(DATA, 512, 0)]), Some(1));
    assert_eq!(bench.request(IN, 0, &[(DATA, 512, WRITE)]), Some(0));
    assert_eq!(bench.driver.bytes(DATA, 512), [0; 512]);
    assert_ne!(bench.block.spec().features & F_RO, 0);
}

#[test]
fn a_chain_that_is_no_request_costs_the_device() {
    for chain in [
        &[(HEAD, 15, 0), (STATUS, 1, WRITE)][..],
        &[(HEAD, 16, 0)],
        &[(HEAD, 16, 0), (STATUS, 0, WRITE)],
        &[(STATUS, 1, WRITE)],
        &[(0xc000_0000, 16, 0), (STATUS, 1, WRITE)],
        &[(HEAD, 16, 0), (0xc000_0000, 1, WRITE)],
    ] {
        assert_eq!(bench(false).post(chain), None, "{chain:?}");
    }
}

proptest! {
    #[test]
    fn no_chain_panics(
        head in any::<[u8; 16]>(),
        buffers in prop::collection::vec((0_u64..0x30_0000, 0_u32..0x2000, 0_u16..4), 1..usize::from(SIZE)),
    ) {
        let mut bench = bench(false);
        let at = bench.driver.bytes(0, 0).len() as u64 + buffers[0].0;
        bench.driver.write(at, &head);
        let chain: Vec<_> = buffers.iter().map(|(at, len, flags)| (*at, *len, flags & WRITE)).collect();
        let _ = bench.post(&chain);
    }
}

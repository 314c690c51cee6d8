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
    Bench { driver, queues, block: Block::new(backend), file, ram }
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
        self.block.serve(Wake::Queue(0), &mut rings).ok().map(|drained| assert_eq!(drained, Drained::Empty))
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
        (DISCARD, 0, vec![(DATA, 16, 0)], unsupported),
        (u32::MAX, 0, vec![], unsupported),
    ] {
        assert_eq!(bench.request(kind, sector, &data), want, "{kind} {sector} {data:?}");
    }
    // The file has become shorter than the disk.
    bench.file.set_len(512).unwrap();
    assert_eq!(bench.request(IN, 1, &[(DATA, 512, WRITE)]), io_error);
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
    bench.block = Block::new(backend);
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

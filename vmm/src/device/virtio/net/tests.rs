//! Frames, good and hostile, through a socket that keeps packets apart as a tap does.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;

use proptest::prelude::*;
use virtio_queue::{Queue, QueueT};

use super::request::{HEAD_SIZE, Lie};
use super::*;
use crate::device::virtio::F_VERSION_1;
use crate::device::virtio::queue::tests::{DATA, Driver, SIZE, WRITE, ram};
use crate::events::Events;
use crate::memory::GuestRam;

const ADDRESS: Address = Address { mac: [2, 0, 0, 0, 0, 1], mtu: Some(1500) };
const ALL: u64 = u64::MAX;
const RX_RINGS: u64 = 0x1_0000;
const TX_RINGS: u64 = 0x2_0000;
/// Where frames of the guest are, and its receive buffers.
const TX_AT: u64 = DATA;
const RX_AT: u64 = DATA + 0x10_0000;

/// A live device, its driver, and the wire behind its tap.
struct Bench {
    ram: Arc<GuestRam>,
    rx: Driver,
    tx: Driver,
    queues: [Queue; 2],
    net: Net,
    wire: UnixDatagram,
}

fn bench() -> Bench {
    bench_with(ALL)
}

fn bench_with(features: u64) -> Bench {
    let ram = ram();
    let (rx, tx) = (Driver::new(&ram, RX_RINGS), Driver::new(&ram, TX_RINGS));
    let (tap, wire) = UnixDatagram::pair().unwrap();
    [&tap, &wire].into_iter().for_each(|end| end.set_nonblocking(true).unwrap());
    let backend = Backend::new(OwnedFd::from(tap).into());
    let mut net = Net::new(backend, ADDRESS, Gates::default(), Events::new().unwrap().handle(0));
    net.activate(features, &[]);
    Bench { queues: [rx.queue(), tx.queue()], ram, rx, tx, net, wire }
}

impl Bench {
    fn wake(&mut self, why: Wake) -> Result<Drained, Violation> {
        self.net.serve(why, &mut Rings::new(&self.ram, &mut self.queues))
    }

    /// Sends header and frame from the guest; what comes out of the tap.
    fn send(&mut self, head: [u8; HEAD_SIZE], frame: &[u8]) -> Option<Vec<u8>> {
        self.tx.write(TX_AT, &[&head, frame].concat());
        let len = u32::try_from(HEAD_SIZE + frame.len()).unwrap();
        // In pieces that do not respect the header's end.
        self.tx.post_chain(0, &[(TX_AT, 5, 0), (TX_AT + 5, len - 5, 0)]);
        let used = self.tx.used().len();
        self.wake(Wake::Queue(1)).unwrap();
        assert_eq!(self.tx.used().len(), used + 1, "sent or not, the buffer comes back");
        self.out()
    }

    fn out(&mut self) -> Option<Vec<u8>> {
        let mut packet = vec![0; 0x2_0000];
        let len = self.wire.recv(&mut packet).ok()?;
        packet.truncate(len);
        Some(packet)
    }

    /// Posts `count` receive buffers of `size` bytes.
    fn post_rx(&mut self, count: u16, size: u32) {
        for index in 0..count {
            self.rx.post_chain(index, &[(RX_AT + u64::from(index) * 0x1_0000, size, WRITE)]);
        }
        self.wake(Wake::Queue(0)).unwrap();
    }

    /// A frame arrives at the tap.
    fn arrive(&mut self, frame: &[u8]) {
        self.wire.send(&[&[0; HEAD_SIZE], frame].concat()).unwrap();
        self.wake(Wake::Socket { socket: 0, hung_up: false }).unwrap();
    }
}

/// A header in the order of the standard.
fn head(
    flags: u8,
    gso: u8,
    hdr_len: u16,
    gso_size: u16,
    csum_start: u16,
    csum_offset: u16,
) -> [u8; HEAD_SIZE] {
    let mut head = [0; HEAD_SIZE];
    head[..2].copy_from_slice(&[flags, gso]);
    for (to, word) in head[2..].chunks_mut(2).zip([hdr_len, gso_size, csum_start, csum_offset]) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    head
}

const PLAIN: [u8; HEAD_SIZE] = [0; HEAD_SIZE];

#[test]
fn a_frame_of_the_guest_leaves_whole() {
    let mut bench = bench();
    let frame: Vec<u8> = (0..=255).cycle().take(1514).collect();
    assert_eq!(bench.send(PLAIN, &frame).unwrap(), [&PLAIN[..], &frame].concat());
    assert_eq!(bench.tx.used(), [(0, 0)]);
    let tcp = head(1, 1, 54, 1448, 34, 16);
    let big = vec![7; 60_000];
    assert_eq!(bench.send(tcp, &big).unwrap(), [&tcp[..], &big].concat());
    assert_eq!(bench.net.counters, Counters { sent: 2, ..Counters::default() });
}

/// What is said of a frame of `len` bytes, with and without having negotiated it.
#[track_caller]
fn check(said: [u8; HEAD_SIZE], len: u64, want: Result<[u8; HEAD_SIZE], Lie>) {
    let got = Head::admit(said, len, ALL, Some(1500)).map(Head::encode);
    assert_eq!(got, want, "{said:?} for {len} bytes");
}

#[test]
fn lies_do_not_reach_the_host() {
    let length = Err(Lie::Length);
    check(PLAIN, 14, Ok(PLAIN));
    check(PLAIN, 13, length);
    check(PLAIN, 0, length);
    check(PLAIN, 1522, Ok(PLAIN));
    check(PLAIN, 1523, length);
    check(head(1, 1, 54, 1448, 34, 16), FRAME_MAX + 1, length);
    check(PLAIN, u64::MAX, length);
    // Nothing but what a flag asks for; what only a device may say is not repeated.
    check([0, 0, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9], 60, Ok(PLAIN));
    check(head(2 | 4 | 0xf0, 0, 0, 0, 0, 0), 60, Ok(PLAIN));
    check(head(1 | 2, 0, 7, 7, 34, 6), 60, Ok(head(1, 0, 0, 0, 34, 6)));
    let checksum = Err(Lie::Checksum);
    check(head(1, 0, 0, 0, 34, 24), 60, Ok(head(1, 0, 0, 0, 34, 24)));
    check(head(1, 0, 0, 0, 34, 25), 60, checksum);
    check(head(1, 0, 0, 0, 13, 0), 60, checksum);
    check(head(1, 0, 0, 0, u16::MAX, u16::MAX), 60, checksum);
    let segments = Err(Lie::Segments);
    let (tcp4, tcp6, udp) =
        (head(1, 1, 54, 8, 34, 16), head(1, 4, 74, 1428, 54, 16), head(1, 5, 42, 1, 34, 6));
    check(tcp4, 9000, Ok(tcp4));
    check(tcp6, 9000, Ok(tcp6));
    check(udp, 42 + 128, Ok(udp));
    check(udp, 42 + 129, segments);
    check(head(1, 5, 42, 0, 34, 6), 100, segments);
    // Without a checksum to fill in; segments of nothing, or next to it.
    check(head(0, 1, 54, 1448, 34, 16), 9000, segments);
    check(head(1, 1, 54, 0, 34, 16), 9000, segments);
    check(head(1, 1, 54, 7, 34, 16), 9000, segments);
    // Headers that do not fit below, or behind; a checksum elsewhere; a header longer than all.
    check(head(1, 1, 54, 1448, 33, 16), 9000, segments);
    check(head(1, 4, 74, 1448, 34, 16), 9000, segments);
    check(head(1, 1, 54, 1448, 34, 16), 53, segments);
    check(head(1, 1, 54, 1448, 34, 6), 9000, segments);
    check(head(1, 1, 9001, 1448, 34, 16), 9000, segments);
    // UDP fragments, ECN that was not offered, what does not exist.
    for kind in [2, 3, 6, 0x81, 0x84, 0x85, 0xff] {
        check(head(1, kind, 54, 1448, 34, 16), 9000, segments);
    }
}

#[test]
fn what_was_not_negotiated_is_a_lie() {
    for (said, feature) in [
        (head(1, 0, 0, 0, 34, 16), F_CSUM),
        (head(1, 1, 54, 1448, 34, 16), F_HOST_TSO4),
        (head(1, 4, 74, 1448, 54, 16), F_HOST_TSO6),
        (head(1, 5, 42, 1448, 34, 6), F_HOST_USO),
    ] {
        assert!(Head::admit(said, 1500, ALL, None).is_ok(), "{said:?}");
        assert!(Head::admit(said, 1500, ALL & !feature, None).is_err(), "{said:?}");
    }
}

#[test]
fn a_lie_costs_the_frame_and_not_the_device() {
    let mut bench = bench();
    assert_eq!(bench.send(head(1, 0, 0, 0, 60, 0), &[7; 60]), None);
    assert_eq!(bench.send(PLAIN, &[7; 13]), None);
    assert!(bench.send(PLAIN, &[7; 60]).is_some());
    assert_eq!(bench.net.counters, Counters { sent: 1, refused: 2, ..Counters::default() });
}

#[test]
fn a_wire_that_takes_nothing_costs_the_frame() {
    let mut bench = bench();
    // The socket's queue is finite, as a tap that is down is.
    while bench.net.counters.not_taken == 0 {
        bench.tx.post_chain(0, &[(TX_AT, 100, 0)]);
        bench.wake(Wake::Queue(1)).unwrap();
    }
    while bench.out().is_some() {}
    assert!(bench.send(PLAIN, &[7; 60]).is_some());
}

#[test]
fn a_chain_without_a_whole_header_or_not_in_ram_costs_the_device() {
    for chain in [
        &[(TX_AT, 11, 0)][..],
        &[(TX_AT, 64, WRITE)],
        &[(0xc000_0000, 64, 0)],
        &[(TX_AT, 12, 0), (0xc000_0000, 64, 0)],
        &[(TX_AT, 12, 0), ((32 << 20) - 8, 64, 0)],
    ] {
        let mut bench = bench();
        bench.tx.post_chain(0, chain);
        assert!(bench.wake(Wake::Queue(1)).is_err(), "{chain:?}");
        assert_eq!(bench.out(), None);
    }
}

#[test]
fn a_frame_that_arrives_fills_as_many_buffers_as_it_needs() {
    let mut bench = bench();
    bench.post_rx(4, 1000);
    let frame: Vec<u8> = (0..=255).cycle().take(2500).collect();
    bench.arrive(&frame);
    // The first says how many there are; each is filled before the next begins.
    assert_eq!(bench.rx.used(), [(0, 1000), (1, 1000), (2, 512)]);
    let got =
        [(0, 1000), (1, 1000), (2, 512)].map(|(n, len)| bench.rx.bytes(RX_AT + n * 0x1_0000, len)).concat();
    assert_eq!(got[..HEAD_SIZE], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0]);
    assert_eq!(got[HEAD_SIZE..], frame);
    bench.arrive(&[9; 60]);
    assert_eq!(bench.rx.used()[3], (3, 72));
    assert_eq!(bench.rx.bytes(RX_AT + 3 * 0x1_0000 + 10, 3), [1, 0, 9]);
    assert_eq!(bench.net.counters, Counters { received: 2, ..Counters::default() });
}

#[test]
fn a_frame_waits_for_buffers_and_keeps_its_place() {
    let mut bench = bench();
    bench.arrive(&[1; 60]);
    bench.arrive(&[2; 3000]);
    assert_eq!((bench.rx.used(), bench.net.watched.readable), (vec![], false), "nobody spins on the tap");
    bench.post_rx(3, 1600);
    assert_eq!(bench.rx.used(), [(0, 72), (1, 1600), (2, 1412)]);
    assert!(bench.net.watched.readable);
    // Half of what it needs is there, then all.
    bench.arrive(&[3; 3000]);
    bench.rx.post_chain(0, &[(RX_AT, 1600, WRITE)]);
    bench.wake(Wake::Queue(0)).unwrap();
    assert_eq!(bench.rx.used().len(), 3);
    bench.rx.post_chain(1, &[(RX_AT + 0x1_0000, 1600, WRITE)]);
    bench.wake(Wake::Queue(0)).unwrap();
    assert_eq!(bench.rx.used()[3..], [(0, 1600), (1, 1412)]);
    assert_eq!(bench.rx.bytes(RX_AT + 12, 1), [3]);
}

#[test]
fn the_driver_sees_all_buffers_of_a_frame_at_once() {
    let mut bench = bench();
    bench.queues[0].set_event_idx(true);
    bench.post_rx(4, 1000);
    // It asks to hear of the third entry: the second of the second frame.
    bench.rx.put(RX_RINGS + 0x1004 + u64::from(SIZE) * 2, 2_u16);
    let ram = Arc::clone(&bench.ram);
    let mut wanted = |frame: &[u8]| {
        bench.wire.send(&[&[0; HEAD_SIZE], frame].concat()).unwrap();
        let mut rings = Rings::new(&ram, &mut bench.queues);
        bench.net.serve(Wake::Socket { socket: 0, hung_up: false }, &mut rings).unwrap();
        rings.wants_interrupt().unwrap()
    };
    assert!(!wanted(&[1; 60]));
    assert!(wanted(&[2; 2000]));
    assert!(!wanted(&[3; 60]));
}

#[test]
fn a_frame_that_no_buffers_can_hold_is_dropped() {
    let mut bench = bench_with(ALL & !F_MRG_RXBUF);
    bench.post_rx(1, 1000);
    bench.arrive(&[1; 1000]);
    assert_eq!((bench.rx.used(), bench.net.counters.not_delivered), (vec![], 1));
    bench.arrive(&[2; 988]);
    assert_eq!(bench.rx.used(), [(0, 1000)]);
    assert_eq!(bench.rx.bytes(RX_AT + 10, 3), [1, 0, 2]);
}

#[test]
fn a_receive_buffer_that_is_none_costs_the_device() {
    for chain in [&[(RX_AT, 11, WRITE)][..], &[(RX_AT, 64, 0)], &[(0xc000_0000, 2000, WRITE)]] {
        let mut bench = bench();
        bench.rx.post_chain(1, &[(RX_AT, 100, WRITE)]);
        bench.rx.post_chain(0, chain);
        bench.wire.send(&[0; HEAD_SIZE + 1000]).unwrap();
        assert!(bench.wake(Wake::Queue(0)).is_err(), "{chain:?}");
        assert_eq!(bench.rx.used(), []);
        bench.net.reset();
        assert!(!bench.net.watched.readable, "nobody is woken for a device that is lost");
    }
}

#[test]
fn a_wire_that_is_gone_is_not_watched() {
    let mut bench = bench();
    bench.post_rx(1, 2000);
    assert!(bench.net.watched.readable);
    // An empty packet is what this test has instead of a tap that was deleted.
    bench.wire.send(&[]).unwrap();
    bench.wake(Wake::Socket { socket: 0, hung_up: true }).unwrap();
    assert!(!bench.net.watched.readable);
}

#[test]
fn limits_hold_frames_back_and_lose_none() {
    let rate = crate::device::limit::Rate::new(std::num::NonZeroU64::new(1).unwrap(), 1);
    let limits = crate::device::limit::Limits { bytes: None, operations: Some(rate) };
    let mut bench = bench();
    bench.net.gates = Gates { from_guest: Gate::new(limits), to_guest: Gate::new(limits) };
    bench.post_rx(4, 2000);
    (0..2).for_each(|_| drop(bench.wire.send(&[1; 100])));
    let later = |drained: Drained| matches!(drained, Drained::Later(_));
    assert!(later(bench.wake(Wake::Socket { socket: 0, hung_up: false }).unwrap()));
    assert_eq!((bench.rx.used().len(), bench.net.watched.readable), (1, false), "nobody spins on the tap");
    (0..2).for_each(|_| bench.tx.post_chain(0, &[(TX_AT, 100, 0)]));
    assert!(later(bench.wake(Wake::Queue(1)).unwrap()));
    assert_eq!(bench.tx.used().len(), 1);
    bench.net.gates = Gates::default();
    assert_eq!(bench.wake(Wake::Again).unwrap(), Drained::Empty);
    assert_eq!((bench.rx.used().len(), bench.tx.used().len()), (2, 2));
    assert!(bench.net.watched.readable);
}

#[test]
fn a_driver_without_the_taps_offloads_is_refused() {
    let net = bench().net;
    assert!(net.accepts(F_VERSION_1 | FROM_HOST));
    for feature in [F_GUEST_CSUM, F_GUEST_TSO4, F_GUEST_TSO6] {
        assert!(!net.accepts(ALL & !feature));
    }
}

#[test]
fn the_configuration_is_the_address() {
    let spec = Net::spec(ADDRESS, true);
    assert_eq!(spec.config, [2, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0xdc, 0x05]);
    assert_ne!(spec.features & F_MTU, 0);
    assert_ne!(spec.features & F_HOST_USO, 0);
    let plain = Net::spec(Address { mtu: None, ..ADDRESS }, false);
    assert_eq!(plain.features & (F_MTU | F_HOST_USO), 0);
}

proptest! {
    /// Whatever is said: what is passed on fits into the frame, and was negotiated.
    #[test]
    fn an_admitted_header_is_true(
        mut said in any::<[u8; HEAD_SIZE]>(),
        kind in prop::sample::select(vec![0_u8, 1, 4, 5, 0x81]),
        small in any::<bool>(),
        len in 0_u64..0x1_1000,
        features in any::<u64>(),
        mtu in prop::option::of(68_u16..),
    ) {
        said[1] = kind;
        if small {
            (3..HEAD_SIZE).step_by(2).for_each(|high| said[high] = 0);
        }
        if let Ok(head) = Head::admit(said, len, features, mtu).map(Head::encode) {
            let word = |at: usize| u64::from(u16::from_le_bytes([head[at], head[at + 1]]));
            prop_assert!((14..=FRAME_MAX).contains(&len));
            prop_assert!(head[0] <= 1 && head[10..] == [0, 0]);
            prop_assert!(head[0] == 1 || head == PLAIN);
            prop_assert!(head[0] == 0 || (features & F_CSUM != 0 && word(6) + word(8) + 2 <= len));
            let needed = [(1, F_HOST_TSO4), (4, F_HOST_TSO6), (5, F_HOST_USO)];
            let feature = needed.iter().find(|(kind, _)| *kind == head[1]).map_or(0, |(_, feature)| *feature);
            prop_assert_eq!(features & feature, feature);
            prop_assert!(head[1] == 0 || (0 < word(4) && word(2) <= len));
        }
    }

    #[test]
    fn no_chain_panics(
        buffers in prop::collection::vec((0_u64..0x30_0000, 0_u32..0x2000, 0_u16..4), 1..usize::from(SIZE)),
        frame in prop::collection::vec(any::<u8>(), 0..4000),
        receive in any::<bool>(),
    ) {
        let mut bench = bench();
        let chain: Vec<_> = buffers.iter().map(|(at, len, flags)| (*at, *len, flags & WRITE)).collect();
        bench.wire.send(&[&[0; HEAD_SIZE], &frame[..]].concat()).unwrap();
        if receive { bench.rx.post_chain(0, &chain) } else { bench.tx.post_chain(0, &chain) }
        let _ = bench.wake(Wake::Queue(u16::from(!receive)));
        let _ = bench.wake(Wake::Socket { socket: 0, hung_up: false });
    }
}

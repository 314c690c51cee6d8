//! The socket device against real sockets, with honest and hostile packets.

use std::io::{Read as _, Write as _};
use std::sync::Arc;

use proptest::prelude::*;
use virtio_queue::Queue;

use super::connection::HELD_MAX;
use super::packet::{NEITHER, NO_RECEIVE, NO_SEND};
use super::*;
use crate::device::virtio::queue::tests::{DATA, Driver, SIZE, WRITE, ram};
use crate::events::Events;
use crate::memory::GuestRam;

const PORT: u32 = 1024;
const GUEST_PORT: u32 = 777;
const RX_BUFFERS: u64 = DATA;
const RX_SIZE: u32 = 4096;
const TX_BUFFER: u64 = DATA + 0x8_0000;

/// A driver with all its buffers posted, and the host's end of port 1024.
struct Bench {
    ram: Arc<GuestRam>,
    rx: Driver,
    tx: Driver,
    queues: [Queue; 3],
    vsock: Vsock,
    host: UnixStream,
    seen: usize,
}

fn bench() -> Bench {
    let ram = ram();
    let rx = Driver::new(&ram, 0x1_0000);
    let tx = Driver::new(&ram, 0x2_0000);
    let event = Driver::new(&ram, 0x3_0000);
    let (guest_end, host) = UnixStream::pair().unwrap();
    guest_end.set_nonblocking(true).unwrap();
    host.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
    let vsock = Vsock::new(vec![(PORT, guest_end)], Events::new().unwrap().handle(0));
    let queues = [rx.queue(), tx.queue(), event.queue()];
    let mut bench = Bench { ram, rx, tx, queues, vsock, host, seen: 0 };
    (0..SIZE - 1).for_each(|index| bench.post_rx(index));
    bench
}

fn head(op: u16) -> Head {
    Head {
        src_cid: GUEST_CID,
        dst_cid: HOST_CID,
        src_port: GUEST_PORT,
        dst_port: PORT,
        kind: TYPE_STREAM,
        op,
        buf_alloc: 1 << 20,
        ..Head::default()
    }
}

/// What the guest hears: operation, flags, payload.
type Heard = (u16, u32, Vec<u8>);

impl Bench {
    fn post_rx(&mut self, index: u16) {
        let at = RX_BUFFERS + u64::from(index) * u64::from(RX_SIZE);
        self.rx.post_chain(index, &[(at, RX_SIZE, WRITE)]);
    }

    fn wake(&mut self, why: Wake) -> Result<Drained, Violation> {
        let mut rings = Rings::new(&self.ram, &mut self.queues);
        let mut drained = self.vsock.serve(why, &mut rings)?;
        while drained == Drained::More {
            drained = self.vsock.serve(Wake::Again, &mut rings)?;
        }
        Ok(drained)
    }

    fn say(&mut self, head: Head, payload: &[u8]) -> Vec<Heard> {
        self.tx.write(TX_BUFFER, &head.encode());
        self.tx.write(TX_BUFFER + HEAD_SIZE as u64, payload);
        let len = u32::try_from(HEAD_SIZE + payload.len()).unwrap();
        self.tx.post_chain(0, &[(TX_BUFFER, len, 0)]);
        self.wake(Wake::Queue(1)).unwrap();
        self.hear()
    }

    /// New packets to the guest; their buffers are posted again.
    fn hear(&mut self) -> Vec<Heard> {
        let mut heard = Vec::new();
        // The used ring of the test's driver wraps, its index does not.
        let index = self.rx.bytes(0x1_2002, 2);
        let index = usize::from(u16::from_le_bytes([index[0], index[1]]));
        while self.seen < index {
            let entry = self.rx.bytes(0x1_2004 + (self.seen % usize::from(SIZE)) as u64 * 8, 8);
            let buffer = u16::from(entry[0]);
            let len = usize::from(u16::from_le_bytes([entry[4], entry[5]]));
            let bytes = self.rx.bytes(RX_BUFFERS + u64::from(buffer) * u64::from(RX_SIZE), len);
            let head = Head::decode(bytes[..HEAD_SIZE].try_into().unwrap());
            assert_eq!((head.len as usize, head.dst_cid), (len - HEAD_SIZE, GUEST_CID));
            heard.push((head.op, head.flags, bytes[HEAD_SIZE..].to_vec()));
            self.seen += 1;
            self.post_rx(buffer);
        }
        heard
    }

    fn connect(&mut self) {
        assert_eq!(self.say(head(op::REQUEST), &[]), [control(op::RESPONSE)]);
    }

    fn socket_ready(&mut self, hung_up: bool) -> Vec<Heard> {
        self.wake(Wake::Socket { socket: PORT, hung_up }).unwrap();
        self.hear()
    }

    fn rw(&self, bytes: &[u8]) -> Head {
        Head { len: u32::try_from(bytes.len()).unwrap(), ..head(op::RW) }
    }

    fn received(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.host.read_exact(&mut bytes).unwrap();
        bytes
    }
}

fn control(op: u16) -> Heard {
    (op, 0, vec![])
}

#[test]
fn bytes_go_both_ways() {
    let mut bench = bench();
    bench.connect();
    assert_eq!(bench.say(bench.rw(b"ping"), b"ping"), []);
    assert_eq!(bench.received(4), b"ping");
    bench.host.write_all(b"pong").unwrap();
    assert_eq!(bench.socket_ready(false), [(op::RW, 0, b"pong".to_vec())]);
    // Longer than one buffer.
    bench.host.write_all(&[7; 6000]).unwrap();
    let heard = bench.socket_ready(false);
    assert_eq!(heard.iter().map(|h| h.2.len()).collect::<Vec<_>>(), [4052, 1948]);
}

#[test]
fn packets_are_counted() {
    let mut bench = bench();
    bench.connect();
    let stranger = Head { src_port: GUEST_PORT + 1, ..head(op::RW) };
    assert_eq!(bench.say(stranger, &[]).len(), 1);
    assert_eq!(bench.vsock.counters, Counters { heard: 2, told: 2, refused: 1 });
}

#[test]
fn what_the_host_wrote_before_the_guest_came_is_delivered() {
    let mut bench = bench();
    bench.host.write_all(b"early").unwrap();
    let heard = bench.say(head(op::REQUEST), &[]);
    assert_eq!(heard, [control(op::RESPONSE), (op::RW, 0, b"early".to_vec())]);
}

#[test]
fn a_port_is_good_for_one_connection() {
    let mut bench = bench();
    bench.connect();
    let second = Head { src_port: 778, ..head(op::REQUEST) };
    assert_eq!(bench.say(second, &[]), [control(op::RST)]);
    // The first does not notice.
    assert_eq!(bench.say(bench.rw(b"x"), b"x"), []);
    assert_eq!(bench.received(1), b"x");
    assert_eq!(bench.say(Head { flags: NEITHER, ..head(op::SHUTDOWN) }, &[]), [control(op::RST)]);
    assert_eq!(bench.say(head(op::REQUEST), &[]), [control(op::RST)]);
}

#[test]
fn forged_packets_get_a_reset_or_silence() {
    let mut bench = bench();
    let reset = vec![control(op::RST)];
    for (forged, want) in [
        (Head { dst_port: 1025, ..head(op::REQUEST) }, reset.clone()),
        (Head { dst_cid: 4, ..head(op::REQUEST) }, reset.clone()),
        (Head { kind: 2, ..head(op::REQUEST) }, reset.clone()),
        (head(op::RW), reset.clone()),
        (head(op::SHUTDOWN), reset.clone()),
        (head(op::RESPONSE), reset.clone()),
        (head(0), reset.clone()),
        (head(u16::MAX), reset.clone()),
        (Head { len: 1, ..head(op::REQUEST) }, reset.clone()),
        (Head { len: u32::MAX, ..head(op::REQUEST) }, reset),
        (Head { src_cid: 2, ..head(op::REQUEST) }, vec![]),
        (Head { src_cid: u64::MAX, ..head(op::REQUEST) }, vec![]),
        (head(op::RST), vec![]),
        (Head { dst_port: 9, ..head(op::RST) }, vec![]),
    ] {
        assert_eq!(bench.say(forged, &[]), want, "{forged:?}");
    }
    // None of them has used the port up.
    bench.connect();
}

#[test]
fn a_packet_without_a_whole_head_is_dropped() {
    let mut bench = bench();
    bench.tx.post_chain(0, &[(TX_BUFFER, 43, 0)]);
    bench.wake(Wake::Queue(1)).unwrap();
    assert_eq!(bench.hear(), []);
    bench.connect();
}

#[test]
fn more_than_the_credit_resets_the_connection() {
    let mut bench = bench();
    bench.connect();
    let piece = vec![5; 0x8000];
    // The host does not read: its socket takes some, we hold HELD_MAX, and no more.
    let mut sent = 0;
    loop {
        let heard = bench.say(bench.rw(&piece), &piece);
        if heard.contains(&control(op::RST)) {
            break;
        }
        sent += piece.len();
        assert!(sent < 64 << 20, "the device takes everything");
    }
    assert!(HELD_MAX as usize <= sent);
    assert_eq!(bench.say(bench.rw(b"x"), b"x"), [control(op::RST)]);
}

#[test]
fn held_bytes_follow_when_the_reader_wakes() {
    let mut bench = bench();
    bench.connect();
    let mut sent = Vec::new();
    let mut next = 0_u8;
    // Until the socket is full and at least one piece is held.
    while bench.vsock.connections().all(|c| !c.interest(true).writable) {
        let piece = vec![next; 0x4000];
        next = next.wrapping_add(1);
        bench.say(bench.rw(&piece), &piece);
        sent.extend(piece);
    }
    let mut got = vec![0; sent.len()];
    let mut at = 0;
    while at < got.len() {
        at += bench.host.read(&mut got[at..]).unwrap();
        bench.socket_ready(false);
    }
    assert!(got == sent);
    assert_eq!(bench.say(head(op::CREDIT_REQUEST), &[]), [control(op::CREDIT_UPDATE)]);
}

#[test]
fn the_guest_gets_no_more_than_it_has_room_for() {
    let mut bench = bench();
    let request = Head { buf_alloc: 10, ..head(op::REQUEST) };
    assert_eq!(bench.say(request, &[]), [control(op::RESPONSE)]);
    bench.host.write_all(b"0123456789abc").unwrap();
    assert_eq!(bench.socket_ready(false), [(op::RW, 0, b"0123456789".to_vec())]);
    assert_eq!(bench.socket_ready(false), []);
    // It claims to have taken more than it got: no credit at all.
    let lie = Head { buf_alloc: 10, fwd_cnt: 11, ..head(op::CREDIT_UPDATE) };
    assert_eq!(bench.say(lie, &[]), []);
    let update = Head { buf_alloc: 10, fwd_cnt: 10, ..head(op::CREDIT_UPDATE) };
    assert_eq!(bench.say(update, &[]), [(op::RW, 0, b"abc".to_vec())]);
}

#[test]
fn each_direction_closes_by_itself() {
    let mut bench = bench();
    bench.connect();
    bench.say(bench.rw(b"last"), b"last");
    assert_eq!(bench.say(Head { flags: NO_SEND, ..head(op::SHUTDOWN) }, &[]), []);
    let mut got = Vec::new();
    bench.host.read_to_end(&mut got).unwrap();
    assert_eq!(got, b"last");
    bench.host.write_all(b"answer").unwrap();
    assert_eq!(bench.socket_ready(false), [(op::RW, 0, b"answer".to_vec())]);
    // Sending after having said that it will not.
    assert_eq!(bench.say(bench.rw(b"x"), b"x"), [control(op::RST)]);
}

#[test]
fn the_guest_hears_when_the_host_closes() {
    let mut bench = bench();
    bench.connect();
    bench.host.write_all(b"bye").unwrap();
    bench.host.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(bench.socket_ready(false), [(op::RW, 0, b"bye".to_vec()), (op::SHUTDOWN, NO_SEND, vec![])]);
    // The other direction still works.
    bench.say(bench.rw(b"ok"), b"ok");
    assert_eq!(bench.received(2), b"ok");
}

#[test]
fn a_host_that_has_gone_ends_both_directions() {
    let mut bench = bench();
    bench.connect();
    bench.host = UnixStream::pair().unwrap().0;
    assert_eq!(bench.socket_ready(true).last(), Some(&(op::SHUTDOWN, NEITHER, vec![])));
    // What is sent to nobody costs no credit for ever.
    let piece = vec![5; 0x8000];
    (0..16).for_each(|_| assert!(!bench.say(bench.rw(&piece), &piece).contains(&control(op::RST))));
    assert_eq!(bench.say(head(op::RST), &[]), []);
}

#[test]
fn a_guest_that_stops_receiving_is_sent_nothing() {
    let mut bench = bench();
    bench.connect();
    bench.say(Head { flags: NO_RECEIVE, ..head(op::SHUTDOWN) }, &[]);
    bench.host.write_all(b"x").unwrap();
    assert_eq!(bench.socket_ready(false), []);
}

#[test]
fn a_flood_of_strangers_waits_for_buffers() {
    let mut bench = bench();
    let stranger = Head { dst_port: 1, ..head(op::REQUEST) };
    // The guest sends, but gives back no receive buffer.
    for _ in 0..4 * REFUSALS_MAX {
        bench.tx.write(TX_BUFFER, &stranger.encode());
        bench.tx.post_chain(0, &[(TX_BUFFER, HEAD_SIZE as u32, 0)]);
        let _ = bench.wake(Wake::Queue(1));
        assert!(bench.vsock.refusals.len() <= REFUSALS_MAX);
        if bench.vsock.is_full() {
            break;
        }
    }
    assert!(bench.vsock.is_full());
    while bench.vsock.is_full() || !bench.vsock.refusals.is_empty() {
        let heard = bench.hear();
        assert!(heard.iter().all(|h| *h == control(op::RST)));
        bench.wake(Wake::Queue(0)).unwrap();
    }
    bench.hear();
    bench.connect();
}

#[test]
fn the_last_words_reach_the_socket() {
    let mut bench = bench();
    bench.connect();
    let mut host = bench.host.try_clone().unwrap();
    // Posted, but the machine ends before the guest rings.
    bench.tx.write(TX_BUFFER, &bench.rw(b"end").encode());
    bench.tx.write(TX_BUFFER + HEAD_SIZE as u64, b"end");
    bench.tx.post_chain(0, &[(TX_BUFFER, HEAD_SIZE as u32 + 3, 0)]);
    bench.wake(Wake::Last).unwrap();
    bench.vsock.end();
    let mut got = Vec::new();
    host.read_to_end(&mut got).unwrap();
    assert_eq!(got, b"end");
}

#[test]
fn a_receive_buffer_without_room_costs_the_device() {
    let mut bench = bench();
    bench.rx = Driver::new(&bench.ram, 0x1_0000);
    bench.queues[0] = bench.rx.queue();
    bench.rx.post_chain(0, &[(RX_BUFFERS, 44, WRITE)]);
    bench.tx.write(TX_BUFFER, &head(op::REQUEST).encode());
    bench.tx.post_chain(0, &[(TX_BUFFER, HEAD_SIZE as u32, 0)]);
    assert!(bench.wake(Wake::Queue(1)).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_packet_panics(packets in prop::collection::vec(
        (0_u16..9, 0_u32..4, any::<u32>(), any::<u32>(), 0_u32..100, 0_usize..100, any::<bool>(), 0_u8..4),
        1..40,
    )) {
        let mut bench = bench();
        for (op, flags, buf_alloc, fwd_cnt, len, payload, known, event) in packets {
            let src_port = if known { GUEST_PORT } else { 5 };
            let packet = Head { flags, buf_alloc, fwd_cnt, len, src_port, ..head(op) };
            bench.say(packet, &vec![1; payload]);
            match event {
                0 => drop(bench.host.write(b"abc")),
                1 => drop(bench.socket_ready(false)),
                2 => drop(bench.socket_ready(true)),
                _ => (),
            }
        }
        bench.wake(Wake::Last).unwrap();
    }
}

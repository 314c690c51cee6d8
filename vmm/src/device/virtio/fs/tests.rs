//! Against a server that does as it should, and against one that a guest has taken over.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use proptest::prelude::*;
use virtio_queue::QueueT;

use super::*;
use crate::device::virtio::queue::tests::Driver;
use crate::device::virtio::{F_COMMON, F_VERSION_1};
use crate::events::Events;
use crate::layout::Region;
use crate::memory::GuestRam;

/// Numbers of requests (`VHOST_USER_…` of QEMU's `docs/interop/vhost-user.rst`).
const GET_FEATURES: u32 = 1;
const GET_VRING_BASE: u32 = 11;
const GET_PROTOCOL_FEATURES: u32 = 15;
const PROTOCOL_FEATURES: u64 = 1 << 30;
const REPLY_ACK: u64 = 1 << 3;

fn ram() -> Arc<GuestRam> {
    Arc::new(GuestRam::shared(&[Region { first: 0, size: 32 << 20 }]).unwrap())
}

/// Answers as a server does; what it was asked is told.
fn serve(mut socket: UnixStream, features: u64) -> Receiver<u32> {
    let (sender, asked) = channel();
    thread::spawn(move || {
        let mut head = [0; 12];
        while socket.read_exact(&mut head).is_ok() {
            let word = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().unwrap());
            let (request, flags, size) = (word(0), word(4), word(8));
            let mut body = vec![0; size as usize];
            socket.read_exact(&mut body).unwrap();
            sender.send(request).unwrap();
            let answer = match request {
                GET_FEATURES => features.to_le_bytes().to_vec(),
                GET_PROTOCOL_FEATURES => REPLY_ACK.to_le_bytes().to_vec(),
                GET_VRING_BASE => body,
                _ if flags & 8 != 0 => 0_u64.to_le_bytes().to_vec(),
                _ => continue,
            };
            let len = u32::try_from(answer.len()).unwrap();
            let reply = [request.to_le_bytes(), 5_u32.to_le_bytes(), len.to_le_bytes()].concat();
            socket.write_all(&[reply, answer].concat()).unwrap();
        }
    });
    asked
}

fn device(ram: &Arc<GuestRam>) -> (Fs, Arc<Events>, Receiver<u32>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let asked = serve(theirs, F_COMMON | PROTOCOL_FEATURES);
    let server = Server::greet(ours, "tag", ram).unwrap();
    let events = Events::new().unwrap();
    (Fs::new(server, "tag".into(), events.handle(0)), events, asked)
}

#[test]
fn the_driver_finds_the_tag_and_one_queue_of_requests() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let _asked = serve(theirs, F_VERSION_1);
    let spec = Server::greet(ours, "tag", &ram()).unwrap().spec("tag");
    assert_eq!((spec.id, spec.features, spec.queue_sizes.len()), (26, F_VERSION_1, 2));
    assert_eq!(spec.config[..4], *b"tag\0");
    assert_eq!(spec.config[36..], 1_u32.to_le_bytes());
}

#[test]
fn queues_are_handed_over_and_taken_back() {
    let ram = ram();
    let (mut fs, events, asked) = device(&ram);
    let _greeting: Vec<u32> = asked.try_iter().collect();
    let driver = Driver::new(&ram, 0x1000);
    let mut queues = [driver.queue(), driver.queue()];
    queues[0].set_ready(false);
    fs.activate(F_COMMON, &queues);
    // SET_FEATURES; of the queue that is there NUM, ADDR, BASE, CALL, KICK, ENABLE.
    assert_eq!(asked.try_iter().collect::<Vec<_>>(), [2, 8, 9, 10, 13, 12, 18]);
    let mut serve = |fs: &mut Fs, why| {
        let mut rings = Rings::new(&ram, &mut queues);
        fs.serve(why, &mut rings).unwrap();
        rings.wants_interrupt().unwrap()
    };
    assert!(!serve(&mut fs, Wake::Queue(1)));
    assert_eq!(fs.server.kicks()[1].read().unwrap(), 1);
    assert!(fs.server.kicks()[0].read().is_err(), "nobody rang there");
    fs.server.calls()[1].write(3).unwrap();
    assert!(serve(&mut fs, Wake::Socket { socket: 1, hung_up: false }));
    assert!(fs.server.calls()[1].read().is_err(), "heard once");
    fs.reset();
    assert_eq!(asked.try_iter().collect::<Vec<_>>(), [GET_VRING_BASE, GET_VRING_BASE]);
    fs.reset();
    assert_eq!(asked.try_iter().count(), 0, "there is nothing to take back");
    assert_eq!(events.fault(), None);
}

#[test]
fn the_servers_end_is_the_machines() {
    let ram = ram();
    let (mut fs, events, _asked) = device(&ram);
    let mut queues = [];
    fs.serve(Wake::Socket { socket: SERVER, hung_up: true }, &mut Rings::new(&ram, &mut queues)).unwrap();
    assert!(events.fault().unwrap().contains("file server of tag"));
}

#[test]
fn a_server_of_another_kind_is_refused() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let _asked = serve(theirs, PROTOCOL_FEATURES);
    let why = Server::greet(ours, "tag", &ram()).err().unwrap();
    assert!(why.to_string().contains("virtio 1"), "{why}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn nonsense_of_a_server_is_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(&bytes).unwrap();
        theirs.shutdown(std::net::Shutdown::Write).unwrap();
        prop_assert!(Server::greet(ours, "tag", &ram()).is_err());
    }
}

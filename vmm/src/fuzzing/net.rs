//! The network device: its queues over any RAM, frames from both sides, and headers one by one.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;

use super::input::Input;
use super::queues::Driver;
use crate::device::virtio::net::{Address, Backend, Gates, HEAD_SIZE, Net};
use crate::device::virtio::queue::Rings;
use crate::device::virtio::{Device, Wake};
use crate::events::Events;

const MTU: u16 = 1500;
const ADDRESS: Address = Address { mac: [2, 0, 0, 0, 0, 1], mtu: Some(MTU) };
/// Longer than any frame.
const PACKET_MAX: usize = 0x1_2000;
/// Where an honest frame lies.
const FRAME: u64 = 0xe000;

/// Queues and RAM as a guest likes them, with frames of all lengths from the wire in between.
pub fn net(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (tap, wire) = UnixDatagram::pair().unwrap();
    [&tap, &wire].into_iter().for_each(|end| end.set_nonblocking(true).unwrap());
    let backend = Backend::new(OwnedFd::from(tap).into());
    let mut net = Net::new(backend, ADDRESS, Gates::default(), Events::new().unwrap().handle(0));
    let mut driver = Driver::new(&[16, 16]);
    let features = input.u64();
    net.activate(features, &[]);
    while let Some(action) = input.next() {
        match action {
            0..0xa0 => driver.act(action, &mut input),
            0xa0..0xc0 => send(&mut driver, &mut input),
            0xc0..0xd0 => arrive(&wire, &mut input),
            0xd0..0xd8 => wake(&mut net, &mut driver, Wake::Socket { socket: 0, hung_up: action & 1 == 1 }),
            0xd8..0xe0 => {
                net.reset();
                net.activate(features, &[]);
            }
            0xe0..0xe8 => wake(&mut net, &mut driver, Wake::Again),
            _ => wake(&mut net, &mut driver, Wake::Queue(u16::from(action & 1))),
        }
        check_sent(&wire, features);
    }
    wake(&mut net, &mut driver, Wake::Last);
    check_sent(&wire, features);
}

fn wake(net: &mut Net, driver: &mut Driver, why: Wake) {
    let ram = Arc::clone(&driver.ram);
    let mut rings = Rings::new(&ram, &mut driver.queues);
    if net.serve(why, &mut rings).is_err() {
        net.reset();
    }
    let _ = rings.wants_interrupt(); // Refusing is right; panicking is not.
}

/// A frame whose header is nearly right, in two pieces.
fn send(driver: &mut Driver, input: &mut Input<'_>) {
    let kind = [0, 1, 4, 5, 0x81, input.byte()][usize::from(input.byte() % 6)];
    let flags = if input.flag() { 1 } else { input.byte() };
    driver.put(FRAME, u16::from(flags) | u16::from(kind) << 8);
    for at in [2, 4, 6, 8, 10] {
        let word = if input.flag() { u16::from(input.byte()) } else { input.u16() };
        driver.put(FRAME + at, word);
    }
    let (cut, len) = (u32::from(input.byte() % 20), u32::from(input.u16() % 0x3000));
    driver.descriptor(0x4000, 0, (FRAME, cut, 1, 1));
    driver.descriptor(0x4000, 1, (FRAME + u64::from(cut), len, 0, 0));
    driver.post(1, 0);
}

/// A frame from the wire. One that does not fit into the socket is lost.
fn arrive(wire: &UnixDatagram, input: &mut Input<'_>) {
    let len = usize::from(input.u16() % 0x3000);
    let _ = wire.send(&vec![input.byte(); HEAD_SIZE + len]); // As above.
}

/// What reaches the host's kernel is true, whatever was said.
fn check_sent(wire: &UnixDatagram, features: u64) {
    let mut packet = vec![0; PACKET_MAX];
    while let Ok(len) = wire.recv(&mut packet) {
        let word = |at: usize| usize::from(u16::from_le_bytes([packet[at], packet[at + 1]]));
        let frame = len.checked_sub(HEAD_SIZE).expect("every frame has its header");
        let (flags, kind) = (packet[0], packet[1]);
        assert!((14..=0x1_0012).contains(&frame), "a frame of {frame} bytes");
        assert!(flags & !1 == 0 && word(10) == 0, "only a device says so");
        assert!(flags == 1 || word(6) + word(8) == 0, "a checksum that nobody asked for");
        assert!(flags == 0 || (features & 1 == 1 && word(6) + word(8) + 2 <= frame), "a checksum outside");
        let feature = match kind {
            0 => {
                assert!(frame <= usize::from(MTU) + 22 && word(2) + word(4) == 0, "longer than the MTU");
                continue;
            }
            1 => 11,
            4 => 12,
            5 => 56,
            _ => panic!("a frame of kind {kind}"),
        };
        assert_eq!(features >> feature & 1, 1, "splitting that was not negotiated");
        assert!(flags == 1 && 0 < word(4) && word(2) <= frame && word(6) + 8 <= frame, "{:?}", &packet[..12]);
    }
}

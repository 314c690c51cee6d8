//! Registers in any order, of any width, with resets and wake-ups in between.

use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use vm_memory::{Bytes, GuestAddress};

use super::input::Input;
use super::{RAM_SIZE, file, line, ram};
use crate::bus::Window;
use crate::device::ioapic::Pins;
use crate::device::limit::Limits;
use crate::device::serial::Serial;
use crate::device::virtio::balloon::Balloon;
use crate::device::virtio::block::{Backend, Block};
use crate::device::virtio::mmio::{Transport, Wiring};
use crate::device::virtio::net::{self, Address, Gates, Net};
use crate::device::virtio::pmem::Pmem;
use crate::device::virtio::rng::Rng;
use crate::device::virtio::vsock::Vsock;
use crate::device::virtio::{Device, Spec, Wake};
use crate::events::{Events, Handle, Woken};
use crate::journal::Journal;
use crate::layout::{Region, VIRTIO_SIZE};

const STATUS: u64 = 0x70;
const NEEDS_RESET: u32 = 64;
const LIVE: u32 = 15;

/// Writes that set a queue up.
const QUEUE: [(u64, u32); 6] =
    [(0x30, 0), (0x38, 8), (0x80, 0x1000), (0x90, 0x2000), (0xa0, 0x3000), (0x44, 1)];

/// The register file of each kind of device; the first byte says which.
pub fn mmio(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let ram = ram();
    let events = Events::new().unwrap().handle(0);
    let (host, guest) = UnixStream::pair().unwrap();
    guest.set_nonblocking(true).unwrap();
    let (spec, device) = device(input.byte(), guest, &events);
    let wiring = Wiring { ram: Arc::clone(&ram), irq: line(), events, journal: Arc::new(Journal::new(None)) };
    let config = spec.config.clone();
    // A network device has features that it cannot do without.
    let negotiate = negotiate(spec.features as u32 & 0x182);
    let mut transport = Transport::new(spec, device, wiring);
    while let Some(action) = input.next() {
        match action % 16 {
            0..4 => store(&mut transport, (input.byte() & 0xfc).into(), input.u32()),
            4 => store(&mut transport, (input.byte() & 0xfc).into(), input.byte().into()),
            5 => {
                let at = u64::from(input.u16()) % VIRTIO_SIZE;
                let len = usize::from(input.byte() % 9);
                transport.store(at, input.bytes(len));
            }
            6 => {
                let at = u64::from(input.u16()) % VIRTIO_SIZE;
                transport.load(at, &mut [0; 8][..usize::from(input.byte() % 9)]);
            }
            7 => write_all(&mut transport, &negotiate),
            8 => write_all(&mut transport, &QUEUE),
            9 => store(&mut transport, STATUS, LIVE),
            10 => transport.wake(Wake::Again),
            11 => transport.wake(Wake::Socket { socket: input.byte().into(), hung_up: input.flag() }),
            12 => store(&mut transport, 0x50, (input.byte() % 4).into()),
            _ => {
                let at = u64::from(input.u16()) % RAM_SIZE;
                let len = usize::from(input.byte());
                // What does not fit is not written.
                let _ = ram.memory().write(input.bytes(len), GuestAddress(at));
            }
        }
        let mut seen = vec![0; config.len()];
        transport.load(0x100, &mut seen);
        assert_eq!(seen, config, "the configuration never changes");
    }
    // Whatever came before, an honest driver gets the device back. Its RAM is clean.
    ram.memory().write_slice(&vec![0; 0x8000], GuestAddress(0)).unwrap();
    write_all(&mut transport, &negotiate);
    write_all(&mut transport, &QUEUE);
    store(&mut transport, STATUS, LIVE);
    let mut status = [0; 4];
    transport.load(STATUS, &mut status);
    assert_eq!(u32::from_le_bytes(status) & !NEEDS_RESET, LIVE, "a reset brings the device back");
    transport.wake(Wake::Last);
    drop(host);
}

fn device(kind: u8, socket: UnixStream, events: &Handle) -> (Spec, Box<dyn Device>) {
    match kind % 7 {
        0 | 1 => {
            let block = Block::new(Backend::new(file(&[7; 4096]), 8, kind % 7 == 1, 0), Limits::default());
            (block.spec(), Box::new(block))
        }
        2 => (Rng::spec(), Box::new(Rng::new(File::open("/dev/zero").unwrap()))),
        3 => (Pmem::spec(Region { first: 4 << 30, size: 2 << 20 }), Box::new(Pmem)),
        6 => (Balloon::spec(1), Box::new(Balloon::default())),
        4 => (Vsock::spec(), Box::new(Vsock::new(vec![(1024, socket)], events.clone()))),
        _ => {
            let address = Address { mac: [2, 0, 0, 0, 0, 1], mtu: Some(1500) };
            // A stream instead of a tap: frames are cut anywhere.
            let net = Net::new(
                net::Backend::new(OwnedFd::from(socket).into()),
                address,
                Gates::default(),
                events.clone(),
            );
            (Net::spec(address, true), Box::new(net))
        }
    }
}

/// Writes after which a driver has negotiated, taking these features of the lower half.
fn negotiate(taken: u32) -> [(u64, u32); 8] {
    [(STATUS, 0), (STATUS, 1), (STATUS, 3), (0x24, 0), (0x20, taken), (0x24, 1), (0x20, 1), (STATUS, 11)]
}

fn store(transport: &mut Transport, at: u64, value: u32) {
    transport.store(at, &value.to_le_bytes());
}

fn write_all(transport: &mut Transport, writes: &[(u64, u32)]) {
    writes.iter().for_each(|(at, value)| store(transport, *at, *value));
}

/// The IOAPIC; the first byte says how many pins are wired.
pub fn ioapic(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let count = input.byte() % 34;
    let mut pins = Pins::new(count, 1);
    while let Some(action) = input.next() {
        let sent = match action % 4 {
            0 => pins.store(0, input.u32()),
            1 => pins.store(0x10, input.u32()),
            2 => pins.store(u64::from(input.u16()), input.u32()),
            _ => {
                let pin = input.byte();
                let sent = pins.raise(pin);
                assert!(sent.is_none() || pin < count, "pin {pin} of {count} has spoken");
                sent
            }
        };
        if let Some(msi) = sent {
            assert_eq!(msi.address >> 20, 0xfee, "every message goes to a local APIC: {msi:?}");
            assert!(msi.data < 0x800, "vector and delivery mode: {msi:?}");
        }
        pins.load(0x10);
        pins.load(u64::from(action));
    }
}

/// The serial port: all registers, strings of bytes, every width.
pub fn serial(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let out = OpenOptions::new().write(true).open("/dev/null").unwrap();
    let mut serial = Serial::new(out, line());
    while let Some(action) = input.next() {
        let at = u64::from(action & 7);
        let width = usize::from(input.byte() % 9);
        if action & 8 == 0 {
            let mut got = [0xaa; 8];
            serial.load(at, &mut got[..width]);
        } else {
            serial.store(at, input.bytes(width));
        }
    }
}

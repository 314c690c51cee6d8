//! The socket device: its queues over any RAM, and its packets one by one.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use super::input::Input;
use super::queues::Driver;
use crate::device::virtio::queue::{Drained, Rings};
use crate::device::virtio::vsock::Vsock;
use crate::device::virtio::{Device, Wake};
use crate::events::Events;
use crate::machine::handle_signals;

const PORT: u32 = 1024;
/// Rounds for one wake-up; each is bounded, and so is what there is to do.
const ROUNDS_MAX: usize = 64;

struct Bench {
    driver: Driver,
    vsock: Vsock,
    host: Option<UnixStream>,
}

impl Bench {
    fn new() -> Self {
        handle_signals().unwrap();
        let (guest, host) = UnixStream::pair().unwrap();
        guest.set_nonblocking(true).unwrap();
        host.set_nonblocking(true).unwrap();
        let vsock = Vsock::new(vec![(PORT, guest)], Events::new().unwrap().handle(0));
        Self { driver: Driver::new(&[16, 16, 8]), vsock, host: Some(host) }
    }

    /// Serves until the device has no more to do; a violation resets it.
    fn wake(&mut self, why: Wake) {
        let ram = Arc::clone(&self.driver.ram);
        let mut rings = Rings::new(&ram, &mut self.driver.queues);
        let mut why = why;
        for _ in 0..ROUNDS_MAX {
            match self.vsock.serve(why, &mut rings) {
                Ok(Drained::Empty) => break,
                Ok(_) => why = Wake::Again,
                Err(_) => {
                    self.vsock.reset();
                    break;
                }
            }
        }
        let _ = rings.wants_interrupt(); // Refusing is right; panicking is not.
        self.vsock.check_limits();
    }

    /// What the program at the other end of the socket may do.
    fn host(&mut self, action: u8) {
        let Some(mut host) = self.host.as_ref() else { return };
        // Each may fail: the guest may have gone.
        match action % 5 {
            0 => drop(host.write(&[action; 300])),
            1 => drop(host.read(&mut [0; 4096])),
            2 => drop(host.shutdown(Shutdown::Write)),
            3 => drop(host.shutdown(Shutdown::Read)),
            _ => self.host = None,
        }
    }
}

/// Queues and RAM as a guest likes them.
pub fn vsock_queues(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut bench = Bench::new();
    while let Some(action) = input.next() {
        match action {
            0..0xd0 => bench.driver.act(action, &mut input),
            0xd0..0xd8 => bench.host(action),
            0xd8..0xe0 => bench.wake(Wake::Socket { socket: PORT, hung_up: action & 1 == 1 }),
            _ => bench.wake(Wake::Queue(u16::from(action % 3))),
        }
    }
    bench.vsock.end();
}

/// Packets over honest queues: ops, ports, credit and lengths as the bytes say.
pub fn vsock_packets(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut bench = Bench::new();
    let mut slot = 0;
    while let Some(action) = input.next() {
        match action {
            0..0xa0 => {
                say(&mut bench.driver, &mut slot, action, &mut input);
                bench.wake(Wake::Queue(1));
            }
            0xa0..0xc0 => {
                let index = u16::from(action % 16);
                bench.driver.descriptor(0x1000, index, (0xb000 + u64::from(index) * 0x200, 0x200, 2, 0));
                bench.driver.post(0, index);
                bench.wake(Wake::Queue(0));
            }
            0xc0..0xe0 => bench.host(action),
            _ => bench.wake(Wake::Socket { socket: PORT, hung_up: action & 1 == 1 }),
        }
    }
    bench.wake(Wake::Last);
    bench.vsock.end();
}

/// One packet; the upper bits of `action` forge fields.
fn say(driver: &mut Driver, slot: &mut u16, action: u8, input: &mut Input<'_>) {
    let payload = input.byte() % 64;
    let forged = |bit: u8, honest: u64| if action >> 5 == bit { honest + 1 } else { honest };
    let len = if input.byte().is_multiple_of(8) { input.u32() } else { payload.into() };
    let buf_alloc = if input.flag() { 1 << 20 } else { input.u32() };
    let at = 0xe000 + u64::from(*slot % 16) * 0x80;
    driver.put(at, forged(1, 3));
    driver.put(at + 8, forged(2, 2));
    driver.put(at + 16, 777_u32);
    driver.put(at + 20, forged(3, PORT.into()) as u32);
    driver.put(at + 24, len);
    driver.put(at + 28, forged(4, 1) as u16);
    driver.put(at + 30, u16::from(action % 9));
    driver.put(at + 32, u32::from(input.byte() % 4));
    driver.put(at + 36, buf_alloc);
    driver.put(at + 40, input.u32());
    driver.put_bytes(at + 44, input.bytes(payload.into()));
    driver.descriptor(0x4000, *slot % 16, (at, 44 + u32::from(payload), 0, 0));
    driver.post(1, *slot % 16);
    *slot = slot.wrapping_add(1);
}

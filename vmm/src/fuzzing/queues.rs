//! Queues over RAM that a guest fills as it likes, and the devices that have no other state.

use std::fs::File;
use std::sync::Arc;

use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};

use super::input::Input;
use super::ram;
use crate::device::virtio::balloon::Balloon;
use crate::device::virtio::pmem::Pmem;
use crate::device::virtio::queue::{Drained, Rings};
use crate::device::virtio::rng::Rng;
use crate::device::virtio::{Device, Wake};
use crate::memory::GuestRam;

/// Rings of the `index`-th queue: a page each for descriptors, available and used.
const fn rings_at(index: u64) -> u64 {
    0x1000 + index * 0x3000
}

/// A hostile driver: writes anything anywhere, and makes a ring look almost right so that the search gets
/// further than its first check.
pub(super) struct Driver {
    pub ram: Arc<GuestRam>,
    pub queues: Vec<Queue>,
    posted: Vec<u16>,
}

impl Driver {
    pub(super) fn new(sizes: &[u16]) -> Self {
        let ram = ram();
        let queues = (0..).zip(sizes).map(|(index, size)| {
            let mut queue = Queue::new(*size).unwrap();
            let base = u32::try_from(rings_at(index)).unwrap();
            queue.set_desc_table_address(Some(base), Some(0));
            queue.set_avail_ring_address(Some(base + 0x1000), Some(0));
            queue.set_used_ring_address(Some(base + 0x2000), Some(0));
            queue.set_ready(true);
            queue
        });
        Self { queues: queues.collect(), posted: vec![0; sizes.len()], ram }
    }

    pub(super) fn put<T: vm_memory::ByteValued>(&self, at: u64, value: T) {
        // Where there is no RAM nothing is written, as for a guest.
        let _ = self.ram.memory().write_obj(value, GuestAddress(at));
    }

    pub(super) fn put_bytes(&self, at: u64, bytes: &[u8]) {
        let _ = self.ram.memory().write(bytes, GuestAddress(at)); // As above.
    }

    fn u16_at(&self, at: u64) -> u16 {
        self.ram.memory().read_obj(GuestAddress(at)).unwrap_or(0)
    }

    pub(super) fn descriptor(&self, table: u64, index: u16, (at, len, flags, next): (u64, u32, u16, u16)) {
        let entry = table + u64::from(index) * 16;
        self.put(entry, at);
        self.put(entry + 8, len);
        self.put(entry + 12, flags);
        self.put(entry + 14, next);
    }

    pub(super) fn post(&mut self, queue: usize, head: u16) {
        let available = rings_at(queue as u64) + 0x1000;
        let slot = self.posted[queue] % self.queues[queue].size();
        self.put(available + 4 + u64::from(slot) * 2, head);
        self.posted[queue] = self.posted[queue].wrapping_add(1);
        self.put(available + 2, self.posted[queue]);
    }

    /// Used entries so far.
    pub(super) fn used(&self, queue: usize) -> u16 {
        self.u16_at(rings_at(queue as u64) + 0x2002)
    }

    /// A chain of consecutive descriptors, posted.
    pub(super) fn chain(&mut self, queue: usize, input: &mut Input<'_>) {
        let count = u16::from(input.byte() % 6);
        let first = u16::from(input.byte()) % self.queues[queue].size();
        for index in 0..=count {
            let (at, len) = (input.address(), input.len());
            // Bit 0 says that there is another; bit 1 that we write.
            let flags = (u16::from(input.byte()) & 6) | u16::from(index < count);
            self.descriptor(rings_at(queue as u64), first + index, (at, len, flags, first + index + 1));
        }
        self.post(queue, first);
    }

    /// One thing a hostile driver may do to RAM.
    pub(super) fn act(&mut self, action: u8, input: &mut Input<'_>) {
        let queue = usize::from(action >> 4) % self.queues.len();
        let base = rings_at(queue as u64);
        match action % 8 {
            0 | 1 => self.chain(queue, input),
            2 => {
                let (index, at) = (input.byte().into(), input.address());
                let descriptor = (at, input.len(), input.byte().into(), input.byte().into());
                self.descriptor(base, index, descriptor);
            }
            3 => self.post(queue, input.u16() % 0x101),
            4 => {
                self.posted[queue] = input.u16();
                self.put(base + 0x1002, self.posted[queue]);
            }
            5 => {
                let at = input.address();
                let len = input.byte();
                self.put_bytes(at, input.bytes(len.into()));
            }
            6 => self.put(base + 0x2000 + u64::from(input.byte()), input.u16()),
            _ => self.queues[queue].set_event_idx(input.flag()),
        }
    }
}

/// Walking queues, and nothing else: direct and indirect chains, loops, jumps.
pub fn queue(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut driver = Driver::new(&[16, 128]);
    while let Some(action) = input.next() {
        if action < 0xe0 {
            driver.act(action, &mut input);
            continue;
        }
        let which = usize::from(action & 1);
        let size = driver.queues[which].size();
        let used_before = driver.used(which);
        let ram = Arc::clone(&driver.ram);
        let mut rings = Rings::new(&ram, &mut driver.queues);
        let mut served = 0_u16;
        let drained = rings.drain(which, |rings, chain| {
            let (readable, writable) = (chain.readable(), chain.writable());
            assert!(readable.count() + writable.count() <= usize::from(size), "a chain above its queue");
            let all = readable.len().checked_add(writable.len()).unwrap();
            let (mut rest, half) = (readable.clone(), readable.len() / 2);
            assert_eq!(rest.take(half).len() + rest.len(), readable.len(), "bytes lost by a cut");
            let _ = writable.admit(rings.ram()); // Refusing is right; panicking is not.
            served += 1;
            rings.complete(which, chain, (all % u64::from(u32::MAX)) as u32)
        });
        assert!(served <= size + 1, "a round is bounded");
        let _ = rings.wants_interrupt(); // Likewise.
        if matches!(drained, Ok(Drained::Empty)) && served == 0 {
            assert_eq!(driver.used(which), used_before, "nothing was served, nothing is used");
        }
    }
}

/// Serves a device without events, on queues of these sizes.
fn serve(bytes: &[u8], sizes: &[u16], device: &mut dyn Device) {
    let mut input = Input::new(bytes);
    let mut driver = Driver::new(sizes);
    while let Some(action) = input.next() {
        if action < 0xe0 {
            driver.act(action, &mut input);
            continue;
        }
        let why = [Wake::Queue(0), Wake::Again, Wake::Last][usize::from(action % 3)];
        let ram = Arc::clone(&driver.ram);
        let mut rings = Rings::new(&ram, &mut driver.queues);
        if device.serve(why, &mut rings).is_err() {
            device.reset();
        }
        let _ = rings.wants_interrupt(); // Refusing is right; panicking is not.
    }
}

pub fn pmem(bytes: &[u8]) {
    serve(bytes, &[8], &mut Pmem);
}

/// Rings and all may be given away: what is left reads as zero.
pub fn balloon(bytes: &[u8]) {
    serve(bytes, &[8, 8, 32], &mut Balloon::default());
}

pub fn rng(bytes: &[u8]) {
    serve(bytes, &[8], &mut Rng::new(File::open("/dev/zero").unwrap()));
}

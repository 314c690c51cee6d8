//! Chains, good and hostile; and the driver's side of a queue, for the tests of all devices.

use std::sync::Arc;

use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

use super::*;

pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;

/// A driver's view of one queue of 8 entries; buffers of tests begin at `DATA`.
pub(crate) struct Driver {
    ram: Arc<GuestRam>,
    base: u64,
    posted: u16,
}

pub(crate) const SIZE: u16 = 8;
pub(crate) const DATA: u64 = 0x10_0000;

pub(crate) fn ram() -> Arc<GuestRam> {
    Arc::new(GuestRam::new(&crate::layout::ram_regions(32)).unwrap())
}

impl Driver {
    /// The queue's rings are at `base`, `base + 0x1000` and `base + 0x2000`.
    pub(crate) fn new(ram: &Arc<GuestRam>, base: u64) -> Self {
        Self { ram: Arc::clone(ram), base, posted: 0 }
    }

    pub(crate) fn queue(&self) -> Queue {
        let mut queue = Queue::new(SIZE).unwrap();
        let base = u32::try_from(self.base).unwrap();
        queue.set_desc_table_address(Some(base), Some(0));
        queue.set_avail_ring_address(Some(base + 0x1000), Some(0));
        queue.set_used_ring_address(Some(base + 0x2000), Some(0));
        queue.set_ready(true);
        assert!(queue.is_valid(self.ram.memory()));
        queue
    }

    pub(crate) fn put<T: vm_memory::ByteValued>(&self, at: u64, value: T) {
        self.ram.memory().write_obj(value, GuestAddress(at)).unwrap();
    }

    pub(crate) fn describe(&self, index: u16, addr: u64, len: u32, flags: u16, next: u16) {
        self.describe_at(self.base, index, addr, len, flags, next);
    }

    pub(crate) fn describe_at(&self, table: u64, index: u16, addr: u64, len: u32, flags: u16, next: u16) {
        let at = table + u64::from(index) * 16;
        self.put(at, addr);
        self.put(at + 8, len);
        self.put(at + 12, flags);
        self.put(at + 14, next);
    }

    /// Makes the chain that begins at `head` available.
    pub(crate) fn post(&mut self, head: u16) {
        self.put(self.base + 0x1004 + u64::from(self.posted % SIZE) * 2, head);
        self.posted += 1;
        self.put(self.base + 0x1002, self.posted);
    }

    /// Posts a chain of consecutive descriptors from `first` on.
    pub(crate) fn post_chain(&mut self, first: u16, buffers: &[(u64, u32, u16)]) {
        for (index, (addr, len, flags)) in (first..).zip(buffers) {
            let last = usize::from(index - first) + 1 == buffers.len();
            self.describe(index, *addr, *len, if last { *flags } else { flags | NEXT }, index + 1);
        }
        self.post(first);
    }

    pub(crate) fn set_avail_index(&self, index: u16) {
        self.put(self.base + 0x1002, index);
    }

    /// All used entries so far: head and length.
    pub(crate) fn used(&self) -> Vec<(u32, u32)> {
        let read =
            |at: u64| self.ram.memory().read_obj::<u32>(GuestAddress(self.base + 0x2000 + at)).unwrap();
        let count = self.ram.memory().read_obj::<u16>(GuestAddress(self.base + 0x2002)).unwrap();
        (0..u64::from(count)).map(|i| (read(4 + i * 8), read(8 + i * 8))).collect()
    }

    pub(crate) fn bytes(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.ram.memory().read_slice(&mut bytes, GuestAddress(at)).unwrap();
        bytes
    }

    pub(crate) fn write(&self, at: u64, bytes: &[u8]) {
        self.ram.memory().write_slice(bytes, GuestAddress(at)).unwrap();
    }
}

/// The lengths of the buffers to read from, and of those to write to.
type Lens = (Vec<u32>, Vec<u32>);

/// What popping gives after `setup`.
fn pop(setup: impl FnOnce(&mut Driver)) -> Result<Option<Lens>, Violation> {
    let ram = ram();
    let mut driver = Driver::new(&ram, 0x1000);
    let mut queues = [driver.queue()];
    setup(&mut driver);
    let mut rings = Rings::new(&ram, &mut queues);
    let popped = rings.pop(0)?;
    Ok(popped.map(|chain| {
        let lens = |buffers: Buffers| buffers.0.iter().map(|claim| claim.len()).collect();
        let got = (lens(chain.readable()), lens(chain.writable()));
        rings.complete(0, chain, 0).unwrap();
        got
    }))
}

#[test]
fn chains_come_out_in_two_parts() {
    assert_eq!(pop(|_| ()).unwrap(), None);
    let direct = |d: &mut Driver| d.post_chain(0, &[(DATA, 16, 0), (DATA, 512, WRITE), (DATA, 1, WRITE)]);
    assert_eq!(pop(direct).unwrap(), Some((vec![16], vec![512, 1])));
    let indirect = |d: &mut Driver| {
        d.describe_at(DATA, 0, DATA, 5, NEXT, 1);
        d.describe_at(DATA, 1, DATA, 6, WRITE, 0);
        d.post_chain(3, &[(DATA, 32, INDIRECT)]);
    };
    assert_eq!(pop(indirect).unwrap(), Some((vec![5], vec![6])));
}

#[track_caller]
fn check_refused(setup: impl FnOnce(&mut Driver)) {
    let got = pop(setup);
    assert!(got.is_err(), "{got:?}");
}

#[test]
fn broken_rings_and_chains_are_violations() {
    // A loop; a next index behind the table; a head behind the table.
    check_refused(|d| {
        d.describe(0, DATA, 1, NEXT, 0);
        d.post(0);
    });
    check_refused(|d| {
        d.describe(0, DATA, 1, NEXT, SIZE);
        d.post(0);
    });
    check_refused(|d| d.post(SIZE));
    // The avail index jumps by more than the queue holds.
    check_refused(|d| d.set_avail_index(SIZE + 1));
    check_refused(|d| d.set_avail_index(0x8000));
    // Writable before readable.
    check_refused(|d| d.post_chain(0, &[(DATA, 1, WRITE), (DATA, 1, 0)]));
    // Indirect: empty, odd length, nested, outside RAM, too long, and a loop inside.
    check_refused(|d| d.post_chain(0, &[(DATA, 0, INDIRECT)]));
    check_refused(|d| d.post_chain(0, &[(DATA, 17, INDIRECT)]));
    check_refused(|d| {
        d.describe_at(DATA, 0, DATA, 16, INDIRECT, 0);
        d.post_chain(0, &[(DATA, 16, INDIRECT)]);
    });
    check_refused(|d| d.post_chain(0, &[(u64::MAX - 15, 16, INDIRECT)]));
    check_refused(|d| {
        (0..9).for_each(|i| d.describe_at(DATA, i, DATA, 1, if i < 8 { NEXT } else { 0 }, i + 1));
        d.post_chain(0, &[(DATA, 9 * 16, INDIRECT)]);
    });
    check_refused(|d| {
        d.describe_at(DATA, 0, DATA, 1, NEXT, 0);
        d.post_chain(0, &[(DATA, 16, INDIRECT)]);
    });
    // A buffer that wraps, and more than 4 GiB in all.
    check_refused(|d| d.post_chain(0, &[(u64::MAX, 2, 0)]));
    check_refused(|d| d.post_chain(0, &[(DATA, u32::MAX, 0), (DATA, 2, 0)]));
}

#[test]
fn a_length_of_zero_is_allowed() {
    assert_eq!(pop(|d| d.post_chain(0, &[(DATA, 0, 0)])).unwrap(), Some((vec![0], vec![])));
}

#[test]
fn buffers_are_used_up_from_the_front() {
    let ram = ram();
    let driver = Driver::new(&ram, 0x1000);
    let claim = |at, len| Claimed::new(DATA + at, len).unwrap();
    let mut buffers = Buffers(vec![claim(0, 3), claim(3, 0), claim(16, 4)]);
    assert_eq!(buffers.len(), 7);
    buffers.write(&ram, b"abcde").unwrap();
    assert_eq!((driver.bytes(DATA, 3), driver.bytes(DATA + 16, 2)), (b"abc".to_vec(), b"de".to_vec()));
    assert_eq!(buffers.len(), 2);
    let mut rest = [9; 2];
    driver.write(DATA + 18, b"xy");
    buffers.read(&ram, &mut rest).unwrap();
    assert_eq!((&rest, buffers.len()), (b"xy", 0));
    let mut outside = Buffers(vec![Claimed::new(0xc000_0000, 4).unwrap()]);
    assert!(outside.write(&ram, b"x").is_err());
}

#[test]
fn a_round_is_bounded_and_a_late_chain_is_not_forgotten() {
    let ram = ram();
    let mut driver = Driver::new(&ram, 0x1000);
    let mut queues = [driver.queue()];
    let mut rings = Rings::new(&ram, &mut queues);
    driver.post_chain(0, &[(DATA, 1, 0)]);
    let mut served = 0;
    // The driver posts a new chain while each one is served: it could go on for ever.
    let drained = rings.drain(0, |rings, chain| {
        served += 1;
        driver.post_chain(0, &[(DATA, 1, 0)]);
        rings.complete(0, chain, 0)
    });
    assert_eq!((drained.unwrap(), served), (Drained::More, SIZE + 1));
    let drained = rings.drain(0, |rings, chain| rings.complete(0, chain, 0));
    assert_eq!(drained.unwrap(), Drained::Empty);
    assert!(rings.wants_interrupt().unwrap());
    assert!(!rings.wants_interrupt().unwrap());
}

#[test]
fn a_round_ends_when_its_bytes_are_used_up() {
    let ram = ram();
    let mut driver = Driver::new(&ram, 0x1000);
    let mut queues = [driver.queue()];
    let mut rings = Rings::new(&ram, &mut queues);
    (0..4).for_each(|index| driver.post_chain(index, &[(DATA, 1, 0)]));
    let mut round = |bytes| {
        rings.drain_within(bytes, 0, |rings, chain| rings.complete(0, chain, 0).map(|()| 10)).unwrap()
    };
    assert_eq!(round(11), Drained::More);
    assert_eq!(driver.used().len(), 2, "the request that goes beyond is served");
    assert_eq!(round(30), Drained::Empty);
    assert_eq!(driver.used().len(), 4);
}

#[test]
#[should_panic(expected = "never completed")]
fn a_lost_chain_is_loud() {
    let ram = ram();
    let mut driver = Driver::new(&ram, 0x1000);
    let mut queues = [driver.queue()];
    driver.post_chain(0, &[(DATA, 1, 0)]);
    let chain = Rings::new(&ram, &mut queues).pop(0).unwrap();
    drop(chain);
}

/// Cloud Hypervisor 4924 and 4949: lengths that a device adds up.
#[test]
fn ch_4924_lengths_that_overflow_together_are_refused() {
    check_refused(|d| d.post_chain(0, &[(DATA, u32::MAX, WRITE), (DATA, u32::MAX, WRITE)]));
    check_refused(|d| d.post_chain(0, &[(DATA, 1 << 31, WRITE), (DATA, 1 << 31, WRITE)]));
    check_refused(|d| d.post_chain(0, &[(u64::MAX - 7, 8 + 1, WRITE)]));
    let claims = vec![Claimed::new(0, u32::MAX).unwrap(); 4];
    assert_eq!(Buffers(claims).len(), 4 * u64::from(u32::MAX));
}

/// Follows a chain in the simplest way there is: `None` if it has no end or is out of order.
fn walk(table: &[(u64, u32, u16, u16)], head: u16) -> Option<Lens> {
    let (mut readable, mut writable, mut at) = (Vec::new(), Vec::new(), head);
    for _ in 0..table.len() {
        let (_, len, flags, next) = *table.get(usize::from(at))?;
        match flags & WRITE {
            0 if writable.is_empty() => readable.push(len),
            0 => return None,
            _ => writable.push(len),
        }
        if flags & NEXT == 0 {
            return Some((readable, writable));
        }
        at = next;
    }
    None
}

proptest! {
    /// Whatever a table holds: what comes out is what the simple way finds.
    #[test]
    fn chains_are_walked_as_they_are(
        table in prop::collection::vec((0_u64..1 << 40, 0_u32..1 << 20, 0_u16..4, 0_u16..SIZE + 2), usize::from(SIZE)),
        head in 0..SIZE + 2,
    ) {
        let popped = pop(|driver| {
            for (index, (addr, len, flags, next)) in (0..).zip(&table) {
                driver.describe(index, *addr, *len, *flags, *next);
            }
            driver.post(head);
        });
        prop_assert_eq!(popped.ok().flatten(), walk(&table, head));
    }
}

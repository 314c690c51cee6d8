//! Queues: chains come out checked, go back exactly once, and each wake-up does bounded work. A driver
//! that breaks the protocol is a [`Violation`], which costs it the device.

use std::fmt;
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, VolatileSlice};

use crate::device::limit::Gate;
use crate::memory::{BadClaim, Claimed, GuestRam};

/// How the driver broke the protocol.
#[derive(Debug)]
pub(crate) enum Violation {
    /// The rings themselves: indices, addresses.
    Ring(virtio_queue::Error),
    /// A chain that does not end, ends nowhere, or is longer than its queue.
    Chain { head: u16 },
    /// A buffer to write to before one to read from.
    Order { head: u16 },
    /// A buffer that is not RAM.
    Buffer(BadClaim),
    /// A buffer too short for what the device has to put there.
    NoRoom { head: u16 },
}

impl From<virtio_queue::Error> for Violation {
    fn from(err: virtio_queue::Error) -> Self {
        Self::Ring(err)
    }
}

impl From<BadClaim> for Violation {
    fn from(bad: BadClaim) -> Self {
        Self::Buffer(bad)
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ring(err) => write!(f, "{err}"),
            Self::Chain { head } => write!(f, "chain {head} is broken"),
            Self::Order { head } => write!(f, "chain {head} has its buffers in the wrong order"),
            Self::Buffer(BadClaim::Wraps) => write!(f, "a buffer wraps"),
            Self::Buffer(BadClaim::NotRam { first, len }) => {
                write!(f, "a buffer of {len} bytes at {first:#x} is not RAM")
            }
            Self::NoRoom { head } => write!(f, "chain {head} is too short for the answer"),
        }
    }
}

/// How a bounded round ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drained {
    /// Nothing is left to do until the next wake-up.
    Empty,
    /// The round is used up with work left.
    More,
    /// Limits hold back what is left for so long.
    Later(Duration),
}

/// A chain taken from the avail ring. It owes the driver exactly one used-ring entry.
#[must_use = "a popped chain must be completed or put back"]
#[derive(Debug)]
pub(crate) struct Chain {
    head: u16,
    readable: Vec<Claimed>,
    writable: Vec<Claimed>,
    owed: bool,
}

impl Chain {
    pub(crate) fn head(&self) -> u16 {
        self.head
    }

    /// The bytes the driver gives.
    pub(crate) fn readable(&self) -> Buffers {
        Buffers(self.readable.clone())
    }

    /// The space the driver wants filled.
    pub(crate) fn writable(&self) -> Buffers {
        Buffers(self.writable.clone())
    }

    /// How many bytes that space has.
    pub(crate) fn room(&self) -> u64 {
        self.writable.iter().map(|claim| u64::from(claim.len())).sum()
    }

    /// Copies `bytes` to its front. There must be room for them.
    pub(crate) fn fill(&self, ram: &GuestRam, mut bytes: &[u8]) -> Result<(), BadClaim> {
        for claim in &self.writable {
            let (here, behind) = bytes.split_at(bytes.len().min(claim.len() as usize));
            ram.admit(claim.split(here.len() as u32).0)?.copy_from(here);
            bytes = behind;
        }
        debug_assert!(bytes.is_empty(), "the caller has checked the length");
        Ok(())
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        // A lost chain hangs one guest I/O for ever. It is our bug, never the guest's.
        debug_assert!(!self.owed || std::thread::panicking(), "chain {} was never completed", self.head);
    }
}

/// Claims that are used up from the front, whatever framing the driver chose (section 2.7.4).
#[derive(Clone, Debug)]
pub(crate) struct Buffers(Vec<Claimed>);

impl Buffers {
    pub(crate) fn len(&self) -> u64 {
        self.0.iter().map(|claim| u64::from(claim.len())).sum()
    }

    /// How many pieces there are.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Cuts the first `len` bytes off; fewer if there are no more.
    pub(crate) fn take(&mut self, mut len: u64) -> Buffers {
        let mut taken = Vec::new();
        let mut rest = Vec::new();
        for claim in self.0.drain(..) {
            let here = len.min(u64::from(claim.len())) as u32;
            len -= u64::from(here);
            let (front, back) = claim.split(here);
            if 0 < front.len() {
                taken.push(front);
            }
            if 0 < back.len() {
                rest.push(back);
            }
        }
        self.0 = rest;
        Buffers(taken)
    }

    /// The bytes themselves, if they all are RAM.
    pub(crate) fn admit<'a>(&self, ram: &'a GuestRam) -> Result<Vec<VolatileSlice<'a>>, BadClaim> {
        self.0.iter().map(|claim| ram.admit(*claim)).collect()
    }

    /// The same for bytes that are only given to a system call to read.
    pub(crate) fn admit_for_syscall<'a>(
        &self,
        ram: &'a GuestRam,
    ) -> Result<Vec<VolatileSlice<'a>>, BadClaim> {
        self.0.iter().map(|claim| ram.admit_for_syscall(*claim)).collect()
    }

    /// Gives the pages back to the host; how many bytes have gone.
    pub(crate) fn release(&self, ram: &GuestRam) -> Result<u64, BadClaim> {
        self.0.iter().map(|claim| ram.release(*claim)).sum()
    }

    /// Copies out to `bytes`, which must not be longer than what is left; uses it up.
    pub(crate) fn read(&mut self, ram: &GuestRam, bytes: &mut [u8]) -> Result<(), BadClaim> {
        let mut done = 0;
        for slice in self.take(bytes.len() as u64).admit(ram)? {
            done += slice.copy_to(&mut bytes[done..]);
        }
        debug_assert_eq!(done, bytes.len(), "the caller has checked the length");
        Ok(())
    }

    /// Copies `bytes` in, which must not be longer than the room that is left; uses it up.
    pub(crate) fn write(&mut self, ram: &GuestRam, bytes: &[u8]) -> Result<(), BadClaim> {
        let mut done = 0;
        for slice in self.take(bytes.len() as u64).admit(ram)? {
            slice.copy_from(&bytes[done..]);
            done += slice.len();
        }
        debug_assert_eq!(done, bytes.len(), "the caller has checked the length");
        Ok(())
    }
}

/// Most queues of one device.
pub(crate) const QUEUES_MAX: usize = 8;
/// `struct virtq_used`, section 2.7.8: flags and index, then an id and a length for each entry.
const USED_HEAD_SIZE: u64 = 4;
const USED_ENTRY_SIZE: u64 = 8;
/// `struct virtq_avail`, section 2.7.6: flags and index, 16 bits for each entry, `used_event`.
const AVAIL_HEAD_SIZE: u64 = 4;
const AVAIL_ENTRY_SIZE: u64 = 2;
const AVAIL_NO_INTERRUPT: u16 = 1;

/// A device's queues, for the time of one call.
pub(crate) struct Rings<'a> {
    ram: &'a GuestRam,
    queues: &'a mut [Queue],
    /// How far each used ring had come when the driver was last told.
    told: [u16; QUEUES_MAX],
    /// Somebody else has filled a used ring, and says that the driver wants to know.
    others: bool,
}

impl<'a> Rings<'a> {
    pub(crate) fn new(ram: &'a GuestRam, queues: &'a mut [Queue]) -> Self {
        let mut told = [0; QUEUES_MAX];
        told.iter_mut().zip(queues.iter()).for_each(|(told, queue)| *told = queue.next_used());
        Self { ram, queues, told, others: false }
    }

    pub(crate) fn ram(&self) -> &'a GuestRam {
        self.ram
    }

    /// The next chain, all of it checked but for whether its buffers are RAM.
    pub(crate) fn pop(&mut self, queue: usize) -> Result<Option<Chain>, Violation> {
        let ring = &mut self.queues[queue];
        if !ring.ready() {
            return Ok(None);
        }
        let size = ring.size();
        let Some(chain) = ring.iter(self.ram.memory())?.next() else { return Ok(None) };
        read_chain(chain, size).map(Some)
    }

    /// Gives the chain back to the driver; `written` counts the bytes put into its writable part.
    pub(crate) fn complete(&mut self, queue: usize, mut chain: Chain, written: u32) -> Result<(), Violation> {
        chain.owed = false;
        self.queues[queue].add_used(self.ram.memory(), chain.head, written)?;
        Ok(())
    }

    /// Gives chains back in one step, so that the driver never sees only some of them.
    pub(crate) fn complete_together(
        &mut self,
        queue: usize,
        mut chains: Vec<(Chain, u32)>,
    ) -> Result<(), Violation> {
        chains.iter_mut().for_each(|(chain, _)| chain.owed = false);
        let Some((last, written)) = chains.pop() else { return Ok(()) };
        let ring = &mut self.queues[queue];
        for (chain, written) in chains {
            let place = u64::from(ring.next_used() % ring.size()) * USED_ENTRY_SIZE;
            let at = at(ring.used_ring(), USED_HEAD_SIZE + place)?;
            let entry = u64::from(chain.head) | (u64::from(written) << 32);
            self.ram.memory().write_obj(entry.to_le(), at).map_err(virtio_queue::Error::GuestMemory)?;
            ring.set_next_used(ring.next_used().wrapping_add(1));
        }
        // Only this moves the index that the driver looks at.
        ring.add_used(self.ram.memory(), last.head, written)?;
        Ok(())
    }

    /// Undoes the last `pop`: the chain will come again.
    pub(crate) fn put_back(&mut self, queue: usize, mut chain: Chain) {
        chain.owed = false;
        self.queues[queue].go_to_previous_position();
    }

    /// The device may not go on with the chain: the driver has broken the protocol with it.
    pub(crate) fn refuse(&mut self, chain: Chain, violation: Violation) -> Violation {
        self.abandon(chain);
        violation
    }

    /// Nobody waits for the chain any more: the driver has broken the protocol elsewhere.
    pub(crate) fn abandon(&mut self, mut chain: Chain) {
        chain.owed = false;
    }

    /// Asks to be rung for new chains; true if one has come in the meantime.
    pub(crate) fn listen(&mut self, queue: usize) -> Result<bool, Violation> {
        let ring = &mut self.queues[queue];
        Ok(ring.ready() && ring.enable_notification(self.ram.memory())?)
    }

    /// The driver gets an interrupt whatever has been completed here.
    pub(crate) fn interrupt(&mut self) {
        self.others = true;
    }

    /// Whether the driver wants an interrupt for what has been completed.
    pub(crate) fn wants_interrupt(&mut self) -> Result<bool, Violation> {
        let mut wanted = std::mem::take(&mut self.others);
        for (ring, told) in self.queues.iter().zip(&mut self.told) {
            let now = ring.next_used();
            if now != *told {
                wanted |= wants_interrupt(self.ram, ring, *told, now)?;
                *told = now;
            }
        }
        Ok(wanted)
    }

    /// Serves at most as many chains as an honest driver can have posted.
    pub(crate) fn drain(
        &mut self,
        queue: usize,
        mut serve: impl FnMut(&mut Self, Chain) -> Result<(), Violation>,
    ) -> Result<Drained, Violation> {
        self.drain_within(u64::MAX, queue, |rings, chain| serve(rings, chain).map(|()| 0))
    }

    /// The same for a device whose requests differ in size: `serve` says how many bytes it has moved, and
    /// the round ends with the request that uses `bytes` up.
    pub(crate) fn drain_within(
        &mut self,
        bytes: u64,
        queue: usize,
        serve: impl FnMut(&mut Self, Chain) -> Result<u64, Violation>,
    ) -> Result<Drained, Violation> {
        self.drain_through(&mut Gate::default(), bytes, queue, serve)
    }

    /// The same for a device whose requests go through a gate.
    pub(crate) fn drain_through(
        &mut self,
        gate: &mut Gate,
        mut bytes: u64,
        queue: usize,
        mut serve: impl FnMut(&mut Self, Chain) -> Result<u64, Violation>,
    ) -> Result<Drained, Violation> {
        for _ in 0..=self.queues[queue].size() {
            if bytes == 0 {
                return Ok(Drained::More);
            }
            if let Some(wait) = gate.closed() {
                return Ok(Drained::Later(wait));
            }
            match self.pop(queue)? {
                Some(chain) => {
                    let moved = serve(self, chain)?;
                    gate.pass(moved);
                    bytes = bytes.saturating_sub(moved);
                }
                // A chain that came before we listened would never be announced.
                None if self.listen(queue)? => (),
                None => return Ok(Drained::Empty),
            }
        }
        Ok(Drained::More)
    }
}

/// Whether the driver asked to hear of the entries from `told` to `now`, section 2.7.7.
fn wants_interrupt(ram: &GuestRam, ring: &Queue, told: u16, now: u16) -> Result<bool, Violation> {
    let word = |offset| -> Result<u16, Violation> {
        let address = at(ring.avail_ring(), offset)?;
        let word = ram.memory().load(address, Ordering::Relaxed).map_err(virtio_queue::Error::GuestMemory)?;
        Ok(u16::from_le(word))
    };
    // The driver first says what it wants and then looks at the index; we do it the other way round.
    fence(Ordering::SeqCst);
    if !ring.event_idx_enabled() {
        return Ok(word(0)? & AVAIL_NO_INTERRUPT == 0);
    }
    let wanted = word(AVAIL_HEAD_SIZE + u64::from(ring.size()) * AVAIL_ENTRY_SIZE)?;
    Ok(now.wrapping_sub(wanted).wrapping_sub(1) < now.wrapping_sub(told))
}

/// An address in a ring that was found to be in RAM when it was made ready.
fn at(ring: u64, offset: u64) -> Result<GuestAddress, Violation> {
    Ok(GuestAddress(ring.checked_add(offset).ok_or(virtio_queue::Error::AddressOverflow)?))
}

/// Follows a chain to its end. The iterator stops silently at whatever is wrong, so the last descriptor
/// has to say itself that it is the last.
fn read_chain(
    mut chain: virtio_queue::DescriptorChain<&vm_memory::GuestMemoryMmap>,
    queue_size: u16,
) -> Result<Chain, Violation> {
    let head = chain.head_index();
    let (mut readable, mut writable) = (Vec::new(), Vec::new());
    let mut complete = false;
    for descriptor in chain.by_ref() {
        if usize::from(queue_size) <= readable.len() + writable.len() {
            return Err(Violation::Chain { head });
        }
        let claim = Claimed::new(descriptor.addr().0, descriptor.len())?;
        if descriptor.is_write_only() {
            writable.push(claim);
        } else if writable.is_empty() {
            readable.push(claim);
        } else {
            return Err(Violation::Order { head });
        }
        complete = !descriptor.has_next();
    }
    if !complete {
        return Err(Violation::Chain { head });
    }
    Ok(Chain { head, readable, writable, owed: true })
}

#[cfg(test)]
#[path = "queue_tests.rs"]
pub(crate) mod tests;

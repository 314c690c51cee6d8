//! The network device, virtio 1.2 section 5.1: one pair of queues, frames to and from a tap. Whatever of the
//! guest's word reaches the host's kernel has been checked in `request`.

mod backend;
mod request;

pub(crate) use backend::Backend;
pub(crate) use request::HEAD_SIZE;

use virtio_queue::Queue;
use vm_memory::VolatileSlice;

use crate::device::limit::Gate;
use crate::device::virtio::net::backend::Fetched;
use crate::device::virtio::net::request::{F_CSUM, F_HOST_TSO4, F_HOST_TSO6, F_HOST_USO, FRAME_MAX, Head};
use crate::device::virtio::queue::{Buffers, Chain, Drained, Rings, Violation};
use crate::device::virtio::{Device, F_COMMON, Spec, Wake};
use crate::events::{Handle, Interest};

const ID: u32 = 1;
const RX: usize = 0;
const TX: usize = 1;
/// Receive, transmit. Linux posts a receive buffer of 1.5 KiB in each entry.
const QUEUE_SIZES: &[u16] = &[256, 256];

/// Frames to the guest for one wake-up; the tap stays ready while it has more.
const FRAMES_MAX: usize = 64;
/// Bytes from the guest for one wake-up, the frame that goes beyond them included.
const ROUND_MAX: u64 = 4 << 20;

/// Feature bits, section 5.1.3.
const F_GUEST_CSUM: u64 = 1 << 1;
const F_MTU: u64 = 1 << 3;
const F_MAC: u64 = 1 << 5;
const F_GUEST_TSO4: u64 = 1 << 7;
const F_GUEST_TSO6: u64 = 1 << 8;
const F_MRG_RXBUF: u64 = 1 << 15;
/// What the tap was told that the guest takes; it cannot be told otherwise once there is a guest.
const FROM_HOST: u64 = F_GUEST_CSUM | F_GUEST_TSO4 | F_GUEST_TSO6;

/// Where the header says how many buffers a frame fills.
const NUM_BUFFERS_AT: usize = 10;

/// What the guest finds in the device's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub mac: [u8; 6],
    pub mtu: Option<u16>,
}

/// What has happened since the machine began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counters {
    sent: u64,
    received: u64,
    /// Frames whose header lied, or whose bytes were no RAM.
    refused: u64,
    /// Frames that the tap did not take.
    not_taken: u64,
    /// Frames that were too long for the guest's buffers.
    not_delivered: u64,
}

/// How fast frames may go.
#[derive(Debug, Default)]
pub(crate) struct Gates {
    pub from_guest: Gate,
    pub to_guest: Gate,
}

pub(crate) struct Net {
    backend: Backend,
    address: Address,
    gates: Gates,
    /// What the driver has taken; 0 before it is ready.
    features: u64,
    /// The guest has too few receive buffers; it will ring when it posts more.
    starved: bool,
    /// Limits hold frames to the guest back; the device is woken when they may go on.
    held_back: bool,
    /// The tap is no more.
    gone: bool,
    /// What the event loop watches the tap for.
    watched: Interest,
    events: Handle,
    counters: Counters,
}

impl Net {
    pub(crate) fn new(backend: Backend, address: Address, gates: Gates, events: Handle) -> Self {
        Self {
            backend,
            address,
            gates,
            features: 0,
            starved: false,
            held_back: false,
            gone: false,
            watched: Interest::default(),
            events,
            counters: Counters::default(),
        }
    }

    /// `splits_udp`: the host's kernel does.
    pub(crate) fn spec(address: Address, splits_udp: bool) -> Spec {
        let mtu = if address.mtu.is_some() { F_MTU } else { 0 };
        let uso = if splits_udp { F_HOST_USO } else { 0 };
        let from_guest = F_CSUM | F_HOST_TSO4 | F_HOST_TSO6 | uso;
        // `struct virtio_net_config`: the MAC, two fields that only other features fill, the MTU.
        let mut config = address.mac.to_vec();
        config.extend([0; 4]);
        config.extend(address.mtu.unwrap_or(0).to_le_bytes());
        let features = F_COMMON | F_MAC | mtu | F_MRG_RXBUF | FROM_HOST | from_guest;
        Spec { id: ID, features, queue_sizes: QUEUE_SIZES, config }
    }

    /// Frames from the guest.
    fn transmit(&mut self, rings: &mut Rings<'_>) -> Result<Drained, Violation> {
        let Self { backend, address, gates, features, counters, .. } = self;
        rings.drain_through(&mut gates.from_guest, ROUND_MAX, TX, |rings, chain| {
            let mut frame = chain.readable();
            let len = frame.len();
            let (head, slices) = match take_apart(&mut frame, chain.head(), rings) {
                Ok(parts) => parts,
                Err(violation) => return Err(rings.refuse(chain, violation)),
            };
            match Head::admit(head, frame.len(), *features, address.mtu) {
                // An app in the guest may have written the header: it costs the frame, not the device.
                Err(_) => counters.refused += 1,
                Ok(head) => match backend.send(head.encode(), &slices) {
                    Ok(()) => counters.sent += 1,
                    Err(_) => counters.not_taken += 1,
                },
            }
            rings.complete(TX, chain, 0)?;
            Ok(len.min(FRAME_MAX))
        })
    }

    /// Frames to the guest, until there are no more, or no buffers, or the round is over.
    fn receive(&mut self, rings: &mut Rings<'_>) -> Result<Drained, Violation> {
        (self.starved, self.held_back) = (false, false);
        for _ in 0..FRAMES_MAX {
            if let Some(wait) = self.gates.to_guest.closed() {
                self.held_back = true;
                return Ok(Drained::Later(wait));
            }
            match self.backend.fetch() {
                Fetched::Frame => (),
                Fetched::Nothing => return Ok(Drained::Empty),
                Fetched::Gone => {
                    self.gone = true;
                    return Ok(Drained::Empty);
                }
            }
            if !self.deliver(rings)? {
                self.starved = true;
                return Ok(Drained::Empty);
            }
        }
        // The tap is still ready, and watched.
        Ok(Drained::Empty)
    }

    /// Gives the frame that waits to the guest; false if it has to go on waiting.
    fn deliver(&mut self, rings: &mut Rings<'_>) -> Result<bool, Violation> {
        let mergeable = self.features & F_MRG_RXBUF != 0;
        let most = if mergeable { usize::from(QUEUE_SIZES[RX]) } else { 1 };
        let mut buffers = Vec::new();
        let len = self.backend.held().len() as u64;
        match fill(self.backend.held(), most, rings, &mut buffers) {
            Ok(true) => {
                rings.complete_together(RX, buffers)?;
                self.gates.to_guest.pass(len);
                self.backend.forget();
                self.counters.received += 1;
                Ok(true)
            }
            Ok(false) => {
                // With as many buffers as there can be, waiting does not help.
                let hopeless = buffers.len() == most;
                buffers.into_iter().rev().for_each(|(chain, _)| rings.put_back(RX, chain));
                if hopeless {
                    self.backend.forget();
                    self.counters.not_delivered += 1;
                }
                Ok(hopeless)
            }
            Err(violation) => {
                buffers.into_iter().for_each(|(chain, _)| rings.abandon(chain));
                Err(violation)
            }
        }
    }

    fn wants_frames(&self) -> bool {
        self.features != 0 && !self.starved && !self.held_back && !self.gone
    }

    /// Tells the event loop whether frames are wanted.
    fn watch(&mut self) {
        let wanted = Interest { readable: self.wants_frames(), writable: false };
        // The host is out of memory: the next wake-up tries again.
        if self.events.watch(self.backend.fd(), 0, self.watched, wanted).is_ok() {
            self.watched = wanted;
        }
    }
}

/// A frame's header and the rest of it.
fn take_apart<'a>(
    frame: &mut Buffers,
    head: u16,
    rings: &Rings<'a>,
) -> Result<([u8; HEAD_SIZE], Vec<VolatileSlice<'a>>), Violation> {
    if frame.len() < HEAD_SIZE as u64 {
        return Err(Violation::NoRoom { head });
    }
    let mut bytes = [0; HEAD_SIZE];
    frame.read(rings.ram(), &mut bytes)?;
    Ok((bytes, frame.admit_for_syscall(rings.ram())?))
}

/// What two directions have left to do, as one.
fn sooner(one: Drained, other: Drained) -> Drained {
    match (one, other) {
        (Drained::More, _) | (_, Drained::More) => Drained::More,
        (Drained::Later(one), Drained::Later(other)) => Drained::Later(one.min(other)),
        (Drained::Empty, left) | (left, Drained::Empty) => left,
    }
}

/// Puts the frame into at most `most` receive buffers, which it takes into `buffers` with the bytes that are
/// for each; false if there are not enough.
fn fill(
    frame: &mut [u8],
    most: usize,
    rings: &mut Rings<'_>,
    buffers: &mut Vec<(Chain, u32)>,
) -> Result<bool, Violation> {
    let mut left = frame.len();
    while 0 < left {
        if buffers.len() == most {
            return Ok(false);
        }
        let Some(chain) = next_buffer(rings)? else { return Ok(false) };
        let (head, room) = (chain.head(), usize::try_from(chain.room()).unwrap_or(usize::MAX));
        let here = room.min(left);
        buffers.push((chain, u32::try_from(here).expect("a frame is shorter than 4 GiB")));
        // Section 5.1.6.3.1: each holds at least a header.
        if room < HEAD_SIZE {
            return Err(Violation::NoRoom { head });
        }
        left -= here;
    }
    let count = u16::try_from(buffers.len()).expect("there are no more buffers than queue entries");
    frame[NUM_BUFFERS_AT..HEAD_SIZE].copy_from_slice(&count.to_le_bytes());
    let mut rest = &*frame;
    for (chain, len) in buffers {
        let (here, behind) = rest.split_at(*len as usize);
        chain.fill(rings.ram(), here)?;
        rest = behind;
    }
    Ok(true)
}

/// The next receive buffer. If there is none, the driver rings for the next one.
fn next_buffer(rings: &mut Rings<'_>) -> Result<Option<Chain>, Violation> {
    match rings.pop(RX)? {
        Some(chain) => Ok(Some(chain)),
        // One that came before we listened would never be announced.
        None if rings.listen(RX)? => rings.pop(RX),
        None => Ok(None),
    }
}

impl Device for Net {
    /// A driver that takes less than the tap was told would get frames that it does not understand.
    fn accepts(&self, features: u64) -> bool {
        features & FROM_HOST == FROM_HOST
    }

    fn activate(&mut self, features: u64, _: &[Queue]) {
        self.features = features;
        self.watch();
    }

    fn serve(&mut self, why: Wake, rings: &mut Rings<'_>) -> Result<Drained, Violation> {
        let drained = match why {
            Wake::Queue(queue) if usize::from(queue) == RX => self.receive(rings),
            Wake::Socket { .. } => self.receive(rings),
            Wake::Queue(_) => self.transmit(rings),
            Wake::Again if self.held_back => {
                self.receive(rings).and_then(|one| Ok(sooner(one, self.transmit(rings)?)))
            }
            Wake::Again => self.transmit(rings),
            // What the driver has handed over is on the wire; a frame more or less is for nobody.
            Wake::Last => self.transmit(rings).map(|_| Drained::Empty),
        };
        self.watch();
        drained
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        let Counters { sent, received, refused, not_taken, not_delivered } = self.counters;
        vec![
            ("frames sent", sent),
            ("frames received", received),
            ("frames refused", refused),
            ("frames not taken", not_taken),
            ("frames not delivered", not_delivered),
        ]
    }

    fn reset(&mut self) {
        self.features = 0;
        (self.starved, self.held_back) = (false, false);
        self.backend.forget();
        self.watch();
    }
}

#[cfg(test)]
mod tests;

//! The socket device, virtio 1.2 section 5.10, in user space: the guest connects to ports of the host, and
//! each port is one socket that the caller has made. Every port serves one connection in its life.

mod connection;
mod packet;

use std::collections::VecDeque;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use crate::device::virtio::queue::{Buffers, Chain, Drained, Rings, Violation};
use crate::device::virtio::vsock::connection::{Connection, Read, Verdict};
use crate::device::virtio::vsock::packet::{HEAD_SIZE, Head, TYPE_STREAM, op};
use crate::device::virtio::{Device, F_COMMON, Spec, Wake};
use crate::events::{Handle, Interest};
use crate::layout::{GUEST_CID, HOST_CID};
use crate::memory::BadClaim;

const ID: u32 = 19;
const RX: usize = 0;
const TX: usize = 1;
/// Receive, transmit, event. The driver keeps all receive buffers posted, a page each.
const QUEUE_SIZES: &[u16] = &[128, 128, 8];

/// Answers to strangers that wait for a receive buffer; above this we stop listening to the guest.
const REFUSALS_MAX: usize = 32;
/// Longest payload of one packet to the guest.
const PAYLOAD_MAX: u64 = 64 << 10;

/// A port of the host.
struct Port {
    number: u32,
    state: PortState,
    /// What the event loop watches the socket for.
    watched: Interest,
}

enum PortState {
    /// Nobody has connected yet.
    Waiting(UnixStream),
    Open(Box<Connection>),
    Closed,
}

/// What has happened since the machine began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counters {
    /// Packets from the guest and to it.
    heard: u64,
    told: u64,
    /// Packets of the guest's that were answered by a reset.
    refused: u64,
}

pub(crate) struct Vsock {
    ports: Vec<Port>,
    refusals: VecDeque<Head>,
    /// The guest has no receive buffers; it will ring when it posts one.
    starved: bool,
    events: Handle,
    counters: Counters,
}

impl Vsock {
    /// The sockets must not block.
    pub(crate) fn new(ports: Vec<(u32, UnixStream)>, events: Handle) -> Self {
        let port = |(number, stream)| Port {
            number,
            state: PortState::Waiting(stream),
            watched: Interest::default(),
        };
        Self {
            ports: ports.into_iter().map(port).collect(),
            refusals: VecDeque::new(),
            starved: false,
            events,
            counters: Counters::default(),
        }
    }

    pub(crate) fn spec() -> Spec {
        // `struct virtio_vsock_config`: the guest's context id.
        let config = GUEST_CID.to_le_bytes().to_vec();
        Spec { id: ID, features: F_COMMON, queue_sizes: QUEUE_SIZES, config }
    }

    /// Both directions, each for a bounded round.
    fn pump(&mut self, rings: &mut Rings<'_>) -> Result<Drained, Violation> {
        let heard = self.hear(rings)?;
        let was_full = self.is_full();
        let told = self.tell(rings)?;
        let again = heard == Drained::More || told == Drained::More || (was_full && !self.is_full());
        Ok(if again { Drained::More } else { Drained::Empty })
    }

    /// The answers that wait are so many that the guest has to take some first.
    fn is_full(&self) -> bool {
        REFUSALS_MAX <= self.refusals.len()
    }

    /// Packets from the guest.
    fn hear(&mut self, rings: &mut Rings<'_>) -> Result<Drained, Violation> {
        for _ in 0..=QUEUE_SIZES[TX] {
            if self.is_full() {
                return Ok(Drained::Empty);
            }
            match rings.pop(TX)? {
                Some(chain) => self.hear_chain(rings, chain)?,
                None if rings.listen(TX)? => (),
                None => return Ok(Drained::Empty),
            }
        }
        Ok(Drained::More)
    }

    fn hear_chain(&mut self, rings: &mut Rings<'_>, chain: Chain) -> Result<(), Violation> {
        let mut bytes = chain.readable();
        // Too short to say whom an answer would be for.
        if (HEAD_SIZE as u64) <= bytes.len() {
            let mut head = [0; HEAD_SIZE];
            let heard = bytes
                .read(rings.ram(), &mut head)
                .and_then(|()| self.hear_packet(&Head::decode(&head), bytes, rings));
            if let Err(bad) = heard {
                return Err(rings.refuse(chain, bad.into()));
            }
        }
        rings.complete(TX, chain, 0)
    }

    fn hear_packet(&mut self, head: &Head, mut rest: Buffers, rings: &Rings<'_>) -> Result<(), BadClaim> {
        // Section 5.10.6: the driver must use its own context id. A forged one gets no answer.
        if head.src_cid != GUEST_CID {
            return Ok(());
        }
        let whole = u64::from(head.len) <= rest.len();
        let payload = rest.take(head.len.into());
        let port = self.ports.iter_mut().find(|port| port.number == head.dst_port);
        let port = port.filter(|_| whole && head.dst_cid == HOST_CID && head.kind == TYPE_STREAM);
        let verdict = match port {
            Some(port) => port.take(head, &payload, rings, &self.events)?,
            None => Verdict::Reset,
        };
        self.counters.heard += 1;
        if verdict == Verdict::Reset {
            self.counters.refused += 1;
            self.refusals.extend(head.refusal());
        }
        Ok(())
    }

    /// Packets to the guest: answers first, then what connections have to say, then data.
    fn tell(&mut self, rings: &mut Rings<'_>) -> Result<Drained, Violation> {
        self.starved = false;
        for _ in 0..=QUEUE_SIZES[RX] {
            if !self.has_news() {
                return Ok(Drained::Empty);
            }
            match rings.pop(RX)? {
                Some(chain) => self.tell_chain(rings, chain)?,
                None if rings.listen(RX)? => (),
                None => {
                    self.starved = true;
                    return Ok(Drained::Empty);
                }
            }
        }
        Ok(Drained::More)
    }

    fn has_news(&self) -> bool {
        !self.refusals.is_empty() || self.connections().any(|connection| connection.has_news())
    }

    /// Fills one receive buffer, or puts it back.
    fn tell_chain(&mut self, rings: &mut Rings<'_>, chain: Chain) -> Result<(), Violation> {
        let mut room = chain.writable();
        if room.len() <= HEAD_SIZE as u64 {
            let head = chain.head();
            return Err(rings.refuse(chain, Violation::NoRoom { head }));
        }
        let mut head_room = room.take(HEAD_SIZE as u64);
        let head = match self.next_packet(room, rings) {
            Ok(Some(head)) => head,
            Ok(None) => {
                rings.put_back(RX, chain);
                return Ok(());
            }
            Err(bad) => return Err(rings.refuse(chain, bad.into())),
        };
        self.counters.told += 1;
        match head_room.write(rings.ram(), &head.encode()) {
            Ok(()) => rings.complete(RX, chain, HEAD_SIZE as u32 + head.len),
            Err(bad) => Err(rings.refuse(chain, bad.into())),
        }
    }

    fn next_packet(&mut self, mut room: Buffers, rings: &Rings<'_>) -> Result<Option<Head>, BadClaim> {
        if let Some(refusal) = self.refusals.pop_front() {
            return Ok(Some(refusal));
        }
        if let Some(head) = self.connections_mut().find_map(Connection::next_control) {
            return Ok(Some(head));
        }
        let wants_read = |port: &Port| port.connection().is_some_and(Connection::wants_read);
        let Some(index) = self.ports.iter().position(wants_read) else { return Ok(None) };
        // The others come first the next time.
        self.ports[index..].rotate_left(1);
        let Some(connection) = self.ports.last_mut().and_then(Port::connection_mut) else { return Ok(None) };
        let slices = room.take(PAYLOAD_MAX.min(connection.credit().into())).admit(rings.ram())?;
        Ok(match connection.read(slices) {
            Read::Bytes(len) => Some(Head { len, ..connection.head(op::RW) }),
            Read::Nothing => None,
        })
    }

    fn socket_ready(&mut self, number: u32, hung_up: bool) {
        let Some(port) = self.ports.iter_mut().find(|port| port.number == number) else { return };
        let Some(connection) = port.connection_mut() else { return };
        match connection.ready(hung_up) {
            Verdict::Open => return,
            Verdict::Reset => self.refusals.push_back(connection.head(op::RST)),
            Verdict::Gone => (),
        }
        port.close(&self.events);
    }

    /// Tells the event loop what each connection waits for now.
    fn watch(&mut self) {
        for port in &mut self.ports {
            let Some(connection) = port.connection() else { continue };
            let wanted = connection.interest(!self.starved);
            let fd = connection.stream().as_raw_fd();
            if self.events.watch(fd, port.number, port.watched, wanted).is_ok() {
                port.watched = wanted;
                continue;
            }
            // The host is out of memory: this connection cannot go on, others may.
            let farewell = port.connection_mut().map(|connection| connection.head(op::RST));
            self.refusals.extend(farewell);
            port.close(&self.events);
        }
    }

    /// Everything that the guest has handed over reaches its socket.
    fn finish(&mut self, rings: &mut Rings<'_>) -> Result<(), Violation> {
        // Nobody is left to hear refusals; between two clearings, a full round of packets is heard.
        for _ in 0..=usize::from(QUEUE_SIZES[TX]) / REFUSALS_MAX {
            self.refusals.clear();
            self.hear(rings)?;
        }
        self.connections_mut().for_each(Connection::last_words);
        Ok(())
    }

    /// What must hold after every wake-up: nothing that the guest can make grow is above its limit.
    pub(crate) fn check_limits(&self) {
        // Each port may say its own farewell beside the answers to strangers.
        assert!(self.refusals.len() <= REFUSALS_MAX + self.ports.len(), "{}", self.refusals.len());
        self.connections().for_each(Connection::check_limits);
    }

    fn connections(&self) -> impl Iterator<Item = &Connection> {
        self.ports.iter().filter_map(Port::connection)
    }

    fn connections_mut(&mut self) -> impl Iterator<Item = &mut Connection> {
        self.ports.iter_mut().filter_map(Port::connection_mut)
    }
}

impl Port {
    fn connection(&self) -> Option<&Connection> {
        match &self.state {
            PortState::Open(connection) => Some(connection),
            PortState::Waiting(_) | PortState::Closed => None,
        }
    }

    fn connection_mut(&mut self) -> Option<&mut Connection> {
        match &mut self.state {
            PortState::Open(connection) => Some(connection),
            PortState::Waiting(_) | PortState::Closed => None,
        }
    }

    fn take(
        &mut self,
        head: &Head,
        payload: &Buffers,
        rings: &Rings<'_>,
        events: &Handle,
    ) -> Result<Verdict, BadClaim> {
        let verdict = match std::mem::replace(&mut self.state, PortState::Closed) {
            PortState::Waiting(stream) if head.op == op::REQUEST => {
                self.state = PortState::Open(Box::new(Connection::accept(stream, head)));
                return Ok(Verdict::Open);
            }
            PortState::Open(mut connection) if connection.guest_port() == head.src_port => {
                let verdict = connection.take(head, payload, rings.ram());
                self.state = PortState::Open(connection);
                verdict?
            }
            // A stranger: whoever is connected, or may connect, is not disturbed.
            state => {
                self.state = state;
                return Ok(Verdict::Reset);
            }
        };
        if verdict != Verdict::Open {
            self.close(events);
        }
        Ok(verdict)
    }

    fn close(&mut self, events: &Handle) {
        if let Some(connection) = self.connection() {
            let fd = connection.stream().as_raw_fd();
            // Closing the socket ends the watch as well.
            let _ = events.watch(fd, self.number, self.watched, Interest::default());
        }
        self.watched = Interest::default();
        self.state = PortState::Closed;
    }
}

impl Device for Vsock {
    fn serve(&mut self, why: Wake, rings: &mut Rings<'_>) -> Result<Drained, Violation> {
        match why {
            Wake::Last => return self.finish(rings).map(|()| Drained::Empty),
            Wake::Socket { socket, hung_up } => self.socket_ready(socket, hung_up),
            Wake::Queue(_) | Wake::Again => (),
        }
        let drained = self.pump(rings)?;
        self.watch();
        Ok(drained)
    }

    fn reset(&mut self) {
        self.refusals.clear();
        self.starved = false;
        for port in &mut self.ports {
            if port.connection().is_some() {
                port.close(&self.events);
            }
        }
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        let Counters { heard, told, refused } = self.counters;
        vec![("packets heard", heard), ("packets told", told), ("packets refused", refused)]
    }

    fn end(&mut self) {
        self.ports.iter_mut().for_each(|port| port.close(&self.events));
    }
}

#[cfg(test)]
mod tests;

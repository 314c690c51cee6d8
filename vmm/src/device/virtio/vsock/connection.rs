//! One stream between a port of the guest and a socket of the host, with credit both ways (virtio 1.2
//! section 5.10.6.3).

use std::collections::VecDeque;
use std::io::{self, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use vm_memory::{ReadVolatile, VolatileMemoryError, VolatileSlice, WriteVolatile};

use crate::device::virtio::queue::Buffers;
use crate::device::virtio::vsock::packet::{Head, NEITHER, NO_RECEIVE, NO_SEND, TYPE_STREAM, op};
use crate::events::Interest;
use crate::layout::{GUEST_CID, HOST_CID};
use crate::memory::{BadClaim, GuestRam};

/// Bytes that we hold for a socket that does not take them; the credit we give the guest.
pub(super) const HELD_MAX: u32 = 128 << 10;
/// The guest is told of new credit when this much has been taken off it.
const TELL_AFTER: u32 = HELD_MAX / 2;
/// How long a reader may stand still when the machine is over, before what is held for it is dropped.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What becomes of the connection after a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Open,
    /// The guest broke the protocol or must hear that all is over: RST, and nothing remains.
    Reset,
    /// Nothing remains, and the guest knows it.
    Gone,
}

/// How an attempt to read from the socket ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    Bytes(u32),
    /// Nothing now, or nothing any more.
    Nothing,
}

/// The driver's end of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Guest {
    /// Flags: what it will not do any more.
    Here(u32),
    /// It sent RST.
    Left,
}

#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    host_port: u32,
    guest_port: u32,
    guest: Guest,
    // From the guest to the socket.
    held: VecDeque<u8>,
    taken: u32,
    taken_told: u32,
    write_end_shut: bool,
    // From the socket to the guest.
    sent: u32,
    guest_room: u32,
    guest_taken: u32,
    readable: bool,
    // What the guest has yet to hear.
    owes_response: bool,
    owes_credit: bool,
    /// What the host's end will not do any more, and what of that the guest knows.
    over: u32,
    over_told: u32,
}

impl Connection {
    /// The guest's REQUEST is accepted; `stream` does not block.
    pub(super) fn accept(stream: UnixStream, request: &Head) -> Self {
        Self {
            stream,
            host_port: request.dst_port,
            guest_port: request.src_port,
            guest: Guest::Here(0),
            held: VecDeque::new(),
            taken: 0,
            taken_told: 0,
            write_end_shut: false,
            sent: 0,
            guest_room: request.buf_alloc,
            guest_taken: request.fwd_cnt,
            readable: true,
            owes_response: true,
            owes_credit: false,
            over: 0,
            over_told: 0,
        }
    }

    pub(super) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    pub(super) fn check_limits(&self) {
        assert!(self.held.len() <= HELD_MAX as usize, "{} bytes are held", self.held.len());
    }

    pub(super) fn guest_port(&self) -> u32 {
        self.guest_port
    }

    /// Takes a packet that is for this connection.
    pub(super) fn take(
        &mut self,
        head: &Head,
        payload: &Buffers,
        ram: &GuestRam,
    ) -> Result<Verdict, BadClaim> {
        let Guest::Here(guest_over) = self.guest else { return Ok(Verdict::Reset) };
        self.guest_room = head.buf_alloc;
        self.guest_taken = head.fwd_cnt;
        match head.op {
            op::RW if guest_over & NO_SEND != 0 => return Ok(Verdict::Reset),
            op::RW if u64::from(HELD_MAX) < self.held.len() as u64 + u64::from(head.len) => {
                return Ok(Verdict::Reset);
            }
            op::RW => self.take_bytes(payload, ram)?,
            op::CREDIT_UPDATE => (),
            op::CREDIT_REQUEST => self.owes_credit = true,
            op::SHUTDOWN => self.guest = Guest::Here(guest_over | (head.flags & NEITHER)),
            op::RST => self.guest = Guest::Left,
            _ => return Ok(Verdict::Reset),
        }
        Ok(self.settle())
    }

    /// The socket is ready for something.
    pub(super) fn ready(&mut self, hung_up: bool) -> Verdict {
        self.readable = true;
        if hung_up {
            // Nobody will take anything any more; what was sent to us before is still to be read.
            self.socket_takes_no_more();
        }
        self.write_held();
        self.settle()
    }

    /// Follows up on what the guest has closed; what it has sent before goes first.
    pub(super) fn settle(&mut self) -> Verdict {
        let over = match self.guest {
            Guest::Here(over) => over,
            Guest::Left => NEITHER,
        };
        if over & NO_SEND != 0 && self.held.is_empty() && !self.write_end_shut {
            self.write_end_shut = true;
            // The peer may have closed its end already.
            let _ = self.stream.shutdown(Shutdown::Write);
        }
        match (self.guest, self.write_end_shut) {
            (Guest::Left, true) => Verdict::Gone,
            (Guest::Here(NEITHER), true) => Verdict::Reset,
            _ => Verdict::Open,
        }
    }

    pub(super) fn interest(&self, guest_has_buffers: bool) -> Interest {
        Interest {
            readable: !self.readable && self.may_read() && guest_has_buffers,
            writable: !self.held.is_empty(),
        }
    }

    /// Whether a read may bring something for the guest.
    pub(super) fn wants_read(&self) -> bool {
        self.readable && self.may_read()
    }

    fn may_read(&self) -> bool {
        let guest_receives = matches!(self.guest, Guest::Here(over) if over & NO_RECEIVE == 0);
        self.over & NO_SEND == 0 && guest_receives && 0 < self.credit()
    }

    /// How much the guest can take. One that claims to have taken more than was sent gets nothing.
    pub(super) fn credit(&self) -> u32 {
        self.guest_room.saturating_sub(self.sent.wrapping_sub(self.guest_taken))
    }

    /// Whether there is something to put into a receive buffer.
    pub(super) fn has_news(&self) -> bool {
        let control = matches!(self.guest, Guest::Here(_))
            && (self.owes_response || self.over != self.over_told || self.credit_is_news());
        control || self.wants_read()
    }

    fn credit_is_news(&self) -> bool {
        self.owes_credit || TELL_AFTER <= self.taken.wrapping_sub(self.taken_told)
    }

    /// The next packet without data, if one is due.
    pub(super) fn next_control(&mut self) -> Option<Head> {
        if !matches!(self.guest, Guest::Here(_)) {
            return None;
        }
        if std::mem::take(&mut self.owes_response) {
            Some(self.head(op::RESPONSE))
        } else if self.over != self.over_told {
            self.over_told = self.over;
            Some(Head { flags: self.over, ..self.head(op::SHUTDOWN) })
        } else if self.credit_is_news() {
            self.owes_credit = false;
            Some(self.head(op::CREDIT_UPDATE))
        } else {
            None
        }
    }

    /// Reads from the socket into guest memory, not more than the guest has room for.
    pub(super) fn read(&mut self, slices: Vec<VolatileSlice<'_>>) -> Read {
        let mut done = 0;
        for mut slice in slices {
            match self.stream.read_volatile(&mut slice) {
                Ok(0) => {
                    self.over |= NO_SEND;
                    self.readable = false;
                    break;
                }
                Ok(count) => {
                    done += count;
                    if count < slice.len() {
                        break;
                    }
                }
                Err(err) if would_block(&err) => {
                    self.readable = false;
                    break;
                }
                Err(_) => {
                    self.over = NEITHER;
                    break;
                }
            }
        }
        match u32::try_from(done) {
            Ok(0) | Err(_) => Read::Nothing,
            Ok(count) => {
                self.sent = self.sent.wrapping_add(count);
                Read::Bytes(count)
            }
        }
    }

    /// A head from this connection, which tells the guest of its credit by the way.
    pub(super) fn head(&mut self, op: u16) -> Head {
        self.taken_told = self.taken;
        Head {
            src_cid: HOST_CID,
            dst_cid: GUEST_CID,
            src_port: self.host_port,
            dst_port: self.guest_port,
            len: 0,
            kind: TYPE_STREAM,
            op,
            flags: 0,
            buf_alloc: HELD_MAX,
            fwd_cnt: self.taken,
        }
    }

    /// The machine is over: waits for the socket to take what the guest has sent.
    pub(super) fn last_words(&mut self) {
        let (first, second) = self.held.as_slices();
        // A reader that has gone, or stands still for too long, does not want them.
        let _ = self
            .stream
            .set_nonblocking(false)
            .and_then(|()| self.stream.set_write_timeout(Some(LAST_WORDS)))
            .and_then(|()| (&self.stream).write_all(first))
            .and_then(|()| (&self.stream).write_all(second));
        self.held.clear();
    }

    /// Straight to the socket while it takes them, the rest into `held`. The caller has checked the room.
    fn take_bytes(&mut self, payload: &Buffers, ram: &GuestRam) -> Result<(), BadClaim> {
        for slice in payload.admit(ram)? {
            let mut rest = slice;
            while self.held.is_empty() && self.over & NO_RECEIVE == 0 && !rest.is_empty() {
                match self.stream.write_volatile(&rest) {
                    Ok(count) => {
                        self.taken = self.taken.wrapping_add(count as u32);
                        rest = rest.offset(count).expect("a write does not take more than there is");
                    }
                    Err(err) if would_block(&err) => break,
                    Err(_) => self.socket_takes_no_more(),
                }
            }
            self.hold(&rest);
        }
        Ok(())
    }

    fn hold(&mut self, slice: &VolatileSlice<'_>) {
        if self.over & NO_RECEIVE != 0 {
            // Nobody will read them: they count as taken, or the guest would wait for credit.
            self.taken = self.taken.wrapping_add(slice.len() as u32);
            return;
        }
        let mut bytes = vec![0; slice.len()];
        slice.copy_to(&mut bytes[..]);
        self.held.extend(bytes);
    }

    fn write_held(&mut self) {
        while !self.held.is_empty() {
            match self.stream.write(self.held.as_slices().0) {
                Ok(count) => {
                    self.held.drain(..count);
                    self.taken = self.taken.wrapping_add(count as u32);
                }
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => return,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => (),
                Err(_) => self.socket_takes_no_more(),
            }
        }
        self.held.shrink_to(0);
    }

    fn socket_takes_no_more(&mut self) {
        self.over |= NO_RECEIVE;
        self.taken = self.taken.wrapping_add(self.held.len() as u32);
        self.held.clear();
    }
}

fn would_block(err: &VolatileMemoryError) -> bool {
    matches!(err, VolatileMemoryError::IOError(err)
        if matches!(err.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted))
}

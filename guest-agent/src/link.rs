//! The byte stream to stage1, cut into frames, never blocking.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use hull_agent_protocol::message::Message;
use hull_agent_protocol::{AGENT_PORT, Decoder, Frame, FromAgent, Violation, frame};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, VsockAddr, connect, socket};
use nix::unistd::{read, write};

/// Bytes on their way out from which on no more app output is read. Control messages come on top.
const QUEUED_MAX: usize = 64 << 10;

/// How long stage1 may take to read the last word.
const LAST_WORD_MAX: Duration = Duration::from_secs(5);

/// Bytes read from the link at once.
const CHUNK: usize = 16 << 10;

/// The agent's end of the link.
#[derive(Debug)]
pub(crate) struct Link {
    socket: OwnedFd,
    decoder: Decoder,
    queue: Vec<u8>,
    sent: usize,
}

/// Why the conversation is over.
#[derive(Debug)]
pub(crate) enum Lost {
    /// Stage1 went away.
    Ended,
    Violation(Violation),
}

impl From<Violation> for Lost {
    fn from(why: Violation) -> Self {
        Self::Violation(why)
    }
}

impl Link {
    /// Connects to the host of this virtual machine.
    pub(crate) fn to_host() -> io::Result<Self> {
        let socket = socket(AddressFamily::Vsock, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        connect(socket.as_raw_fd(), &VsockAddr::new(libc::VMADDR_CID_HOST, AGENT_PORT))?;
        Self::new(socket)
    }

    /// Speaks over a connected socket.
    pub(crate) fn new(socket: OwnedFd) -> io::Result<Self> {
        let flags = OFlag::from_bits_truncate(fcntl(&socket, FcntlArg::F_GETFL)?);
        fcntl(&socket, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(Self { socket, decoder: Decoder::default(), queue: vec![], sent: 0 })
    }

    /// Queues a message.
    pub(crate) fn say(&mut self, message: &FromAgent) {
        message.encode(&mut self.queue).expect("the texts in our messages are bounded");
    }

    /// Queues bytes of a channel; none end it.
    pub(crate) fn send(&mut self, channel: u32, bytes: &[u8]) {
        frame::encode(channel, bytes, &mut self.queue);
    }

    pub(crate) fn has_room(&self) -> bool {
        self.queue.len() - self.sent < QUEUED_MAX
    }

    pub(crate) fn wants_to_write(&self) -> bool {
        self.sent < self.queue.len()
    }

    /// Writes what the socket takes.
    pub(crate) fn flush(&mut self) -> Result<(), Lost> {
        while self.wants_to_write() {
            match write(&self.socket, &self.queue[self.sent..]) {
                Ok(written) => self.sent += written,
                Err(Errno::EAGAIN) => return Ok(()),
                Err(Errno::EINTR) => (),
                Err(_) => return Err(Lost::Ended),
            }
        }
        self.queue.clear();
        self.sent = 0;
        Ok(())
    }

    /// Reads once, without waiting.
    pub(crate) fn fill(&mut self) -> Result<(), Lost> {
        let mut chunk = [0; CHUNK];
        match read(&self.socket, &mut chunk) {
            Ok(0) => Err(Lost::Ended),
            Ok(len) => {
                self.decoder.push(&chunk[..len]);
                Ok(())
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(()),
            Err(_) => Err(Lost::Ended),
        }
    }

    /// The next whole frame that was read.
    pub(crate) fn next_frame(&mut self) -> Result<Option<Frame>, Lost> {
        Ok(self.decoder.next_frame()?)
    }

    /// Writes everything that is queued. Where `machine_ends`, also waits until stage1 has read it: the
    /// machine would take what is still in its own queues with it.
    pub(crate) fn finish(&mut self, machine_ends: bool) -> Result<(), Lost> {
        let deadline = Instant::now() + LAST_WORD_MAX;
        loop {
            self.flush()?;
            let left = deadline.saturating_duration_since(Instant::now());
            if (!self.wants_to_write() && !machine_ends) || left.is_zero() {
                return Ok(());
            }
            self.wait(PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX));
            match self.fill() {
                // That is how stage1 says that it has heard everything.
                Err(Lost::Ended) => return Ok(()),
                other => other?,
            }
            while self.next_frame()?.is_some() {} // Too late for anything.
        }
    }

    /// Waits until something can be read or, if anything is queued, written.
    pub(crate) fn wait(&self, timeout: PollTimeout) {
        let mut flags = PollFlags::POLLIN;
        flags.set(PollFlags::POLLOUT, self.wants_to_write());
        let _ = poll(&mut [PollFd::new(self.socket.as_fd(), flags)], timeout); // Callers look again.
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

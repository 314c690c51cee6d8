//! One of the user's output descriptors, fed from a channel.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::write;

/// Bytes that a pipe takes at once when poll(2) says it is writable (pipe(7), PIPE_BUF). The descriptor
/// is shared with whoever started us, so it cannot be made non-blocking.
const WRITE_MAX: usize = 4096;

/// Bytes on their way to the user. Never more than a window: the agent waits for credit.
#[derive(Debug)]
pub(crate) struct Output<F> {
    pub(crate) channel: u32,
    fd: F,
    queue: VecDeque<u8>,
    broken: bool,
}

/// What one write came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Flushed {
    Bytes(usize),
    /// The reader is gone: these bytes and all that follow are dropped.
    Broken(usize),
}

impl<F: AsFd> Output<F> {
    pub(crate) fn new(channel: u32, fd: F) -> Self {
        Self { channel, fd, queue: VecDeque::new(), broken: false }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(crate) fn wants_to_write(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Queues bytes. Returns how many were dropped at once because nobody reads them.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> usize {
        if self.broken {
            return bytes.len();
        }
        self.queue.extend(bytes);
        0
    }

    /// Whether [`Self::flush`] will not block now.
    pub(crate) fn is_writable(&self) -> bool {
        let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLOUT)];
        poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }

    /// Drops what is queued and all that follows. Returns how much was dropped.
    pub(crate) fn abandon(&mut self) -> usize {
        self.broken = true;
        std::mem::take(&mut self.queue).len()
    }

    /// Writes once; call it when poll(2) says that it will not block.
    pub(crate) fn flush(&mut self) -> Flushed {
        let (front, _) = self.queue.as_slices();
        let piece = &front[..front.len().min(WRITE_MAX)];
        match write(&self.fd, piece) {
            Ok(written) => {
                self.queue.drain(..written);
                Flushed::Bytes(written)
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Flushed::Bytes(0),
            Err(_) => {
                self.broken = true;
                Flushed::Broken(std::mem::take(&mut self.queue).len())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, pipe};

    use super::*;

    #[test]
    fn bytes_arrive_in_order() {
        let (mut reader, writer) = pipe().unwrap();
        let mut output = Output::new(1, writer);
        let want: Vec<u8> = (0..10_000u32).map(|n| n as u8).collect();
        want.chunks(999).for_each(|piece| assert_eq!(output.push(piece), 0));
        while output.wants_to_write() {
            assert!(matches!(output.flush(), Flushed::Bytes(1..=WRITE_MAX)));
        }
        drop(output);
        let mut got = vec![];
        reader.read_to_end(&mut got).unwrap();
        assert_eq!(got, want);
    }

    #[test]
    fn a_reader_that_left_costs_the_bytes_and_nothing_else() {
        let (reader, writer) = pipe().unwrap();
        let mut output = Output::new(1, writer);
        drop(reader);
        output.push(b"nobody");
        assert_eq!(output.flush(), Flushed::Broken(6));
        assert!(!output.wants_to_write());
        assert_eq!(output.push(b"listens"), 7);
    }
}

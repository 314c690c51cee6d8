//! One of the user's output descriptors, fed from a channel.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use hull_pod::AppName;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::write;

use crate::control::ClientId;

/// Bytes that a pipe takes at once when poll(2) says it is writable (pipe(7), PIPE_BUF). The descriptor
/// is shared with whoever started us, so it cannot be made non-blocking.
const WRITE_MAX: usize = 4096;

/// Most bytes of a line that is labelled; a longer one becomes several. With its label it still fits
/// [`WRITE_MAX`], so that lines of different apps do not mix.
const LINE_MAX: usize = 2048;

/// Bytes on their way to the user. Never more than a window: the agent waits for credit.
#[derive(Debug)]
pub(crate) struct Output<F> {
    pub(crate) channel: u32,
    fd: F,
    queue: VecDeque<u8>,
    lines: Option<Lines>,
    broken: bool,
    /// How many bytes of the channel are written or dropped.
    done: u64,
    pub(crate) viewer: Option<Viewer>,
}

/// Who has attached to the channel beside whoever runs the pod.
#[derive(Debug)]
pub(crate) struct Viewer {
    pub(crate) client: ClientId,
    /// Since when bytes wait for it, or it has taken [`LEAST`] of them; and how many it had taken then.
    since: Instant,
    then: u64,
}

/// A viewer that holds an app up takes as many bytes in [`PATIENCE`], or loses the connection.
const LEAST: u64 = 64 << 10;
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// What one write came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Flushed {
    Some,
    None,
    /// The reader is gone: what is queued and all that follows is dropped.
    Broken,
}

/// Whose a line is.
#[derive(Clone, Debug)]
pub(crate) struct Label {
    app: u16,
    name: AppName,
    /// 0 until it is known.
    pid: u32,
}

impl Label {
    pub(crate) fn new(app: u16, name: &AppName) -> Self {
        Self { app, name: name.clone(), pid: 0 }
    }
}

/// An output that is written line by line, each behind its label.
#[derive(Debug)]
struct Lines {
    label: Label,
    /// What is left to write of a line with its label.
    piece: Vec<u8>,
    /// How many bytes of the channel the piece is made of.
    raw: usize,
    /// A line without its end will not get one.
    ended: bool,
}

impl Lines {
    fn is_ready(&self, queue: &VecDeque<u8>) -> bool {
        let whole = |queue: &VecDeque<u8>| queue.len() >= LINE_MAX || queue.contains(&b'\n');
        !self.piece.is_empty() || whole(queue) || self.ended && !queue.is_empty()
    }

    /// Takes the next line, in the form that rkt's users know: `[ SECONDS.MICROS] APP[PID]: TEXT`.
    fn take(&mut self, queue: &mut VecDeque<u8>) {
        let newline = queue.iter().take(LINE_MAX).position(|byte| *byte == b'\n');
        self.raw = newline.map_or(queue.len().min(LINE_MAX), |place| place + 1);
        let Label { name, pid, .. } = &self.label;
        self.piece = format!("[{}] {name}[{pid}]: ", since_boot()).into_bytes();
        self.piece.extend(queue.drain(..self.raw));
        if newline.is_none() {
            self.piece.push(b'\n');
        }
    }
}

/// As the kernel and the journal show it.
fn since_boot() -> String {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
    format!("{:5}.{:06}", now.as_secs(), now.subsec_micros())
}

impl<F: AsFd> Output<F> {
    pub(crate) fn new(channel: u32, fd: F) -> Self {
        Self { channel, fd, queue: VecDeque::new(), lines: None, broken: false, done: 0, viewer: None }
    }

    /// Of a client that has attached after `received` bytes of the channel had come.
    pub(crate) fn for_viewer(mut self, client: ClientId, received: u64) -> Self {
        self.done = received;
        self.viewer = Some(Viewer { client, since: Instant::now(), then: received });
        self
    }

    /// How many bytes of the channel need not be kept for it.
    pub(crate) fn done(&self) -> u64 {
        self.done
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }

    /// When a viewer will have been too slow, unless it takes more.
    pub(crate) fn patience_ends(&self) -> Option<Instant> {
        self.viewer.as_ref().filter(|_| !self.queue.is_empty()).map(|viewer| viewer.since + PATIENCE)
    }

    pub(crate) fn labelled(mut self, label: Option<Label>) -> Self {
        self.lines = label.map(|label| Lines { label, piece: vec![], raw: 0, ended: false });
        self
    }

    /// The label shows the process of the app from now on.
    pub(crate) fn app_started(&mut self, app: u16, pid: u32) {
        if let Some(lines) = self.lines.as_mut().filter(|lines| lines.label.app == app) {
            lines.label.pid = pid;
        }
    }

    /// Nothing more will come.
    pub(crate) fn end(&mut self) {
        self.lines.iter_mut().for_each(|lines| lines.ended = true);
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(crate) fn wants_to_write(&self) -> bool {
        match &self.lines {
            Some(lines) => lines.is_ready(&self.queue),
            None => !self.queue.is_empty(),
        }
    }

    /// Queues bytes, or drops them where nobody reads them.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if self.broken {
            self.done += bytes.len() as u64;
            return;
        }
        if let Some(viewer) = self.viewer.as_mut().filter(|_| self.queue.is_empty()) {
            (viewer.since, viewer.then) = (Instant::now(), self.done);
        }
        self.queue.extend(bytes);
    }

    /// Whether [`Self::flush`] will not block now.
    pub(crate) fn is_writable(&self) -> bool {
        let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLOUT)];
        poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }

    /// Drops what is queued and all that follows.
    pub(crate) fn abandon(&mut self) {
        self.broken = true;
        let begun = self.lines.take().filter(|lines| !lines.piece.is_empty()).map_or(0, |lines| lines.raw);
        self.done += (begun + std::mem::take(&mut self.queue).len()) as u64;
    }

    /// Writes once; call it when poll(2) says that it will not block.
    pub(crate) fn flush(&mut self) -> Flushed {
        let written = match &mut self.lines {
            Some(lines) => {
                if lines.piece.is_empty() {
                    lines.take(&mut self.queue);
                }
                write(&self.fd, &lines.piece)
            }
            None => {
                let (front, _) = self.queue.as_slices();
                write(&self.fd, &front[..front.len().min(WRITE_MAX)])
            }
        };
        match written {
            Ok(written) => {
                let bytes = self.advance(written) as u64;
                self.done += bytes;
                if let Some(viewer) = self.viewer.as_mut().filter(|viewer| self.done - viewer.then >= LEAST) {
                    (viewer.since, viewer.then) = (Instant::now(), self.done);
                }
                Flushed::Some
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Flushed::None,
            Err(_) => {
                self.abandon();
                Flushed::Broken
            }
        }
    }

    /// How many bytes of the channel a write has done with.
    fn advance(&mut self, written: usize) -> usize {
        let Some(lines) = &mut self.lines else {
            self.queue.drain(..written);
            return written;
        };
        lines.piece.drain(..written);
        // A line counts once it is out as a whole.
        if lines.piece.is_empty() { lines.raw } else { 0 }
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
        want.chunks(999).for_each(|piece| output.push(piece));
        while output.wants_to_write() {
            let before = output.done();
            assert_eq!(output.flush(), Flushed::Some);
            assert!((1..=WRITE_MAX as u64).contains(&(output.done() - before)));
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
        assert_eq!((output.flush(), output.done()), (Flushed::Broken, 6));
        assert!(!output.wants_to_write());
        output.push(b"listens");
        assert_eq!(output.done(), 13);
    }

    fn labelled(writer: std::io::PipeWriter) -> Output<std::io::PipeWriter> {
        let name = "web".parse().unwrap();
        let mut output = Output::new(1, writer).labelled(Some(Label::new(3, &name)));
        output.app_started(2, 9);
        output.app_started(3, 42);
        output
    }

    #[test]
    fn labelled_lines_are_whole_and_each_byte_counts_once() {
        let (mut reader, writer) = pipe().unwrap();
        let mut output = labelled(writer);
        let flush = |output: &mut Output<_>| {
            while output.wants_to_write() {
                assert_eq!(output.flush(), Flushed::Some);
            }
        };
        output.push(b"one\ntw");
        flush(&mut output);
        output.push(b"o\n\n");
        output.push(&[b'x'; LINE_MAX + 1]);
        flush(&mut output);
        output.push(b"no end");
        output.end();
        flush(&mut output);
        assert_eq!(output.done(), 9 + LINE_MAX as u64 + 1 + 6);
        drop(output);
        let mut got = String::new();
        reader.read_to_string(&mut got).unwrap();
        let texts: Vec<_> = got.lines().map(|line| line.split_once("] web[42]: ").unwrap().1).collect();
        assert_eq!(texts, ["one", "two", "", &"x".repeat(LINE_MAX), "xno end"]);
        assert!(got.starts_with('['), "{got}");
    }

    #[test]
    fn a_labelled_reader_that_left_costs_every_byte_once() {
        let (reader, writer) = pipe().unwrap();
        let mut output = labelled(writer);
        drop(reader);
        output.push(b"nobody\nmore\n");
        assert_eq!((output.flush(), output.done()), (Flushed::Broken, 12));
        output.push(b"listens");
        assert_eq!(output.done(), 19);
    }
}

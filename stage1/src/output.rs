//! One of the user's output descriptors, fed from a channel.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use hull_pod::AppName;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::write;

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
}

/// What one write came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Flushed {
    /// So many bytes of the channel are done with.
    Bytes(usize),
    /// The reader is gone: these bytes and all that follow are dropped.
    Broken(usize),
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
        Self { channel, fd, queue: VecDeque::new(), lines: None, broken: false }
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
        let begun = self.lines.take().filter(|lines| !lines.piece.is_empty()).map_or(0, |lines| lines.raw);
        begun + std::mem::take(&mut self.queue).len()
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
            Ok(written) => Flushed::Bytes(self.advance(written)),
            Err(Errno::EAGAIN | Errno::EINTR) => Flushed::Bytes(0),
            Err(_) => Flushed::Broken(self.abandon()),
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
        let mut bytes = 0;
        let mut flush = |output: &mut Output<_>| {
            while output.wants_to_write() {
                let Flushed::Bytes(more) = output.flush() else { panic!("somebody reads") };
                bytes += more;
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
        assert_eq!(bytes, 9 + LINE_MAX + 1 + 6);
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
        assert_eq!(output.flush(), Flushed::Broken(12));
        assert_eq!(output.push(b"listens"), 7);
    }
}

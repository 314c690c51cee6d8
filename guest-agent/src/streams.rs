//! An app's standard streams: pipes or a terminal on one side, channels of the link on the other.

use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::io::{self, pipe};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use hull_agent_protocol::TerminalSize;
use hull_agent_protocol::frame::DATA_MAX;
use hull_agent_protocol::window::{Receiving, Sending};
use hull_agent_protocol::{FromAgent, StandardStreams, Violation};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{read, write};

use crate::link::Link;
use crate::sys;

/// The character that ends the input of a terminal in its default mode: Ctrl-D (termios(3), VEOF).
const END_OF_INPUT: u8 = 4;

/// The agent's side.
#[derive(Debug)]
pub(crate) struct Streams {
    pub(crate) input: Option<Input>,
    pub(crate) outputs: Vec<Output>,
}

/// The app's side.
#[derive(Debug)]
pub(crate) enum AppSide {
    /// Without an input the app reads `/dev/null`.
    Pipes { stdin: Option<OwnedFd>, stdout: OwnedFd, stderr: OwnedFd },
    /// This terminal of the app's own. It is open here so that it does not hang up between two users.
    Terminal { number: u32, _open: OwnedFd },
}

/// Bytes from the host to the app.
#[derive(Debug)]
pub(crate) struct Input {
    channel: u32,
    /// Gone once the app reads no more.
    fd: Option<OwnedFd>,
    terminal: bool,
    pending: VecDeque<u8>,
    window: Receiving,
}

/// Bytes from the app to the host.
#[derive(Debug)]
pub(crate) struct Output {
    channel: u32,
    /// Gone once the end was sent.
    fd: Option<OwnedFd>,
    window: Sending,
    waited_enough: bool,
}

impl Streams {
    /// Makes both sides. `terminals` is the directory of the app's own pseudo-terminals.
    pub(crate) fn connect(streams: StandardStreams, terminals: &str) -> io::Result<(Self, AppSide)> {
        match streams {
            StandardStreams::Pipes { stdin, stdout, stderr } => {
                let (input, stdin) = match stdin {
                    Some(channel) => {
                        let (reader, writer) = pipe()?;
                        (Some(Input::new(channel, writer.into(), false)?), Some(reader.into()))
                    }
                    None => (None, None),
                };
                let (out_reader, out_writer) = pipe()?;
                let (err_reader, err_writer) = pipe()?;
                let outputs =
                    vec![Output::new(stdout, out_reader.into())?, Output::new(stderr, err_reader.into())?];
                let side = AppSide::Pipes { stdin, stdout: out_writer.into(), stderr: err_writer.into() };
                Ok((Self { input, outputs }, side))
            }
            StandardStreams::Terminal { channel, size } => {
                let mut how = OpenOptions::new();
                how.read(true).write(true).custom_flags(libc::O_NOCTTY);
                let master: OwnedFd = how.open(format!("{terminals}/ptmx"))?.into();
                sys::unlock_terminal(master.as_fd())?;
                sys::set_window(master.as_fd(), size)?;
                let number = sys::terminal_number(master.as_fd())?;
                let open = how.open(format!("{terminals}/{number}"))?.into();
                let input = Input::new(channel, master.try_clone()?, true)?;
                let outputs = vec![Output::new(channel, master)?];
                Ok((Self { input: Some(input), outputs }, AppSide::Terminal { number, _open: open }))
            }
        }
    }

    pub(crate) fn have_ended(&self) -> bool {
        self.outputs.iter().all(|output| output.fd.is_none())
    }

    /// From now on an output that is empty has ended, whoever still holds its other end.
    pub(crate) fn stop_waiting(&mut self) {
        self.outputs.iter_mut().for_each(|output| output.waited_enough = true);
    }

    /// Sets the size of the terminal, if `channel` is one.
    pub(crate) fn resize(&self, channel: u32, size: TerminalSize) {
        let terminal = self.input.as_ref().filter(|input| input.terminal && input.channel == channel);
        if let Some(fd) = terminal.and_then(|input| input.fd.as_ref()) {
            let _ = sys::set_window(fd.as_fd(), size); // A terminal that is gone has no size.
        }
    }
}

impl Input {
    fn new(channel: u32, fd: OwnedFd, terminal: bool) -> io::Result<Self> {
        set_nonblocking(&fd)?;
        let (pending, window) = (VecDeque::new(), Receiving::default());
        Ok(Self { channel, fd: Some(fd), terminal, pending, window })
    }

    /// The descriptor to wait on before the next [`Self::pass_on`].
    pub(crate) fn wants_to_write(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().filter(|_| !self.pending.is_empty()).map(AsFd::as_fd)
    }

    /// Takes the payload of a data frame.
    pub(crate) fn take(&mut self, bytes: &[u8], link: &mut Link) -> Result<(), Violation> {
        self.window.receive(bytes.len())?;
        self.pending.extend(bytes);
        if bytes.is_empty() && self.terminal {
            self.pending.push_back(END_OF_INPUT);
        }
        self.pass_on(link);
        Ok(())
    }

    /// Writes what the app takes.
    pub(crate) fn pass_on(&mut self, link: &mut Link) {
        while let Some(fd) = self.fd.as_ref().filter(|_| !self.pending.is_empty()) {
            match write(fd, self.pending.as_slices().0) {
                Ok(written) => self.discard(written, link),
                Err(Errno::EAGAIN) => return,
                Err(Errno::EINTR) => (),
                Err(_) => self.fd = None,
            }
        }
        if self.fd.is_none() {
            self.discard(self.pending.len(), link);
        }
        if self.window.has_ended() && !self.terminal {
            self.fd = None;
        }
    }

    /// The app is gone.
    pub(crate) fn close(&mut self, link: &mut Link) {
        self.fd = None;
        self.discard(self.pending.len(), link);
    }

    fn discard(&mut self, len: usize, link: &mut Link) {
        self.pending.drain(..len);
        // The terminal's end of input was never received.
        let received = if self.window.has_ended() && self.terminal { 0 } else { len };
        if let Some(bytes) = self.window.consume(received) {
            link.say(&FromAgent::Credit { channel: self.channel, bytes });
        }
    }
}

impl Output {
    fn new(channel: u32, fd: OwnedFd) -> io::Result<Self> {
        set_nonblocking(&fd)?;
        Ok(Self { channel, fd: Some(fd), window: Sending::default(), waited_enough: false })
    }

    pub(crate) fn channel(&self) -> u32 {
        self.channel
    }

    pub(crate) fn credit(&mut self, bytes: u32) -> Result<(), Violation> {
        self.window.credit(bytes)
    }

    /// The descriptor to wait on before the next [`Self::relay`].
    pub(crate) fn wants_to_read(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().filter(|_| self.window.available() > 0).map(AsFd::as_fd)
    }

    /// Whether [`Self::relay`] is due without waiting.
    pub(crate) fn is_due(&self) -> bool {
        self.waited_enough && self.wants_to_read().is_some()
    }

    /// Reads once and sends it.
    pub(crate) fn relay(&mut self, link: &mut Link) {
        let Some(fd) = &self.fd else { return };
        let mut buffer = [0; DATA_MAX];
        let room = self.window.available().min(buffer.len());
        if room == 0 {
            return;
        }
        match read(fd, &mut buffer[..room]) {
            Ok(len @ 1..) => {
                self.window.spend(len);
                link.send(self.channel, &buffer[..len]);
            }
            Err(Errno::EINTR) => (),
            Err(Errno::EAGAIN) if !self.waited_enough => (),
            // The end of a pipe, or of a terminal (EIO).
            Ok(0) | Err(_) => {
                self.fd = None;
                link.send(self.channel, &[]);
            }
        }
    }
}

fn set_nonblocking(fd: &OwnedFd) -> io::Result<()> {
    let flags = OFlag::from_bits_truncate(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

//! The conversation with the agent: bytes and signals in, bytes and the apps' ends out.
//!
//! One poll(2) loop, no thread. What it does about a signal or a message is decided in small steps
//! below it; what the agent may say is decided by [`hull_agent_protocol::host::Host`].

use std::io::{ErrorKind, Read, Write, stderr, stdin, stdout};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use hull_agent_protocol::frame::{self, DATA_MAX};
use hull_agent_protocol::host::{Event, Host};
use hull_agent_protocol::message::Message;
use hull_agent_protocol::{Decoder, PodSpec, StandardStreams, ToAgent, Violation};
use hull_errors::Doing;
use hull_pod::Verdict;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::read;

use crate::output::{Flushed, Output};
use crate::record::Record;
use crate::{Error, Kind, Pod, Signals, terminal};

/// What an app gets between the signal that asks it to end and the one that makes it.
pub const GRACE: Duration = Duration::from_secs(10);

/// What the agent gets beyond the grace before its machine is taken away.
const OBEDIENCE: Duration = Duration::from_secs(5);

/// How long a machine may take from its start to the agent's first word. Generous: nested
/// virtualisation on a loaded host takes tens of seconds.
const BOOT_MAX: Duration = Duration::from_secs(120);

/// Most bytes that wait for the agent: a `Start` message, all windows' worth of input, and then some. Only an
/// agent that talks without listening lets more pile up.
const TO_AGENT_MAX: usize = 4 << 20;

/// Most reads from the agent before signals and outputs have their turn. More than a socket holds, so that
/// the last words of an agent that has gone are heard whole.
const READS_MAX: usize = 16;

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The agent said its last word.
    Finished,
    /// The link ended before that; the machine knows why.
    LinkLost,
    /// The agent said something that no honest agent says.
    Broken(Violation),
    /// The agent did not say hello in time.
    Silent,
    /// The user asked twice, or the agent did not obey: the machine is taken away with the apps in it.
    Abandoned,
}

/// A pod whose machine is up, or on its way up.
#[derive(Debug)]
pub struct Session {
    link: UnixStream,
    host: Host,
    decoder: Decoder,
    /// Bytes for the agent. Bounded by the windows and by how often a user can press a key.
    to_agent: Vec<u8>,
    input: Option<Input>,
    terminal: Option<u32>,
    outputs: Vec<Output<OwnedFd>>,
    record: Record,
    stop: Stop,
    deadline: Option<Instant>,
    broken_pipe_told: bool,
}

#[derive(Debug)]
struct Input {
    channel: u32,
    fd: OwnedFd,
}

/// How urgently the pod has been asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    No,
    Asked,
    Forced,
}

impl Session {
    /// Tells the agent at the other end of `link` to run `spec`.
    ///
    /// # Errors
    /// The spec is too long for a message, or the host's.
    pub fn start(pod: &Pod, spec: &PodSpec, link: UnixStream) -> Result<Self, Error> {
        link.set_nonblocking(true).doing(Kind::Host, || "make the agent's link non-blocking".into())?;
        let mut session = Self {
            link,
            host: Host::new(spec),
            decoder: Decoder::default(),
            to_agent: vec![],
            input: None,
            terminal: None,
            outputs: vec![],
            record: Record::new(pod),
            stop: Stop::No,
            deadline: Some(Instant::now() + BOOT_MAX),
            broken_pipe_told: false,
        };
        for app in &spec.apps {
            session.connect(app.streams).doing(Kind::Host, || "connect the standard streams".into())?;
        }
        session.say(&ToAgent::Start(spec.clone()))?;
        Ok(session)
    }

    fn connect(&mut self, streams: StandardStreams) -> std::io::Result<()> {
        let stdout = || stdout().as_fd().try_clone_to_owned();
        let (input, outputs) = match streams {
            StandardStreams::Pipes { stdin, stdout: out, stderr: err } => {
                let err = Output::new(err, stderr().as_fd().try_clone_to_owned()?);
                (stdin, vec![Output::new(out, stdout()?), err])
            }
            StandardStreams::Terminal { channel, .. } => {
                self.terminal = Some(channel);
                (Some(channel), vec![Output::new(channel, stdout()?)])
            }
        };
        self.outputs.extend(outputs);
        if let Some(channel) = input {
            self.input = Some(Input { channel, fd: stdin().as_fd().try_clone_to_owned()? });
        }
        Ok(())
    }

    /// Relays until the pod or its machine has ended.
    ///
    /// # Errors
    /// The host's.
    pub fn run(&mut self, signals: &Signals) -> Result<End, Error> {
        loop {
            if self.host.is_finished() {
                self.drain(signals)?;
                return Ok(End::Finished);
            }
            let ready = self.wait(signals)?;
            if let Some(end) = self.serve(signals, &ready)? {
                self.drain(signals)?;
                return Ok(end);
            }
        }
    }

    /// Writes down how the pod ended. `machine` is what the machine said where the agent did not finish.
    ///
    /// # Errors
    /// The host's.
    pub fn conclude(mut self, end: End, machine: impl FnOnce() -> String) -> Result<Verdict, Error> {
        match end {
            End::Finished => (),
            End::LinkLost => self.record.failed(machine()),
            End::Broken(why) => self.record.failed(format!("the agent broke the protocol: {why}")),
            End::Silent => self.record.failed(format!(
                "the machine did not come up within {} s; --debug shows what it was doing",
                BOOT_MAX.as_secs()
            )),
            End::Abandoned => self.record.killed(),
        }
        self.record.conclude()
    }

    fn wait(&self, signals: &Signals) -> Result<Ready, Error> {
        let mut fds = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        let link = match self.to_agent.is_empty() {
            true => PollFlags::POLLIN,
            false => PollFlags::POLLIN | PollFlags::POLLOUT,
        };
        fds.push(PollFd::new(self.link.as_fd(), link));
        let writers: Vec<usize> =
            (0..self.outputs.len()).filter(|index| self.outputs[*index].wants_to_write()).collect();
        fds.extend(writers.iter().map(|index| PollFd::new(self.outputs[*index].fd(), PollFlags::POLLOUT)));
        fds.extend(self.readable_input().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        let timeout = self.deadline.map_or(PollTimeout::NONE, |deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            // Rounded up, or the last millisecond would be spun away.
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => (),
            Err(why) => return Err(Error::because(Kind::Host, "wait for the pod", why)),
        }
        let hit = |index: usize| fds.get(index).is_some_and(|fd| fd.any().unwrap_or(false));
        Ok(Ready {
            signals: hit(0),
            link: hit(1),
            outputs: writers
                .iter()
                .enumerate()
                .filter(|(n, _)| hit(2 + n))
                .map(|(_, index)| *index)
                .collect(),
            input: hit(2 + writers.len()),
        })
    }

    fn readable_input(&self) -> Option<BorrowedFd<'_>> {
        let input = self.input.as_ref()?;
        (self.host.input_allowed(input.channel) > 0).then(|| input.fd.as_fd())
    }

    fn serve(&mut self, signals: &Signals, ready: &Ready) -> Result<Option<End>, Error> {
        if ready.signals {
            while let Some(signal) = signals.next() {
                self.on_signal(signal)?;
            }
        }
        if let Some(end) = self.overdue() {
            return Ok(Some(end));
        }
        for index in &ready.outputs {
            self.flush(*index)?;
        }
        if ready.input {
            self.read_input();
        }
        match self.talk(ready.link) {
            Ok(()) => Ok(None),
            Err(Trouble::End(end)) => Ok(Some(end)),
            Err(Trouble::Host(why)) => Err(why),
        }
    }

    fn overdue(&self) -> Option<End> {
        self.deadline.filter(|deadline| *deadline <= Instant::now())?;
        Some(if self.stop == Stop::No { End::Silent } else { End::Abandoned })
    }

    fn on_signal(&mut self, signal: Signal) -> Result<(), Error> {
        match (signal, self.stop, self.terminal) {
            (Signal::SIGINT | Signal::SIGTERM, Stop::No, _) => {
                self.stop = Stop::Asked;
                self.deadline = Some(Instant::now() + GRACE + OBEDIENCE);
                self.ask_to_stop(signal, GRACE)
            }
            (Signal::SIGINT | Signal::SIGTERM, Stop::Asked, _) => {
                self.stop = Stop::Forced;
                self.deadline = Some(Instant::now() + OBEDIENCE);
                self.ask_to_stop(Signal::SIGKILL, Duration::ZERO)
            }
            (Signal::SIGINT | Signal::SIGTERM, Stop::Forced, _) => {
                self.deadline = Some(Instant::now());
                Ok(())
            }
            (Signal::SIGWINCH, _, Some(channel)) => {
                self.say(&ToAgent::Resize { channel, size: terminal::size() })
            }
            // A size that nobody's terminal has is no news.
            (Signal::SIGWINCH, _, None) => Ok(()),
            (other, _, _) => self.say(&ToAgent::Signal { signal: other as i32 }),
        }
    }

    fn ask_to_stop(&mut self, signal: Signal, grace: Duration) -> Result<(), Error> {
        let grace_ms = u32::try_from(grace.as_millis()).expect("the grace is seconds");
        // SIGTERM is what the host's tools send to anything; the image may know a better one.
        let signal = (signal != Signal::SIGTERM).then_some(signal as i32);
        self.say(&ToAgent::Stop { signal, grace_ms })
    }

    fn say(&mut self, message: &ToAgent) -> Result<(), Error> {
        message.encode(&mut self.to_agent).doing(Kind::Host, || "tell the agent".into())
    }

    fn read_input(&mut self) {
        let Some(Input { channel, fd }) = &self.input else { return };
        let (channel, allowed) = (*channel, self.host.input_allowed(*channel).min(DATA_MAX));
        let mut buffer = [0; DATA_MAX];
        let count = match read(fd, &mut buffer[..allowed]) {
            Ok(count) => count,
            Err(Errno::EINTR | Errno::EAGAIN) => return,
            // A terminal that hung up, or that belongs to another job: nothing more will come.
            Err(_) => 0,
        };
        frame::encode(channel, &buffer[..count], &mut self.to_agent);
        self.host.input_sent(channel, count);
        if count == 0 {
            self.input = None;
        }
    }

    fn flush(&mut self, index: usize) -> Result<(), Error> {
        let output = &mut self.outputs[index];
        let (channel, flushed) = (output.channel, output.flush());
        match flushed {
            Flushed::Bytes(bytes) => self.consumed(channel, bytes),
            Flushed::Broken(bytes) => {
                self.consumed(channel, bytes)?;
                self.tell_broken_pipe()
            }
        }
    }

    /// What a writer without a reader gets everywhere else, the app gets too.
    fn tell_broken_pipe(&mut self) -> Result<(), Error> {
        if std::mem::replace(&mut self.broken_pipe_told, true) {
            return Ok(());
        }
        self.say(&ToAgent::Signal { signal: Signal::SIGPIPE as i32 })
    }

    fn consumed(&mut self, channel: u32, bytes: usize) -> Result<(), Error> {
        match self.host.consumed(channel, bytes) {
            Some(bytes) => self.say(&ToAgent::Credit { channel, bytes }),
            None => Ok(()),
        }
    }

    fn talk(&mut self, readable: bool) -> Result<(), Trouble> {
        if readable {
            self.listen()?;
        }
        // The agent may end the link while we still speak; what it said last is read first.
        while !self.to_agent.is_empty() {
            match self.link.write(&self.to_agent) {
                Ok(written) => drop(self.to_agent.drain(..written)),
                Err(why) if why.kind() == ErrorKind::WouldBlock => break,
                Err(why) if why.kind() == ErrorKind::Interrupted => (),
                Err(_) => {
                    self.to_agent.clear();
                    self.listen()?;
                    return match self.host.is_finished() {
                        true => Ok(()),
                        false => Err(Trouble::End(End::LinkLost)),
                    };
                }
            }
        }
        if self.to_agent.len() > TO_AGENT_MAX {
            return Err(Violation("the agent talks and does not listen".into()).into());
        }
        Ok(())
    }

    fn listen(&mut self) -> Result<(), Trouble> {
        let mut buffer = [0; 2 * DATA_MAX];
        for _ in 0..READS_MAX {
            if self.host.is_finished() {
                break;
            }
            match self.link.read(&mut buffer) {
                Ok(0) => return Err(Trouble::End(End::LinkLost)),
                Ok(count) => self.hear(&buffer[..count])?,
                Err(why) if why.kind() == ErrorKind::WouldBlock => break,
                Err(why) if why.kind() == ErrorKind::Interrupted => (),
                Err(_) => return Err(Trouble::End(End::LinkLost)),
            }
        }
        Ok(())
    }

    fn hear(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        self.decoder.push(bytes);
        while let Some(frame) = self.decoder.next_frame()? {
            if let Some(event) = self.host.receive(frame)? {
                self.on_event(event)?;
            }
        }
        if self.host.has_greeted() && self.stop == Stop::No {
            self.deadline = None;
        }
        Ok(())
    }

    fn on_event(&mut self, event: Event) -> Result<(), Error> {
        match event {
            Event::Started { app } => self.record.started(app),
            Event::Output { channel, bytes } => {
                let output = self.outputs.iter_mut().find(|output| output.channel == channel);
                let dropped = output.map_or(bytes.len(), |output| output.push(&bytes));
                self.consumed(channel, dropped)
            }
            Event::Exited { app, outcome } => {
                self.record.exited(app, outcome);
                Ok(())
            }
            Event::Failed { text, .. } => {
                self.record.failed(text);
                Ok(())
            }
            Event::OutputEnded { .. } | Event::InputAllowed { .. } | Event::Finished => Ok(()),
        }
    }

    /// Passes on what the pod wrote last. A user who does not want to wait for a slow reader says so with
    /// a signal.
    fn drain(&mut self, signals: &Signals) -> Result<(), Error> {
        self.input = None;
        self.deadline = None;
        self.to_agent.clear();
        while self.outputs.iter().any(Output::wants_to_write) {
            let mut fds = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
            let writers = self.outputs.iter().filter(|output| output.wants_to_write());
            fds.extend(writers.map(|output| PollFd::new(output.fd(), PollFlags::POLLOUT)));
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => (),
                Err(why) => return Err(Error::because(Kind::Host, "write the pod's last output", why)),
            }
            let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect();
            if ready[0] && matches!(signals.next(), Some(Signal::SIGINT | Signal::SIGTERM)) {
                return Ok(());
            }
            let writers = self.outputs.iter_mut().filter(|output| output.wants_to_write());
            let writable = writers.zip(&ready[1..]).filter(|(_, ready)| **ready);
            for (output, _) in writable {
                output.flush();
            }
        }
        Ok(())
    }
}

struct Ready {
    signals: bool,
    link: bool,
    outputs: Vec<usize>,
    input: bool,
}

/// Why the loop leaves in the middle.
enum Trouble {
    End(End),
    Host(Error),
}

impl From<Violation> for Trouble {
    fn from(why: Violation) -> Self {
        Self::End(End::Broken(why))
    }
}

impl From<Error> for Trouble {
    fn from(why: Error) -> Self {
        Self::Host(why)
    }
}

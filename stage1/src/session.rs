//! The conversation with the agent: bytes and signals in, bytes and the apps' ends out.
//!
//! One poll(2) loop, no thread. What it does about a signal is in [`stop`], about a client of the pod's control
//! socket in [`exec`], about a message of the agent's in [`talk`]; what the agent may say is decided by
//! [`hull_agent_protocol::host::Host`].

mod attach;
mod exec;
mod stop;
mod talk;

use std::collections::BTreeMap;
use std::io::{stderr, stdin, stdout};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hull_agent_protocol::frame::{self, DATA_MAX};
use hull_agent_protocol::host::Host;
use hull_agent_protocol::message::Message;
use hull_agent_protocol::{Decoder, PROCESS_CHANNEL_FIRST, PodSpec, StandardStreams, ToAgent, Violation};
use hull_errors::Doing;
use hull_pod::streams::{self, Output as Mode, Streams};
use hull_pod::{Contract, Verdict};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::read;

use self::attach::Attached;
use self::exec::Processes;
use self::stop::Stop;
use self::talk::Trouble;
use crate::control::{ClientId, Control};
use crate::log::Log;
use crate::notify::Manager;
use crate::output::{Flushed, Label, Output};
use crate::record::Record;
use crate::signer::Signer;
use crate::{Error, Kind, Pod, Signals};

/// How long a machine may take from its start to the agent's first word. Generous: nested
/// virtualisation on a loaded host takes tens of seconds.
const BOOT_MAX: Duration = Duration::from_secs(120);

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
    inputs: Vec<Input>,
    terminal: Option<u32>,
    outputs: Vec<Output<OwnedFd>>,
    apps: Vec<AppStreams>,
    logs: Vec<Log>,
    record: Record,
    control: Control,
    signer: Option<Signer>,
    processes: Processes,
    attached: Vec<Attached>,
    flows: BTreeMap<u32, Flow>,
    /// Clients that want to hear when every app runs.
    awaiting_start: Vec<ClientId>,
    manager: Rc<Manager>,
    readiness_told: bool,
    stop: Stop,
    deadline: Option<Instant>,
    broken_pipe_told: bool,
}

#[derive(Debug)]
struct Input {
    channel: u32,
    fd: OwnedFd,
    /// Whose end is not the channel's: others may attach to it.
    viewer: Option<ClientId>,
}

/// How an app is connected.
#[derive(Clone, Copy, Debug)]
struct AppStreams {
    streams: StandardStreams,
    modes: Streams,
}

/// What has come on a channel. Those who read it do so at their own pace.
#[derive(Debug, Default)]
struct Flow {
    received: u64,
    credited: u64,
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
            inputs: vec![],
            terminal: None,
            outputs: vec![],
            apps: vec![],
            logs: vec![],
            record: Record::new(pod),
            control: Control::listen(pod)?,
            signer: Signer::of(pod)?,
            processes: Processes::default(),
            attached: vec![],
            flows: BTreeMap::new(),
            awaiting_start: vec![],
            manager: Rc::clone(&pod.manager),
            readiness_told: false,
            stop: Stop::No,
            deadline: Some(Instant::now() + BOOT_MAX),
            broken_pipe_told: false,
        };
        for (index, (app, named)) in (0..).zip(spec.apps.iter().zip(&pod.manifest.apps)) {
            let modes = Streams::of(named).doing(Kind::Contract, || format!("connect app {}", named.name))?;
            session.apps.push(AppStreams { streams: app.streams, modes });
            session.logs.extend(Log::begin(pod, &named.name, app.streams, modes)?);
            let label = (spec.apps.len() > 1).then(|| Label::new(index, &named.name));
            session
                .connect(app.streams, modes, &pod.contract, label)
                .doing(Kind::Host, || "connect the standard streams".into())?;
        }
        session.say(&ToAgent::Start(spec.clone()))?;
        Ok(session)
    }

    /// With a label, for who sees several apps at once.
    fn connect(
        &mut self,
        streams: StandardStreams,
        modes: Streams,
        contract: &Contract,
        label: Option<Label>,
    ) -> std::io::Result<()> {
        let input = match streams {
            StandardStreams::Pipes { stdin, stdout: out, stderr: err } => {
                if modes.stdout == Mode::Log && !contract.detached {
                    let fd = stdout().as_fd().try_clone_to_owned()?;
                    self.outputs.push(Output::new(out, fd).labelled(label.clone()));
                }
                if modes.stderr == Mode::Log && !contract.detached {
                    let fd = stderr().as_fd().try_clone_to_owned()?;
                    self.outputs.push(Output::new(err, fd).labelled(label));
                }
                stdin.filter(|_| modes.stdin == streams::Input::Usual)
            }
            // One that is not the user's waits for somebody to attach.
            StandardStreams::Terminal { .. } if !contract.interactive => None,
            StandardStreams::Terminal { channel, .. } => {
                self.terminal = Some(channel);
                self.outputs.push(Output::new(channel, stdout().as_fd().try_clone_to_owned()?));
                Some(channel)
            }
        };
        if let Some(channel) = input {
            self.inputs.push(Input { channel, fd: stdin().as_fd().try_clone_to_owned()?, viewer: None });
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
        let allowed = |index: &usize| self.host.input_allowed(self.inputs[*index].channel) > 0;
        let readers: Vec<usize> = (0..self.inputs.len()).filter(allowed).collect();
        fds.extend(
            readers.iter().map(|index| PollFd::new(self.inputs[*index].fd.as_fd(), PollFlags::POLLIN)),
        );
        fds.extend(self.control.polled().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        let patience = self.outputs.iter().filter_map(Output::patience_ends);
        let timeout = patience.chain(self.deadline).min().map_or(PollTimeout::NONE, |deadline| {
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
            inputs: readers
                .iter()
                .enumerate()
                .filter(|(n, _)| hit(2 + writers.len() + n))
                .map(|(_, index)| *index)
                .collect(),
            control: (2 + writers.len() + readers.len()..fds.len())
                .enumerate()
                .filter(|(_, index)| hit(*index))
                .map(|(place, _)| place)
                .collect(),
        })
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
        // From the last on: one that has ended is removed.
        for index in ready.inputs.iter().rev() {
            self.read_input(*index)?;
        }
        self.serve_control(&ready.control)?;
        self.drop_slow_viewers()?;
        match self.talk(ready.link) {
            Ok(()) => Ok(None),
            Err(Trouble::End(end)) => Ok(Some(end)),
            Err(Trouble::Host(why)) => Err(why),
        }
    }

    fn say(&mut self, message: &ToAgent) -> Result<(), Error> {
        message.encode(&mut self.to_agent).doing(Kind::Host, || "tell the agent".into())
    }

    fn read_input(&mut self, index: usize) -> Result<(), Error> {
        let Input { channel, fd, viewer } = &self.inputs[index];
        let (channel, viewer) = (*channel, *viewer);
        let allowed = self.host.input_allowed(channel).min(DATA_MAX);
        if allowed == 0 {
            return Ok(()); // Another has used it up.
        }
        let mut buffer = [0; DATA_MAX];
        let count = match read(fd, &mut buffer[..allowed]) {
            Ok(count) => count,
            Err(Errno::EINTR | Errno::EAGAIN) => return Ok(()),
            // A terminal that hung up, or that belongs to another job: nothing more will come.
            Err(_) => 0,
        };
        if count == 0 {
            self.inputs.remove(index);
            if let Some(client) = viewer {
                return self.input_ended(client);
            }
        }
        frame::encode(channel, &buffer[..count], &mut self.to_agent);
        self.host.input_sent(channel, count);
        Ok(())
    }

    fn flush(&mut self, index: usize) -> Result<(), Error> {
        let output = &mut self.outputs[index];
        let (channel, is_viewers, flushed) = (output.channel, output.viewer.is_some(), output.flush());
        self.settle(channel)?;
        match flushed {
            Flushed::Broken if !is_viewers => self.tell_broken_pipe(channel),
            _ => Ok(()),
        }
    }

    /// What a writer without a reader gets everywhere else, the app gets too.
    fn tell_broken_pipe(&mut self, channel: u32) -> Result<(), Error> {
        if channel >= PROCESS_CHANNEL_FIRST {
            return self.signal_process_of(channel, Signal::SIGPIPE as i32);
        }
        if std::mem::replace(&mut self.broken_pipe_told, true) {
            return Ok(());
        }
        self.say(&ToAgent::Signal { signal: Signal::SIGPIPE as i32 })
    }

    /// Lets the agent send more of a channel once everybody is done with what it has sent.
    fn settle(&mut self, channel: u32) -> Result<(), Error> {
        let Some(flow) = self.flows.get_mut(&channel) else { return Ok(()) };
        let readers = self.outputs.iter().filter(|output| output.channel == channel);
        let done = readers.map(Output::done).min().unwrap_or(flow.received);
        let bytes = usize::try_from(done - flow.credited).expect("no more than a window");
        flow.credited = done;
        match self.host.consumed(channel, bytes) {
            Some(bytes) => self.say(&ToAgent::Credit { channel, bytes }),
            None => Ok(()),
        }
    }

    /// Passes on what the pod wrote last. A user who does not want to wait for a slow reader says so with
    /// a signal.
    fn drain(&mut self, signals: &Signals) -> Result<(), Error> {
        self.inputs.clear();
        self.deadline = None;
        self.to_agent.clear();
        self.end_processes();
        self.outputs.iter_mut().for_each(Output::end);
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
    inputs: Vec<usize>,
    /// Places of [`Control::polled`].
    control: Vec<usize>,
}

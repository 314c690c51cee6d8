//! Clients that attach to the streams of apps: any number of viewers, none of which holds an app up for long.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use hull_agent_protocol::Outcome;
use hull_pod::AppName;
use hull_pod::control::Answer;
use hull_pod::streams::Streams;
use nix::fcntl::OFlag;
use nix::sys::signal::Signal;

use super::exec::own;
use super::{Input, Session};
use crate::control::ClientId;
use crate::output::{Output, PATIENCE};
use crate::{Error, sys};

/// Most clients that are attached at a time.
const ATTACHED_MAX: usize = 32;

/// A client and the app it is attached to.
#[derive(Debug)]
pub(super) struct Attached {
    client: ClientId,
    app: u16,
    /// Whose size counts, and the channel of the app's terminal.
    terminal: Option<(u32, OwnedFd)>,
    /// Told to the client once all output was written.
    outcome: Option<Outcome>,
}

/// What a client wants to be connected to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    pub(super) stdin: bool,
    pub(super) stdout: bool,
    pub(super) stderr: bool,
    pub(super) terminal: bool,
}

impl Wish {
    /// By rkt's names.
    fn names(self) -> impl Iterator<Item = &'static str> {
        let names = match self.terminal {
            true => [("tty-in", self.stdin), ("tty-out", self.stdout), ("stderr", self.stderr)],
            false => [("stdin", self.stdin), ("stdout", self.stdout), ("stderr", self.stderr)],
        };
        names.into_iter().filter_map(|(name, wanted)| wanted.then_some(name))
    }
}

impl Session {
    pub(super) fn endpoints(&self, app: Option<&AppName>) -> Answer {
        match self.record.find(app).and_then(|app| self.modes(app)) {
            Ok(modes) => {
                Answer::Endpoints { names: modes.endpoints().into_iter().map(String::from).collect() }
            }
            Err(text) => Answer::Refused { text },
        }
    }

    fn modes(&self, app: u16) -> Result<Streams, String> {
        let found = self.apps.get(usize::from(app)).ok_or("the pod has no such app")?;
        Ok(found.modes)
    }

    pub(super) fn attach(
        &mut self,
        client: ClientId,
        app: Option<&AppName>,
        wish: Wish,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), String> {
        let app = self.record.find(app)?;
        let there = self.modes(app)?.endpoints();
        if let Some(missing) = wish.names().find(|name| !there.contains(name)) {
            let there = if there.is_empty() { "nothing".into() } else { there.join(", ") };
            return Err(format!(
                "the app has no {missing} to attach to, but {there}; --stdin, --stdout and --stderr of run decide that"
            ));
        }
        if self.record.has_ended(app) {
            return Err("the app has ended".into());
        }
        if self.attached.len() >= ATTACHED_MAX || self.attached.iter().any(|other| other.client == client) {
            return Err(format!(
                "once for each connection, and at most {ATTACHED_MAX} are attached at a time"
            ));
        }
        let mut descriptors = descriptors;
        let size_of = if wish.terminal { descriptors.pop() } else { None };
        let Ok([stdin, stdout, stderr]) = <[OwnedFd; 3]>::try_from(descriptors) else {
            return Err("not the right descriptors came with the request".into());
        };
        let streams = self.apps[usize::from(app)].streams;
        if let Some(channel) = streams.input().filter(|_| wish.stdin) {
            self.inputs.push(Input { channel, fd: own(stdin, OFlag::O_RDONLY), viewer: Some(client) });
        }
        let outputs = streams.outputs().zip([(stdout, wish.stdout), (stderr, wish.stderr)]);
        for (channel, (fd, _)) in outputs.filter(|(_, (_, wanted))| *wanted) {
            let received = self.flows.get(&channel).map_or(0, |flow| flow.received);
            let output = Output::new(channel, own(fd, OFlag::O_WRONLY)).for_viewer(client, received);
            self.outputs.push(output);
        }
        self.control.keep(client);
        // Who is at no terminal has no size to say.
        let size_of = size_of.filter(|fd| sys::window_size(fd.as_fd()).is_some());
        let terminal = streams.input().zip(size_of);
        self.attached.push(Attached { client, app, terminal, outcome: None });
        Ok(())
    }

    pub(super) fn attached_terminal(&self, client: ClientId) -> Option<(u32, &OwnedFd)> {
        let found = self.attached.iter().find(|attached| attached.client == client)?;
        found.terminal.as_ref().map(|(channel, fd)| (*channel, fd))
    }

    /// A client has nothing more to say to the app, and is done where it listens to nothing.
    pub(super) fn input_ended(&mut self, client: ClientId) -> Result<(), Error> {
        let mut viewers = self.outputs.iter().filter_map(|output| output.viewer.as_ref());
        if viewers.any(|viewer| viewer.client == client) {
            return Ok(());
        }
        self.detach(client)?;
        self.control.answer_last(client, &Answer::Done);
        Ok(())
    }

    /// A client has gone, or is to go.
    pub(super) fn detach(&mut self, client: ClientId) -> Result<(), Error> {
        self.attached.retain(|attached| attached.client != client);
        self.inputs.retain(|input| input.viewer != Some(client));
        let is_its = |output: &Output<OwnedFd>| output.viewer.as_ref().is_some_and(|of| of.client == client);
        let channels: Vec<u32> = self.outputs.iter().filter(|o| is_its(o)).map(|o| o.channel).collect();
        self.outputs.retain(|output| !is_its(output));
        channels.into_iter().try_for_each(|channel| self.settle(channel))
    }

    /// Lets go of viewers that are gone, or that hold an app up.
    pub(super) fn drop_slow_viewers(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        let slow = |output: &Output<OwnedFd>| output.patience_ends().is_some_and(|end| end <= now);
        let done_with = self.outputs.iter().filter(|output| slow(output) || output.is_broken());
        let clients: Vec<_> = done_with
            .filter_map(|output| Some((output.viewer.as_ref()?.client, output.is_broken())))
            .collect();
        for (client, is_broken) in clients {
            self.detach(client)?;
            if !is_broken {
                let seconds = PATIENCE.as_secs();
                let text = format!("detached: what the app writes was not taken for {seconds} s");
                self.control.answer_last(client, &Answer::Refused { text });
            }
        }
        Ok(())
    }

    pub(super) fn app_ended(&mut self, app: u16, outcome: Outcome) {
        let attached = self.attached.iter_mut().filter(|attached| attached.app == app);
        attached.for_each(|attached| attached.outcome = Some(outcome));
        self.answer_attached();
    }

    /// Tells clients of apps that have ended, once every byte was written.
    pub(super) fn answer_attached(&mut self) {
        let writes = |client: ClientId| {
            let mut outputs = self.outputs.iter().filter(|output| output.wants_to_write());
            outputs.any(|output| output.viewer.as_ref().is_some_and(|of| of.client == client))
        };
        let ended = self.attached.iter().filter(|attached| !writes(attached.client));
        let ended: Vec<_> = ended.filter_map(|attached| Some((attached.client, attached.outcome?))).collect();
        for (client, outcome) in ended {
            let _ = self.detach(client); // Nothing is owed to an app that has ended.
            self.control.answer_last(client, &Answer::Exited { outcome });
        }
    }

    /// The pod has ended.
    pub(super) fn end_attached(&mut self) {
        for attached in std::mem::take(&mut self.attached) {
            let outcome = attached.outcome.unwrap_or(Outcome::Signal(Signal::SIGKILL as u8));
            self.control.answer_last(attached.client, &Answer::Exited { outcome });
        }
    }
}

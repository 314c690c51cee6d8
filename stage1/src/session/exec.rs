//! What the clients of the control socket ask for, above all processes that join an app.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use hull_agent_protocol::message::PROCESSES_MAX;
use hull_agent_protocol::{Outcome, PROCESS_CHANNEL_FIRST, StandardStreams, ToAgent};
use hull_pod::AppName;
use hull_pod::control::{Answer, Request};
use nix::fcntl::{OFlag, open};
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, SFlag, fstat};

use super::attach::Wish;
use super::{Input, Session};
use crate::control::{ClientId, Heard};
use crate::output::{Flushed, Output};
use crate::{Error, terminal};

/// Most words of a command line; a shell that expands `*` comes near.
const WORDS_MAX: usize = 16_384;

/// The processes that clients have asked for.
#[derive(Debug, Default)]
pub(super) struct Processes {
    all: Vec<Process>,
    next: u32,
}

/// What a process is to do.
enum What {
    Program { exec: Vec<String>, terminal: bool },
    Files,
}

#[derive(Debug)]
struct Process {
    number: u32,
    client: ClientId,
    streams: StandardStreams,
    /// Whose size counts.
    terminal: Option<OwnedFd>,
    /// Told to the client once all output was written.
    outcome: Option<Outcome>,
}

impl Session {
    /// Does what clients ask for, at these places of the control's.
    pub(super) fn serve_control(&mut self, places: &[usize]) -> Result<(), Error> {
        let clients: Vec<_> = places.iter().filter_map(|place| self.control.client_at(*place)).collect();
        for client in clients {
            match self.control.hear(client) {
                Heard::Request(request, descriptors) => self.obey(client, request, descriptors)?,
                Heard::Gone => self.client_gone(client)?,
                Heard::Nothing => (),
            }
        }
        if places.contains(&0) {
            self.control.accept();
        }
        self.answer_ended();
        Ok(())
    }

    fn obey(&mut self, client: ClientId, request: Request, descriptors: Vec<OwnedFd>) -> Result<(), Error> {
        match request {
            Request::Stop { force, grace_ms } => {
                self.stop(force, Duration::from_millis(grace_ms.into()))?;
                self.control.answer(client, &Answer::Done);
                Ok(())
            }
            Request::Exec { app, exec, terminal } => {
                let what = What::Program { exec, terminal };
                let asked = self.exec(client, app.as_ref(), what, descriptors);
                self.say_or_refuse(client, asked)
            }
            Request::Export { app } => {
                let asked = self.exec(client, app.as_ref(), What::Files, descriptors);
                self.say_or_refuse(client, asked)
            }
            Request::Endpoints { app } => {
                let answer = self.endpoints(app.as_ref());
                self.control.answer(client, &answer);
                Ok(())
            }
            Request::Attach { app, stdin, stdout, stderr, terminal } => {
                let wish = Wish { stdin, stdout, stderr, terminal };
                let answer = match self.attach(client, app.as_ref(), wish, descriptors) {
                    Ok(()) => Answer::Started,
                    Err(text) => Answer::Refused { text },
                };
                self.control.answer(client, &answer);
                self.resize(client)
            }
            Request::AwaitStart => {
                self.control.keep(client);
                self.awaiting_start.push(client);
                self.tell_started();
                Ok(())
            }
            Request::Signal { signal } => match Signal::try_from(signal) {
                Ok(_) => self.signal_processes(|process| process.client == client, signal),
                Err(_) => Ok(()), // A signal of another system has no process here.
            },
            Request::Resize => self.resize(client),
        }
    }

    /// Tells those who wait for it that every app runs, if so.
    pub(super) fn tell_started(&mut self) {
        if self.record.has_started() {
            if !std::mem::replace(&mut self.readiness_told, true) {
                self.manager.tell("READY=1");
            }
            for client in std::mem::take(&mut self.awaiting_start) {
                self.control.answer_last(client, &Answer::Started);
            }
        }
    }

    /// Prepares for a process; gives what is to be said to the agent, or why not.
    fn exec(
        &mut self,
        client: ClientId,
        app: Option<&AppName>,
        what: What,
        descriptors: Vec<OwnedFd>,
    ) -> Result<ToAgent, String> {
        let terminal = match &what {
            What::Program { exec, .. } if exec.is_empty() || exec.len() > WORDS_MAX => {
                return Err(format!("a command of {} words; 1 to {WORDS_MAX} are possible", exec.len()));
            }
            What::Program { terminal, .. } => *terminal,
            What::Files => false,
        };
        if self.processes.all.iter().any(|process| process.client == client) {
            return Err("one process for each connection".into());
        }
        let app = self.record.find(app)?;
        if !self.host.is_running(app) {
            return Err("the app does not run; hull status shows how it is".into());
        }
        let mut descriptors = descriptors;
        let size_of = if terminal { descriptors.pop() } else { None };
        let Ok([stdin, stdout, stderr]) = <[OwnedFd; 3]>::try_from(descriptors) else {
            return Err("not the right descriptors came with the request".into());
        };
        let (number, first) = self.processes.numbers()?;
        let streams = match &size_of {
            Some(terminal) => {
                StandardStreams::Terminal { channel: first, size: terminal::size_of(terminal.as_fd()) }
            }
            None => StandardStreams::Pipes { stdin: Some(first), stdout: first + 1, stderr: first + 2 },
        };
        if !self.host.exec(number, streams) {
            return Err(format!("the pod has {PROCESSES_MAX} such processes already"));
        }
        self.inputs.push(Input { channel: first, fd: own(stdin, OFlag::O_RDONLY), viewer: None });
        let outputs = streams.outputs().zip([stdout, stderr]);
        self.outputs.extend(outputs.map(|(channel, fd)| Output::new(channel, own(fd, OFlag::O_WRONLY))));
        self.control.keep(client);
        self.processes.all.push(Process { number, client, streams, terminal: size_of, outcome: None });
        Ok(match what {
            What::Program { exec, .. } => ToAgent::Exec { process: number, app, exec, streams },
            What::Files => ToAgent::Export { process: number, app, streams },
        })
    }

    fn say_or_refuse(&mut self, client: ClientId, asked: Result<ToAgent, String>) -> Result<(), Error> {
        match asked {
            Ok(message) => self.say(&message),
            Err(text) => {
                self.control.answer(client, &Answer::Refused { text });
                Ok(())
            }
        }
    }

    fn resize(&mut self, client: ClientId) -> Result<(), Error> {
        let found = self.processes.all.iter().find(|process| process.client == client);
        let sized = found.and_then(|process| Some((process.streams.input()?, process.terminal.as_ref()?)));
        let sized = sized.or_else(|| self.attached_terminal(client));
        let Some((channel, terminal)) = sized else { return Ok(()) };
        let size = terminal::size_of(terminal.as_fd());
        self.say(&ToAgent::Resize { channel, size })
    }

    /// A process does not outlive whoever asked for it.
    fn client_gone(&mut self, client: ClientId) -> Result<(), Error> {
        self.signal_processes(|process| process.client == client, Signal::SIGKILL as i32)?;
        let gone = self.processes.all.iter().filter(|process| process.client == client);
        let channels: Vec<u32> = gone.flat_map(|process| process.streams.outputs()).collect();
        self.outputs.iter_mut().filter(|output| channels.contains(&output.channel)).for_each(Output::abandon);
        channels.into_iter().try_for_each(|channel| self.settle(channel))?;
        self.detach(client)
    }

    /// To the process that writes to this channel.
    pub(super) fn signal_process_of(&mut self, channel: u32, signal: i32) -> Result<(), Error> {
        self.signal_processes(|process| process.streams.outputs().any(|own| own == channel), signal)
    }

    fn signal_processes(&mut self, which: impl Fn(&Process) -> bool, signal: i32) -> Result<(), Error> {
        let processes =
            self.processes.all.iter().filter(|process| which(process) && process.outcome.is_none());
        let numbers: Vec<u32> = processes.map(|process| process.number).collect();
        numbers.into_iter().try_for_each(|process| self.say(&ToAgent::SignalProcess { process, signal }))
    }

    pub(super) fn process_started(&mut self, number: u32) {
        if let Some(process) = self.processes.all.iter().find(|process| process.number == number) {
            self.control.answer(process.client, &Answer::Started);
        }
    }

    pub(super) fn process_failed(&mut self, number: u32, text: String) {
        let Some(place) = self.processes.all.iter().position(|process| process.number == number) else {
            return;
        };
        let process = self.processes.all.remove(place);
        self.disconnect(process.streams);
        self.control.answer_last(process.client, &Answer::Refused { text });
    }

    pub(super) fn process_exited(&mut self, number: u32, outcome: Outcome) {
        let Some(process) = self.processes.all.iter_mut().find(|process| process.number == number) else {
            return;
        };
        process.outcome = Some(outcome);
        let input = process.streams.input();
        self.inputs.retain(|own| Some(own.channel) != input);
        self.answer_ended();
    }

    /// Tells clients of processes that have ended, once every byte was written.
    fn answer_ended(&mut self) {
        let writing = |streams: StandardStreams| {
            let mut outputs = self.outputs.iter().filter(|output| output.wants_to_write());
            outputs.any(|output| streams.outputs().any(|own| own == output.channel))
        };
        let ended = |process: &Process| process.outcome.is_some() && !writing(process.streams);
        let places: Vec<usize> =
            (0..self.processes.all.len()).rev().filter(|n| ended(&self.processes.all[*n])).collect();
        for place in places {
            let process = self.processes.all.remove(place);
            self.disconnect(process.streams);
            if let Some(outcome) = process.outcome {
                self.control.answer_last(process.client, &Answer::Exited { outcome });
            }
        }
        self.answer_attached();
    }

    fn disconnect(&mut self, streams: StandardStreams) {
        self.inputs.retain(|input| Some(input.channel) != streams.input());
        self.outputs.retain(|output| streams.outputs().all(|own| own != output.channel));
        self.flows.retain(|channel, _| streams.outputs().all(|own| own != *channel));
    }

    /// The pod has ended, and every process in it. Its end does not wait for the readers of their output.
    pub(super) fn end_processes(&mut self) {
        let of_client =
            |output: &Output<OwnedFd>| output.channel >= PROCESS_CHANNEL_FIRST || output.viewer.is_some();
        for output in self.outputs.iter_mut().filter(|output| of_client(output)) {
            while output.wants_to_write() && output.is_writable() && output.flush() == Flushed::Some {}
        }
        self.outputs.retain(|output| !of_client(output));
        self.end_attached();
        for process in std::mem::take(&mut self.processes.all) {
            let outcome = process.outcome.unwrap_or(Outcome::Signal(Signal::SIGKILL as u8));
            self.control.answer_last(process.client, &Answer::Exited { outcome });
        }
    }
}

impl Processes {
    /// A new number, and the first of three new channels.
    fn numbers(&mut self) -> Result<(u32, u32), String> {
        let number = self.next;
        let first = number.checked_mul(3).and_then(|n| n.checked_add(PROCESS_CHANNEL_FIRST));
        let last = first.and_then(|first| first.checked_add(2));
        let (Some(first), Some(_)) = (first, last) else {
            return Err("this pod has had all the processes it can have; start it anew".into());
        };
        self.next += 1;
        Ok((number, first))
    }
}

/// An open file of our own for what a client has handed over: others who use it can then not make us wait.
/// What cannot be opened anew, a socket, is used as it is.
pub(super) fn own(fd: OwnedFd, access: OFlag) -> OwnedFd {
    let flags = access | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let kind = fstat(&fd).map(|stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT);
    match kind {
        // A file that was opened to be appended to has a place that a second opening would not share.
        Ok(SFlag::S_IFIFO | SFlag::S_IFCHR) => {
            open(format!("/proc/self/fd/{}", fd.as_raw_fd()).as_str(), flags, Mode::empty()).unwrap_or(fd)
        }
        _ => fd,
    }
}

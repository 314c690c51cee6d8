//! Processes that join an app which runs: `hull exec` and `hull enter`. Each has streams of its own and is
//! else no better off than the app: it goes through the same steps to its program ([`crate::launch`]).

use std::os::fd::{AsFd, BorrowedFd};

use hull_agent_protocol::{FromAgent, Outcome, StandardStreams, TerminalSize, Violation};
use nix::poll::PollFlags;
use nix::unistd::Pid;

use crate::launch::{Launched, Report, Word};
use crate::link::Link;
use crate::streams::Streams;
use crate::sys;

/// What was asked for.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) process: u32,
    pub(crate) app: u16,
    /// `None`: its files are wanted.
    pub(crate) exec: Option<&'a [String]>,
    pub(crate) streams: StandardStreams,
}

#[derive(Debug)]
struct Process {
    id: u32,
    app: usize,
    channels: StandardStreams,
    streams: Streams,
    /// Until it was reaped.
    main: Option<Pid>,
    /// Until the program runs.
    report: Option<Report>,
    outcome: Option<Outcome>,
    failed: bool,
}

/// Those that have not ended. The host sees to it that they are few: `PROCESSES_MAX` of the protocol.
#[derive(Debug, Default)]
pub(crate) struct Processes(Vec<Process>);

impl Processes {
    pub(crate) fn refuse(&self, request: &Request<'_>, why: &str, link: &mut Link) {
        link.say(&FromAgent::ProcessFailed { process: request.process, text: why.into() });
    }

    /// Takes care of a process that was launched.
    pub(crate) fn add(&mut self, request: &Request<'_>, streams: Streams, launched: Launched) {
        self.0.push(Process {
            id: request.process,
            app: request.app.into(),
            channels: request.streams,
            streams,
            main: Some(launched.pid),
            report: Some(launched.report),
            outcome: None,
            failed: false,
        });
    }

    /// What to wait for, by the number that [`Self::serve`] takes.
    pub(crate) fn polled(
        &self,
        link_has_room: bool,
    ) -> impl Iterator<Item = (usize, BorrowedFd<'_>, PollFlags)> {
        self.0.iter().enumerate().flat_map(move |(index, process)| {
            let report = process.report.as_ref().map(|report| (index, report.as_fd(), PollFlags::POLLIN));
            let started = process.report.is_none();
            let outputs = process.streams.outputs.iter().filter(move |_| started && link_has_room);
            let outputs = outputs.filter_map(|output| output.wants_to_read());
            let input = process.streams.input.as_ref().and_then(|input| input.wants_to_write());
            report
                .into_iter()
                .chain(outputs.map(move |fd| (index, fd, PollFlags::POLLIN)))
                .chain(input.map(move |fd| (index, fd, PollFlags::POLLOUT)))
        })
    }

    /// Does what can be done for a process now.
    pub(crate) fn serve(&mut self, index: usize, link: &mut Link) {
        let process = &mut self.0[index];
        process.hear(link);
        if process.report.is_none() {
            process.relay(link);
        }
        if let Some(input) = &mut process.streams.input {
            input.pass_on(link);
        }
    }

    /// Takes the bytes of a data frame. Those for a process that has ended are dropped.
    pub(crate) fn take_input(
        &mut self,
        channel: u32,
        bytes: &[u8],
        link: &mut Link,
    ) -> Result<(), Violation> {
        let mut processes = self.0.iter_mut();
        let found = processes.find(|process| process.channels.input() == Some(channel));
        found.and_then(|process| process.streams.input.as_mut()).map_or(Ok(()), |i| i.take(bytes, link))
    }

    pub(crate) fn credit(&mut self, channel: u32, bytes: u32) -> Result<(), Violation> {
        let mut outputs = self.0.iter_mut().flat_map(|process| &mut process.streams.outputs);
        outputs.find(|output| output.channel() == channel).map_or(Ok(()), |output| output.credit(bytes))
    }

    pub(crate) fn resize(&self, channel: u32, size: TerminalSize) {
        self.0.iter().for_each(|process| process.streams.resize(channel, size));
    }

    pub(crate) fn signal(&self, process: u32, signal: i32) {
        self.0.iter().filter(|found| found.id == process).for_each(|found| found.signal(signal));
    }

    /// Kills what joined the app. Its own children go with the app's.
    pub(crate) fn kill_of(&self, app: usize) {
        self.0.iter().filter(|process| process.app == app).for_each(|process| process.signal(libc::SIGKILL));
    }

    /// A child was reaped.
    pub(crate) fn ended(&mut self, pid: Pid, outcome: Outcome, link: &mut Link) {
        let Some(process) = self.0.iter_mut().find(|process| process.main == Some(pid)) else { return };
        // Its start is told before its end, whichever was noticed first.
        process.hear(link);
        process.main = None;
        process.outcome = Some(outcome);
        // What it leaves running may keep the streams open for ever; what it wrote is there already.
        process.streams.stop_waiting();
        if let Some(input) = &mut process.streams.input {
            input.close(link);
        }
    }

    /// Tells of those that have ended with all that they wrote.
    pub(crate) fn report_ended(&mut self, link: &mut Link) {
        // One that could not be started has no channels any more.
        let heard = self.0.iter_mut().filter(|process| !process.failed);
        for output in heard.flat_map(|process| &mut process.streams.outputs) {
            while output.is_due() && link.has_room() {
                output.relay(link);
            }
        }
        self.0.retain(|process| {
            let Some(outcome) = process.outcome else { return true };
            if process.failed {
                return false;
            }
            if process.streams.have_ended() {
                link.say(&FromAgent::ProcessExited { process: process.id, outcome });
                return false;
            }
            true
        });
    }
}

impl Process {
    fn hear(&mut self, link: &mut Link) {
        let Some(word) = self.report.as_mut().and_then(Report::read) else { return };
        self.report = None;
        match word {
            Word::Started { .. } => link.say(&FromAgent::ProcessStarted { process: self.id }),
            Word::Failed { text, .. } => {
                self.failed = true;
                link.say(&FromAgent::ProcessFailed { process: self.id, text });
            }
        }
    }

    fn relay(&mut self, link: &mut Link) {
        if !self.failed {
            self.streams.outputs.iter_mut().for_each(|output| output.relay(link));
        }
    }

    fn signal(&self, signal: i32) {
        if let Some(pid) = self.main {
            let _ = sys::kill(pid.as_raw(), signal); // Not reaped yet, so the pid is still its own.
        }
    }
}

//! What a stage1 believes about the agent: frames in, events out; anything out of order is an error.
//!
//! ```text
//! Hello ─▶ (Started | Failed) per app ─▶ data, Credit … ─▶ Exited per app ─▶ Finished
//!            └◀────── Restarting ────────────────┘
//! ```
//! The agent of a VM pod is hostile once its guest is: nothing here trusts a number it sends.

use std::collections::BTreeMap;

use crate::frame::Frame;
use crate::message::{
    AgentFault, FromAgent, Message, Outcome, PROCESS_CHANNEL_FIRST, PROCESSES_MAX, SIGNED_MAX,
};
use crate::spec::{PodSpec, StandardStreams};
use crate::window::{Receiving, Sending};
use crate::{CONTROL_CHANNEL, VERSION, Violation};

/// Longest text of a message that is passed on, in bytes.
pub const TEXT_MAX: usize = 4096;

/// What happened in the pod.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    Started {
        app: u16,
        /// What the agent says its process id is; good for showing only.
        pid: u32,
    },
    /// Bytes for the user; give them back with [`Host::consumed`] once written.
    Output {
        channel: u32,
        bytes: Vec<u8>,
    },
    /// No more bytes will come on this channel.
    OutputEnded {
        channel: u32,
    },
    /// The window of an input channel opened.
    InputAllowed {
        channel: u32,
    },
    Failed {
        app: Option<u16>,
        fault: AgentFault,
        text: String,
    },
    Exited {
        app: u16,
        outcome: Outcome,
    },
    /// The app ended and will be started again.
    Restarting {
        app: u16,
        outcome: Outcome,
        after_ms: u32,
    },
    Warning {
        text: String,
    },
    /// The agent waits for `Signed` or `Verified` with this number.
    Sign {
        request: u32,
        content: Vec<u8>,
    },
    Verify {
        request: u32,
        uuid: String,
        content: Vec<u8>,
        signature: String,
    },
    Finished,
    ProcessStarted {
        process: u32,
    },
    ProcessFailed {
        process: u32,
        text: String,
    },
    ProcessExited {
        process: u32,
        outcome: Outcome,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AppPhase {
    Starting,
    Running,
    /// For its next start.
    Waiting,
    Ended,
}

/// The host end of the conversation; pure.
#[derive(Debug)]
pub struct Host {
    greeted: bool,
    finished: bool,
    signs: bool,
    apps: Vec<AppPhase>,
    /// Those that were asked for and have not ended.
    processes: BTreeMap<u32, Process>,
    outputs: BTreeMap<u32, Receiving>,
    inputs: BTreeMap<u32, Sending>,
}

#[derive(Debug)]
struct Process {
    started: bool,
    streams: StandardStreams,
}

impl Host {
    /// Expects the agent to run `pod`.
    pub fn new(pod: &PodSpec) -> Self {
        let mut host = Self {
            greeted: false,
            finished: false,
            signs: pod.metadata.is_some(),
            apps: vec![AppPhase::Starting; pod.apps.len()],
            processes: BTreeMap::new(),
            outputs: BTreeMap::new(),
            inputs: BTreeMap::new(),
        };
        for app in &pod.apps {
            host.add_streams(app.streams);
        }
        host
    }

    fn add_streams(&mut self, streams: StandardStreams) {
        self.inputs.extend(streams.input().map(|channel| (channel, Sending::default())));
        self.outputs.extend(streams.outputs().map(|channel| (channel, Receiving::default())));
    }

    /// Expects word of a process that the agent is told to start; `false` if there are too many already.
    ///
    /// # Panics
    /// If the number or a channel was used before: our own bug.
    pub fn exec(&mut self, process: u32, streams: StandardStreams) -> bool {
        if self.processes.len() >= PROCESSES_MAX {
            return false;
        }
        let mut channels = streams.outputs().chain(streams.input());
        assert!(channels.all(|channel| channel >= PROCESS_CHANNEL_FIRST), "a channel of an app's");
        let taken = self.processes.insert(process, Process { started: false, streams });
        assert!(taken.is_none(), "process {process} was asked for twice");
        self.add_streams(streams);
        true
    }

    /// Whether the app's program runs.
    pub fn is_running(&self, app: u16) -> bool {
        self.apps.get(usize::from(app)) == Some(&AppPhase::Running)
    }

    /// Whether the agent has said its first word.
    pub fn has_greeted(&self) -> bool {
        self.greeted
    }

    /// Whether the agent has said its last word.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// How many bytes of `channel` the agent has room for.
    pub fn input_allowed(&self, channel: u32) -> usize {
        self.inputs.get(&channel).map_or(0, Sending::available)
    }

    /// Notes that `bytes` were sent on `channel`.
    pub fn input_sent(&mut self, channel: u32, bytes: usize) {
        if let Some(sending) = self.inputs.get_mut(&channel) {
            sending.spend(bytes);
        }
    }

    /// Notes that `bytes` of `channel` reached the user. `Some(n)`: send `Credit` for `n` bytes.
    pub fn consumed(&mut self, channel: u32, bytes: usize) -> Option<u32> {
        self.outputs.get_mut(&channel).and_then(|receiving| receiving.consume(bytes))
    }

    /// Takes one frame of the agent's.
    ///
    /// # Errors
    /// Whatever an honest agent would not have said, or not now. End the pod.
    pub fn receive(&mut self, frame: Frame) -> Result<Option<Event>, Violation> {
        if self.finished {
            return Err(Violation("a frame after the agent had finished".into()));
        }
        if frame.channel == CONTROL_CHANNEL {
            return self.receive_message(FromAgent::decode(&frame.payload)?);
        }
        let channel = frame.channel;
        let receiving = self
            .outputs
            .get_mut(&channel)
            .filter(|_| self.greeted)
            .ok_or_else(|| Violation(format!("bytes on channel {channel}, which is no output")))?;
        receiving.receive(frame.payload.len())?;
        Ok(Some(match frame.payload.is_empty() {
            true => Event::OutputEnded { channel },
            false => Event::Output { channel, bytes: frame.payload },
        }))
    }

    fn receive_message(&mut self, message: FromAgent) -> Result<Option<Event>, Violation> {
        match message {
            FromAgent::Hello { version } => self.greet(version).map(|()| None),
            _ if !self.greeted => Err(Violation("the agent did not say hello first".into())),
            FromAgent::Started { app, pid } => {
                self.step(app, &[AppPhase::Starting, AppPhase::Waiting], AppPhase::Running)?;
                Ok(Some(Event::Started { app, pid }))
            }
            FromAgent::Exited { app, outcome } => {
                self.step(app, &[AppPhase::Running, AppPhase::Waiting], AppPhase::Ended)?;
                Ok(Some(Event::Exited { app, outcome }))
            }
            FromAgent::Restarting { app, outcome, after_ms } => {
                self.step(app, &[AppPhase::Running], AppPhase::Waiting)?;
                Ok(Some(Event::Restarting { app, outcome, after_ms }))
            }
            FromAgent::Warning { text } => Ok(Some(Event::Warning { text: bounded(text) })),
            FromAgent::Failed { app, fault, text } => {
                if let Some(app) = app {
                    self.step(app, &[AppPhase::Starting, AppPhase::Waiting], AppPhase::Ended)?;
                }
                Ok(Some(Event::Failed { app, fault, text: bounded(text) }))
            }
            FromAgent::ProcessStarted { process } => {
                let found = self.processes.get_mut(&process).filter(|found| !found.started);
                found.ok_or_else(|| unknown(process))?.started = true;
                Ok(Some(Event::ProcessStarted { process }))
            }
            FromAgent::ProcessFailed { process, text } => {
                self.end_process(process, false)?;
                Ok(Some(Event::ProcessFailed { process, text: bounded(text) }))
            }
            FromAgent::ProcessExited { process, outcome } => {
                self.end_process(process, true)?;
                Ok(Some(Event::ProcessExited { process, outcome }))
            }
            FromAgent::Sign { request, content } => {
                self.check_signing(&content, "")?;
                Ok(Some(Event::Sign { request, content }))
            }
            FromAgent::Verify { request, uuid, content, signature } => {
                self.check_signing(&content, &signature)?;
                Ok(Some(Event::Verify { request, uuid: bounded(uuid), content, signature }))
            }
            FromAgent::Finished => {
                self.finished = true;
                Ok(Some(Event::Finished))
            }
            FromAgent::Credit { channel, bytes } => {
                self.inputs
                    .get_mut(&channel)
                    .ok_or_else(|| Violation(format!("credit for channel {channel}, which is no input")))?
                    .credit(bytes)?;
                Ok(Some(Event::InputAllowed { channel }))
            }
        }
    }

    fn check_signing(&self, content: &[u8], signature: &str) -> Result<(), Violation> {
        match self.signs && content.len() <= SIGNED_MAX && signature.len() <= SIGNED_MAX {
            true => Ok(()),
            false => Err(Violation(format!("{} bytes to sign, where that may not be", content.len()))),
        }
    }

    fn end_process(&mut self, process: u32, started: bool) -> Result<(), Violation> {
        let found = self.processes.remove(&process).filter(|found| found.started == started);
        let streams = found.ok_or_else(|| unknown(process))?.streams;
        if let Some(input) = streams.input() {
            self.inputs.remove(&input);
        }
        for output in streams.outputs() {
            self.outputs.remove(&output);
        }
        Ok(())
    }

    fn greet(&mut self, version: u32) -> Result<(), Violation> {
        if std::mem::replace(&mut self.greeted, true) {
            return Err(Violation("the agent said hello twice".into()));
        }
        if version != VERSION {
            return Err(Violation(format!(
                "the agent speaks protocol {version}, this hull speaks {VERSION}"
            )));
        }
        Ok(())
    }

    fn step(&mut self, app: u16, from: &[AppPhase], to: AppPhase) -> Result<(), Violation> {
        let phase = self
            .apps
            .get_mut(usize::from(app))
            .ok_or_else(|| Violation(format!("a message about app {app}, which does not exist")))?;
        if !from.contains(phase) {
            return Err(Violation(format!("app {app} cannot go from {phase:?} to {to:?}")));
        }
        *phase = to;
        Ok(())
    }
}

/// What is left of a text that may be of any length.
fn bounded(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(TEXT_MAX));
    text
}

fn unknown(process: u32) -> Violation {
    Violation(format!("a message about process {process}, which is not expected"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{AppSpec, ImageSource};
    use crate::window::WINDOW;

    fn host() -> Host {
        let image = ImageSource::Device { path: "/dev/vda".into() };
        let streams = StandardStreams::Pipes { stdin: Some(1), stdout: 2, stderr: 3 };
        let app = AppSpec::new("a", image, &["/bin/true"], streams);
        Host::new(&PodSpec { apps: vec![app], ..PodSpec::default() })
    }

    const HELLO: FromAgent = FromAgent::Hello { version: VERSION };
    const STARTED: FromAgent = FromAgent::Started { app: 0, pid: 7 };
    const EXITED: FromAgent = FromAgent::Exited { app: 0, outcome: Outcome::Code(0) };

    fn message(message: &FromAgent) -> Frame {
        Frame { channel: CONTROL_CHANNEL, payload: serde_json::to_vec(message).unwrap() }
    }

    /// Feeds frames; `want` is part of the violation's text, or empty for a legal conversation.
    #[track_caller]
    fn check(frames: Vec<Frame>, want: &str) {
        let mut host = host();
        let got = frames.into_iter().try_for_each(|f| host.receive(f).map(|_| ()));
        match (got, want) {
            (Ok(()), "") => (),
            (Err(v), want) if !want.is_empty() && v.0.contains(want) => (),
            (got, want) => panic!("got {got:?}, want {want:?}"),
        }
    }

    #[test]
    fn only_the_legal_order_is_accepted() {
        let say = |messages: &[FromAgent]| messages.iter().map(message).collect::<Vec<_>>();
        check(say(&[HELLO, STARTED, EXITED, FromAgent::Finished]), "");
        check(say(&[STARTED]), "did not say hello");
        check(say(&[HELLO, HELLO]), "hello twice");
        check(say(&[FromAgent::Hello { version: 99 }]), "speaks protocol 99");
        check(say(&[HELLO, EXITED]), "cannot go from Starting to Ended");
        check(say(&[HELLO, STARTED, EXITED, EXITED]), "cannot go from Ended");
        check(say(&[HELLO, FromAgent::Started { app: 9, pid: 7 }]), "app 9, which does not exist");
        check(say(&[HELLO, FromAgent::Finished, STARTED]), "had finished");
        let again = FromAgent::Restarting { app: 0, outcome: Outcome::Code(1), after_ms: 100 };
        check(say(&[HELLO, STARTED, again.clone(), STARTED, EXITED]), "");
        // It was asked to stop while it waited.
        check(say(&[HELLO, STARTED, again.clone(), EXITED]), "");
        check(say(&[HELLO, STARTED, again.clone(), again.clone()]), "cannot go from Waiting to Waiting");
        check(say(&[HELLO, again]), "cannot go from Starting to Waiting");
        check(say(&[HELLO, FromAgent::Credit { channel: 1, bytes: 1 }]), "never sent");
        check(say(&[HELLO, FromAgent::Credit { channel: 2, bytes: 1 }]), "no input");
    }

    #[test]
    fn bytes_are_accepted_only_where_an_output_is() {
        let data = |channel, len| Frame { channel, payload: vec![0; len] };
        check(vec![data(2, 1)], "no output");
        check(vec![message(&HELLO), data(2, 5), data(3, 0), data(2, 1)], "");
        check(vec![message(&HELLO), data(1, 1)], "channel 1, which is no output");
        check(vec![message(&HELLO), data(2, 0), data(2, 1)], "ended");
        check(vec![message(&HELLO), data(2, WINDOW as usize), data(2, 1)], "window");
    }

    const PROCESS: StandardStreams = StandardStreams::Pipes {
        stdin: Some(PROCESS_CHANNEL_FIRST),
        stdout: PROCESS_CHANNEL_FIRST + 1,
        stderr: PROCESS_CHANNEL_FIRST + 2,
    };

    /// As [`check`], after process 7 was asked for.
    #[track_caller]
    fn check_process(frames: Vec<Frame>, want: &str) {
        let mut host = host();
        host.receive(message(&HELLO)).unwrap();
        host.receive(message(&STARTED)).unwrap();
        assert!(host.exec(7, PROCESS));
        let got = frames.into_iter().try_for_each(|f| host.receive(f).map(|_| ()));
        match (got, want) {
            (Ok(()), "") => (),
            (Err(v), want) if !want.is_empty() && v.0.contains(want) => (),
            (got, want) => panic!("got {got:?}, want {want:?}"),
        }
    }

    #[test]
    fn a_process_is_spoken_of_in_order_and_only_when_asked_for() {
        let started = |process| message(&FromAgent::ProcessStarted { process });
        let exited = |process| message(&FromAgent::ProcessExited { process, outcome: Outcome::Code(0) });
        let failed = || message(&FromAgent::ProcessFailed { process: 7, text: "no".into() });
        let data = || Frame { channel: PROCESS_CHANNEL_FIRST + 1, payload: vec![1] };
        check_process(vec![started(7), data(), exited(7)], "");
        check_process(vec![failed()], "");
        check_process(vec![started(8)], "process 8");
        check_process(vec![started(7), started(7)], "process 7");
        check_process(vec![exited(7)], "process 7");
        check_process(vec![started(7), failed()], "process 7");
        check_process(vec![started(7), exited(7), exited(7)], "process 7");
        check_process(vec![started(7), exited(7), data()], "no output");
    }

    #[test]
    fn processes_are_bounded_and_room_comes_back() {
        let mut host = host();
        host.receive(message(&HELLO)).unwrap();
        let channel = |n: u32| StandardStreams::Terminal {
            channel: PROCESS_CHANNEL_FIRST + n,
            size: crate::TerminalSize { rows: 1, columns: 1 },
        };
        let most = u32::try_from(PROCESSES_MAX).unwrap();
        (0..most).for_each(|n| assert!(host.exec(n, channel(n))));
        assert!(!host.exec(most, channel(most)));
        host.receive(message(&FromAgent::ProcessFailed { process: 3, text: String::new() })).unwrap();
        assert!(host.exec(most, channel(most)));
    }

    #[test]
    fn only_who_may_has_something_signed() {
        let sign = |len| message(&FromAgent::Sign { request: 1, content: vec![0; len] });
        check(vec![message(&HELLO), sign(1)], "may not be");
        let metadata = Some(Box::default());
        let mut host = Host::new(&PodSpec { metadata, ..PodSpec::default() });
        host.receive(message(&HELLO)).unwrap();
        assert_eq!(host.receive(sign(1)).unwrap(), Some(Event::Sign { request: 1, content: vec![0] }));
        assert!(host.receive(sign(SIGNED_MAX + 1)).is_err());
    }

    #[test]
    fn garbage_on_the_control_channel_is_a_violation() {
        for bytes in [&b""[..], b"{", b"null", b"\xff\xfe", br#"{"started":{"app":70000}}"#, br#"{"x":1}"#] {
            check(vec![Frame { channel: 0, payload: bytes.to_vec() }], "malformed");
        }
    }
}

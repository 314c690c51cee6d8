//! Decides what to do about the apps of a pod; never forks, signals or waits itself.
//!
//! ```text
//! Starting ─started─▶ Running ─main process ended─▶ Draining ─streams sent─▶ Ended
//!     └────────────────────────── failed to start ──────────────────────────▶ Ended
//! ```

use std::time::Duration;

use hull_agent_protocol::message::AgentFault;
use hull_agent_protocol::{AppSpec, FromAgent, Outcome};

/// How long the others have to end by themselves where an app has failed: as long as `hull stop` gives.
const FAILURE_GRACE: Duration = Duration::from_secs(10);

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The app's program runs.
    Started {
        app: usize,
        /// Of its main process, in the agent's namespace.
        pid: u32,
    },
    StartFailed {
        app: usize,
        fault: AgentFault,
        text: String,
    },
    MainEnded {
        app: usize,
        outcome: Outcome,
    },
    /// The main process ended, and every byte of the app's streams is on its way.
    Drained {
        app: usize,
    },
    SignalAsked {
        signal: i32,
    },
    StopAsked {
        signal: Option<i32>,
        grace: Duration,
    },
    GraceOver,
}

/// What to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Say(FromAgent),
    /// To the app's main process.
    Signal {
        app: usize,
        signal: i32,
    },
    /// Every process of the app.
    Kill {
        app: usize,
    },
    /// Report [`Event::GraceOver`] then, unless that is due earlier already.
    ArmGrace(Duration),
    /// Every app has ended.
    Finish,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Starting,
    Running,
    Draining(Outcome),
    Ended,
}

#[derive(Debug)]
struct App {
    phase: Phase,
    stop_signal: i32,
}

/// The pure core: same events in, same actions out.
#[derive(Debug)]
pub(crate) struct Supervisor {
    apps: Vec<App>,
    stopping: bool,
}

impl Supervisor {
    /// Of apps that are all being started.
    pub(crate) fn new(apps: &[AppSpec]) -> Self {
        let app = |app: &AppSpec| App { phase: Phase::Starting, stop_signal: app.stop_signal };
        Self { apps: apps.iter().map(app).collect(), stopping: false }
    }

    /// Whether every byte of the app's streams must be sent before its end is reported.
    pub(crate) fn is_draining(&self, app: usize) -> bool {
        matches!(self.apps[app].phase, Phase::Draining(_))
    }

    /// Whether the app's program runs; `false` for an app that there is not.
    pub(crate) fn is_running(&self, app: usize) -> bool {
        self.apps.get(app).is_some_and(|app| app.phase == Phase::Running)
    }

    /// Takes one event; appends what to do to `out`.
    pub(crate) fn step(&mut self, event: Event, out: &mut Vec<Action>) {
        match event {
            Event::Started { app, pid } => {
                assert_eq!(self.apps[app].phase, Phase::Starting, "the shell reports each start once");
                self.apps[app].phase = Phase::Running;
                out.push(Action::Say(FromAgent::Started { app: number(app), pid }));
            }
            Event::StartFailed { app, fault, text } => {
                assert_eq!(self.apps[app].phase, Phase::Starting, "the shell reports each start once");
                out.push(Action::Say(FromAgent::Failed { app: Some(number(app)), fault, text }));
                self.end(app, out);
                // A pod is all of its apps or nothing.
                self.kill_alive(out);
            }
            Event::MainEnded { app, outcome } if self.apps[app].phase == Phase::Running => {
                self.apps[app].phase = Phase::Draining(outcome);
                // What it leaves behind would hold the streams open, and nobody would ever stop it.
                out.push(Action::Kill { app });
                // A pod is no place for the rest of its apps once one has failed, as in rkt.
                if outcome != Outcome::Code(0) && !self.stopping && self.alive().next().is_some() {
                    self.stop(None, FAILURE_GRACE, out);
                }
            }
            // The process of a start that failed ends too; that was told already.
            Event::MainEnded { .. } => (),
            Event::Drained { app } => {
                let Phase::Draining(outcome) = self.apps[app].phase else {
                    panic!("app {app} drained in {:?}", self.apps[app].phase)
                };
                out.push(Action::Say(FromAgent::Exited { app: number(app), outcome }));
                self.end(app, out);
            }
            Event::SignalAsked { signal } => self.signal_alive(out, |_| signal),
            Event::StopAsked { signal, grace } => {
                self.stop(signal, grace, out);
            }
            Event::GraceOver => self.kill_alive(out),
        }
    }

    fn stop(&mut self, signal: Option<i32>, grace: Duration, out: &mut Vec<Action>) {
        self.stopping = true;
        self.signal_alive(out, |app| signal.unwrap_or(app.stop_signal));
        out.push(Action::ArmGrace(grace));
    }

    fn end(&mut self, app: usize, out: &mut Vec<Action>) {
        self.apps[app].phase = Phase::Ended;
        if self.apps.iter().all(|app| app.phase == Phase::Ended) {
            out.push(Action::Finish);
        }
    }

    fn signal_alive(&self, out: &mut Vec<Action>, signal: impl Fn(&App) -> i32) {
        let action = |(index, app): (usize, &App)| Action::Signal { app: index, signal: signal(app) };
        out.extend(self.alive().map(action));
    }

    fn kill_alive(&self, out: &mut Vec<Action>) {
        out.extend(self.alive().map(|(app, _)| Action::Kill { app }));
    }

    fn alive(&self) -> impl Iterator<Item = (usize, &App)> {
        let alive = |app: &App| matches!(app.phase, Phase::Starting | Phase::Running);
        self.apps.iter().enumerate().filter(move |(_, app)| alive(app))
    }
}

fn number(app: usize) -> u16 {
    u16::try_from(app).expect("a pod has at most 256 apps")
}

#[cfg(test)]
mod tests {
    use hull_agent_protocol::{ImageSource, StandardStreams};

    use super::*;

    fn supervisor(apps: usize) -> Supervisor {
        let image = ImageSource::Mounted { path: "/a".into() };
        let streams = StandardStreams::Pipes { stdin: None, stdout: 1, stderr: 2 };
        let app = AppSpec { stop_signal: 3, ..AppSpec::new("a", image, &["/a"], streams) };
        Supervisor::new(&vec![app; apps])
    }

    fn run(supervisor: &mut Supervisor, events: &[Event]) -> Vec<Action> {
        let mut out = vec![];
        events.iter().for_each(|event| supervisor.step(event.clone(), &mut out));
        out
    }

    const STARTED: Event = Event::Started { app: 0, pid: 7 };
    const ENDED: Event = Event::MainEnded { app: 0, outcome: Outcome::Code(3) };
    const DRAINED: Event = Event::Drained { app: 0 };

    #[test]
    fn an_app_ends_only_when_its_streams_are_sent() {
        let mut supervisor = supervisor(1);
        assert_eq!(
            run(&mut supervisor, &[STARTED, ENDED]),
            [Action::Say(FromAgent::Started { app: 0, pid: 7 }), Action::Kill { app: 0 }]
        );
        assert!(supervisor.is_draining(0));
        assert_eq!(
            run(&mut supervisor, &[DRAINED]),
            [Action::Say(FromAgent::Exited { app: 0, outcome: Outcome::Code(3) }), Action::Finish]
        );
    }

    #[test]
    fn the_pod_ends_with_its_last_app() {
        let mut supervisor = supervisor(2);
        let out = run(&mut supervisor, &[STARTED, Event::Started { app: 1, pid: 8 }, ENDED, DRAINED]);
        assert!(!out.contains(&Action::Finish));
        let end = [Event::MainEnded { app: 1, outcome: Outcome::Signal(9) }, Event::Drained { app: 1 }];
        assert!(run(&mut supervisor, &end).contains(&Action::Finish));
    }

    #[test]
    fn one_failed_start_ends_the_pod() {
        let mut supervisor = supervisor(2);
        let failed = Event::StartFailed { app: 1, fault: AgentFault::Pod, text: "no".into() };
        let out = run(&mut supervisor, &[STARTED, failed]);
        assert_eq!(out.last(), Some(&Action::Kill { app: 0 }));
        // The failed child's own end says nothing new.
        assert_eq!(run(&mut supervisor, &[Event::MainEnded { app: 1, outcome: Outcome::Code(1) }]), []);
        assert_eq!(run(&mut supervisor, &[ENDED, DRAINED]).last(), Some(&Action::Finish));
    }

    #[test]
    fn a_stop_asks_first_and_kills_after_the_grace() {
        let mut supervisor = supervisor(2);
        run(&mut supervisor, &[STARTED, Event::Started { app: 1, pid: 8 }, ENDED]);
        let grace = Duration::from_secs(1);
        assert_eq!(
            run(&mut supervisor, &[Event::StopAsked { signal: None, grace }]),
            [Action::Signal { app: 1, signal: 3 }, Action::ArmGrace(grace)]
        );
        assert_eq!(
            run(&mut supervisor, &[Event::StopAsked { signal: Some(15), grace }])[0],
            Action::Signal { app: 1, signal: 15 }
        );
        assert_eq!(run(&mut supervisor, &[Event::GraceOver]), [Action::Kill { app: 1 }]);
    }

    #[test]
    fn an_app_that_fails_takes_the_others_with_it_once() {
        let mut supervisor = supervisor(3);
        run(
            &mut supervisor,
            &[STARTED, Event::Started { app: 1, pid: 8 }, Event::Started { app: 2, pid: 9 }],
        );
        let well = Event::MainEnded { app: 2, outcome: Outcome::Code(0) };
        assert_eq!(run(&mut supervisor, &[well]), [Action::Kill { app: 2 }]);
        let others = [Action::Signal { app: 1, signal: 3 }, Action::ArmGrace(FAILURE_GRACE)];
        assert_eq!(run(&mut supervisor, &[ENDED])[1..], others);
        let second = Event::MainEnded { app: 1, outcome: Outcome::Signal(3) };
        assert_eq!(run(&mut supervisor, &[second]), [Action::Kill { app: 1 }]);
    }

    #[test]
    fn a_signal_goes_to_every_app_that_runs() {
        let mut supervisor = supervisor(2);
        run(&mut supervisor, &[STARTED, ENDED, DRAINED]);
        assert_eq!(
            run(&mut supervisor, &[Event::SignalAsked { signal: 1 }]),
            [Action::Signal { app: 1, signal: 1 }]
        );
    }
}

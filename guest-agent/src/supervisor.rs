//! Decides what to do about the apps of a pod; never forks, signals or waits itself.
//!
//! ```text
//! Starting ─started─▶ Running ─main process ended─▶ Cleaning ─post-stop ran─▶ Draining ─streams sent─▶ Ended
//!     │  ▲                                          ▲   │
//!     └──│───────────── failed to start ────────────┘   │ to be started again
//!        └──────────── back-off is over ───── Waiting ◀─┘
//! ```

use std::time::Duration;

use hull_agent_protocol::message::AgentFault;
use hull_agent_protocol::{AppSpec, FromAgent, Outcome, Restart};

/// How long the others have to end by themselves where an app has failed: as long as `hull stop` gives.
const FAILURE_GRACE: Duration = Duration::from_secs(10);

/// How long an app that has ended waits for its next start: the first time, and at most. Doubled each time.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));

/// An app that has run so long waits as if it were the first time.
const SETTLED: Duration = Duration::from_secs(10);

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
        /// How long it has run.
        ran: Duration,
    },
    /// The app's post-stop commands have run, or could not.
    CleanedUp {
        app: usize,
    },
    /// The app has waited for its next start.
    WaitOver {
        app: usize,
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
    /// Run the app's post-stop commands, then report [`Event::CleanedUp`].
    CleanUp {
        app: usize,
    },
    /// Report [`Event::WaitOver`] then.
    Wait {
        app: usize,
        time: Duration,
    },
    /// Start the app once more.
    Launch {
        app: usize,
    },
    /// Nothing more will run in the app. Report [`Event::Drained`] when its streams have ended.
    LetGo {
        app: usize,
    },
    /// Report [`Event::GraceOver`] then, unless that is due earlier already.
    ArmGrace(Duration),
    /// Every app has ended.
    Finish,
}

/// How an app came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    Exited(Outcome),
    Failed { fault: AgentFault, text: String },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    Starting,
    Running,
    Cleaning {
        end: End,
        /// It was not asked to stop by then.
        again: bool,
    },
    Waiting(End),
    Draining(End),
    Ended,
}

#[derive(Debug)]
struct App {
    phase: Phase,
    stop_signal: i32,
    restart: Restart,
    restarts: u32,
    backoff: Duration,
}

impl App {
    fn new(spec: &AppSpec) -> Self {
        let (stop_signal, restart) = (spec.stop_signal, spec.restart);
        Self { phase: Phase::Starting, stop_signal, restart, restarts: 0, backoff: BACKOFF.0 }
    }

    fn wants_restart(&self, outcome: Outcome) -> bool {
        match self.restart {
            Restart::Never => false,
            Restart::OnFailure { max } => {
                outcome != Outcome::Code(0) && max.is_none_or(|max| self.restarts < max)
            }
            Restart::Always => true,
        }
    }

    /// Whether it has processes.
    fn is_alive(&self) -> bool {
        matches!(self.phase, Phase::Starting | Phase::Running | Phase::Cleaning { .. })
    }

    /// How long to wait for the next start.
    fn back_off(&mut self) -> Duration {
        self.restarts = self.restarts.saturating_add(1);
        let time = self.backoff;
        self.backoff = (time * 2).min(BACKOFF.1);
        time
    }
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
        Self { apps: apps.iter().map(App::new).collect(), stopping: false }
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
                // A start that failed will fail again.
                self.clean_up(app, End::Failed { fault, text }, false, out);
                // A pod is all of its apps or nothing.
                self.stopping = true;
                self.kill_others(app, out);
            }
            Event::MainEnded { app, outcome, ran } if self.apps[app].phase == Phase::Running => {
                self.main_ended(app, outcome, ran, out);
            }
            // The process of a start that failed ends too; that was told already.
            Event::MainEnded { .. } => (),
            Event::CleanedUp { app } => self.cleaned_up(app, out),
            Event::WaitOver { app } if matches!(self.apps[app].phase, Phase::Waiting(_)) => {
                self.apps[app].phase = Phase::Starting;
                out.push(Action::Launch { app });
            }
            // It was asked to stop before.
            Event::WaitOver { .. } => (),
            Event::Drained { app } => {
                let phase = std::mem::replace(&mut self.apps[app].phase, Phase::Ended);
                let Phase::Draining(end) = phase else { panic!("app {app} drained in {phase:?}") };
                out.push(Action::Say(match end {
                    End::Exited(outcome) => FromAgent::Exited { app: number(app), outcome },
                    End::Failed { fault, text } => FromAgent::Failed { app: Some(number(app)), fault, text },
                }));
                if self.apps.iter().all(|app| app.phase == Phase::Ended) {
                    out.push(Action::Finish);
                }
            }
            Event::SignalAsked { signal } => self.signal_alive(out, |_| signal),
            Event::StopAsked { signal, grace } => self.stop(signal, grace, out),
            Event::GraceOver => self.kill_alive(out),
        }
    }

    fn main_ended(&mut self, app: usize, outcome: Outcome, ran: Duration, out: &mut Vec<Action>) {
        if ran >= SETTLED {
            self.apps[app].backoff = BACKOFF.0;
        }
        let again = !self.stopping && self.apps[app].wants_restart(outcome);
        self.clean_up(app, End::Exited(outcome), again, out);
        // A pod is no place for the rest of its apps once one has failed, as in rkt.
        if outcome != Outcome::Code(0) && !again && !self.stopping && self.others(app).next().is_some() {
            self.stop(None, FAILURE_GRACE, out);
        }
    }

    fn clean_up(&mut self, app: usize, end: End, again: bool, out: &mut Vec<Action>) {
        self.apps[app].phase = Phase::Cleaning { end, again };
        // What it leaves behind would hold the streams open, and nobody would ever stop it.
        out.push(Action::Kill { app });
        out.push(Action::CleanUp { app });
    }

    fn cleaned_up(&mut self, app: usize, out: &mut Vec<Action>) {
        let Phase::Cleaning { end, again } = self.apps[app].phase.clone() else {
            panic!("app {app} was cleaned up in {:?}", self.apps[app].phase)
        };
        out.push(Action::Kill { app });
        match end {
            End::Exited(outcome) if again && !self.stopping => {
                let time = self.apps[app].back_off();
                let after_ms = u32::try_from(time.as_millis()).expect("the back-off is seconds");
                self.apps[app].phase = Phase::Waiting(end);
                out.push(Action::Say(FromAgent::Restarting { app: number(app), outcome, after_ms }));
                out.push(Action::Wait { app, time });
            }
            end => self.let_go(app, end, out),
        }
    }

    fn let_go(&mut self, app: usize, end: End, out: &mut Vec<Action>) {
        self.apps[app].phase = Phase::Draining(end);
        out.push(Action::LetGo { app });
    }

    fn stop(&mut self, signal: Option<i32>, grace: Duration, out: &mut Vec<Action>) {
        self.stopping = true;
        self.signal_alive(out, |app| signal.unwrap_or(app.stop_signal));
        out.push(Action::ArmGrace(grace));
        self.end_waiting(out);
    }

    /// Those that wait for their next start get none.
    fn end_waiting(&mut self, out: &mut Vec<Action>) {
        for app in 0..self.apps.len() {
            if let Phase::Waiting(end) = self.apps[app].phase.clone() {
                self.let_go(app, end, out);
            }
        }
    }

    fn signal_alive(&self, out: &mut Vec<Action>, signal: impl Fn(&App) -> i32) {
        let runs = |(_, app): &(usize, &App)| matches!(app.phase, Phase::Starting | Phase::Running);
        let action = |(index, app): (usize, &App)| Action::Signal { app: index, signal: signal(app) };
        out.extend(self.apps.iter().enumerate().filter(runs).map(action));
    }

    fn kill_alive(&self, out: &mut Vec<Action>) {
        let alive = self.apps.iter().enumerate().filter(|(_, app)| app.is_alive());
        out.extend(alive.map(|(app, _)| Action::Kill { app }));
    }

    fn kill_others(&mut self, app: usize, out: &mut Vec<Action>) {
        out.extend(self.others(app).map(|(app, _)| Action::Kill { app }));
        self.end_waiting(out);
    }

    /// The others that have processes, or will have some.
    fn others(&self, app: usize) -> impl Iterator<Item = (usize, &App)> {
        let waits = |app: &App| matches!(app.phase, Phase::Waiting(_));
        let all = self.apps.iter().enumerate();
        all.filter(move |(other, of)| *other != app && (of.is_alive() || waits(of)))
    }
}

fn number(app: usize) -> u16 {
    u16::try_from(app).expect("a pod has at most 256 apps")
}

#[cfg(test)]
mod tests;

//! One app of the pod: its root, its streams, its processes, from one start to the next.

use std::time::{Duration, Instant};

use hull_agent_protocol::message::AgentFault;
use hull_agent_protocol::{AppSpec, Outcome, PodSpec, Restart};
use hull_errors::Doing;
use nix::unistd::Pid;

use crate::cgroup::{AppCgroup, PodCgroup};
use crate::launch::{Launch, Namespaces, Report, Room, Task, Word, launch};
use crate::limits::Missed;
use crate::link::Link;
use crate::machine::Machine;
use crate::root::{AppDir, assemble};
use crate::streams::{AppSide, Streams};
use crate::{Error, limits, processes, sys};

/// How long the streams of an app may stay open after every process of it was killed. They close with
/// the last process; only one that was handed on, to another app say, stays open.
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// How long post-stop commands may take: what systemd gives to them (`DefaultTimeoutStopSec`,
/// systemd-system.conf(5)).
const CLEANING_MAX: Duration = Duration::from_secs(90);

/// An app. What becomes of it is the [`crate::supervisor`]'s to say.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) spec: AppSpec,
    pub(crate) dir: Option<AppDir>,
    pub(crate) streams: Option<Streams>,
    /// Kept while something may be started in the app: its streams do not end before.
    side: Option<AppSide>,
    pub(crate) cgroup: Option<AppCgroup>,
    /// The main process, until it was reaped.
    pub(crate) main: Option<Pid>,
    /// Until the program runs.
    pub(crate) report: Option<Report>,
    namespace: Option<u64>,
    pub(crate) namespaces: Option<Namespaces>,
    started: Instant,
    cleaner: Option<Cleaner>,
    /// When it is to be started again.
    pub(crate) wait_until: Option<Instant>,
    pub(crate) close_by: Option<Instant>,
}

/// The process that runs the post-stop commands.
#[derive(Debug)]
struct Cleaner {
    pid: Pid,
    report: Report,
    kill_by: Instant,
}

/// What surrounds an app.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Surroundings<'a> {
    pub(crate) machine: Machine,
    pub(crate) pod: &'a PodSpec,
    pub(crate) cgroup: Option<&'a PodCgroup>,
}

impl App {
    pub(crate) fn new(spec: &AppSpec) -> Self {
        Self {
            spec: spec.clone(),
            dir: None,
            streams: None,
            side: None,
            cgroup: None,
            main: None,
            report: None,
            namespace: None,
            namespaces: None,
            started: Instant::now(),
            cleaner: None,
            wait_until: None,
            close_by: None,
        }
    }

    /// Starts the app, for the first time or again: root and streams stay the same.
    pub(crate) fn launch(
        &mut self,
        index: usize,
        around: Surroundings<'_>,
        missed: &mut Missed,
    ) -> Result<(), Error> {
        if self.dir.is_none() {
            self.make_room(index, around, missed)?;
        }
        let (Some(dir), Some(side)) = (&self.dir, &self.side) else {
            unreachable!("make_room makes both, and side is dropped after the last start")
        };
        let (app, cgroup) = (&self.spec, self.cgroup.as_ref());
        let (machine, pod, room, task) = (around.machine, around.pod, Room::New(dir), Task::Run);
        let launched = launch(&Launch { app, room, task, side, cgroup, machine, pod })?;
        self.namespaces = None;
        self.main = Some(launched.pid);
        self.report = Some(launched.report);
        if self.spec.restart == Restart::Never && self.spec.post_stop.is_empty() {
            self.side = None;
        }
        Ok(())
    }

    fn make_room(
        &mut self,
        index: usize,
        around: Surroundings<'_>,
        missed: &mut Missed,
    ) -> Result<(), Error> {
        let name = &self.spec.name;
        let dir = assemble(index, &self.spec)?;
        let cgroup = around.cgroup.map(|pod| pod.make(name)).transpose();
        self.cgroup = cgroup.doing(AgentFault::Machine, || format!("make a cgroup for app {name}"))?;
        limits::bound(&self.spec, self.cgroup.as_ref(), missed)?;
        let connected = Streams::connect(self.spec.streams, &dir.terminals());
        let (streams, side) =
            connected.doing(AgentFault::Machine, || format!("make the standard streams of app {name}"))?;
        self.dir = Some(dir);
        self.streams = Some(streams);
        self.side = Some(side);
        Ok(())
    }

    /// What its process came to, once it is known.
    pub(crate) fn hear(&mut self) -> Option<Word> {
        let word = self.report.as_mut().and_then(Report::read)?;
        let report = self.report.take();
        self.namespaces = report.and_then(|mut report| report.take_namespaces());
        self.started = Instant::now();
        if let Word::Started { namespace } = word {
            self.namespace = namespace;
        }
        Some(word)
    }

    /// How long the program has run.
    pub(crate) fn ran(&self) -> Duration {
        self.started.elapsed()
    }

    /// Starts the app's post-stop commands; `false` if there is nothing to wait for.
    pub(crate) fn clean_up(&mut self, around: Surroundings<'_>) -> Result<bool, Error> {
        // An app that never had a world of its own has nothing in it to clean up.
        let (Some(side), Some(namespaces)) = (&self.side, &self.namespaces) else { return Ok(false) };
        if self.spec.post_stop.is_empty() {
            return Ok(false);
        }
        let (app, cgroup) = (&self.spec, self.cgroup.as_ref());
        let (machine, pod, room) = (around.machine, around.pod, Room::Running(namespaces));
        let launched = launch(&Launch { app, room, task: Task::CleanUp, side, cgroup, machine, pod })?;
        let kill_by = Instant::now() + CLEANING_MAX;
        self.cleaner = Some(Cleaner { pid: launched.pid, report: launched.report, kill_by });
        Ok(true)
    }

    /// Takes the end of the process that runs the post-stop commands; says what went wrong.
    pub(crate) fn cleaner_ended(&mut self, pid: Pid, outcome: Outcome) -> Option<Result<(), String>> {
        let mut cleaner = self.cleaner.take_if(|cleaner| cleaner.pid == pid)?;
        Some(match (cleaner.report.read(), outcome) {
            (Some(Word::Failed { text, .. }), _) => Err(text),
            (_, Outcome::Code(0)) => Ok(()),
            (_, Outcome::Code(code)) => Err(format!("run post-stop commands: code {code}")),
            (_, Outcome::Signal(_)) if cleaner.kill_by <= Instant::now() => {
                Err(format!("run post-stop commands: not done after {} s", CLEANING_MAX.as_secs()))
            }
            (_, Outcome::Signal(signal)) => {
                Err(format!("run post-stop commands: signal {signal} ended them"))
            }
        })
    }

    /// Whether the post-stop commands take too long.
    pub(crate) fn cleans_too_long(&self, now: Instant) -> bool {
        self.cleaner.as_ref().is_some_and(|cleaner| cleaner.kill_by <= now)
    }

    /// When somebody has to look at the app again.
    pub(crate) fn due(&self) -> Option<Instant> {
        let cleaning = self.cleaner.as_ref().map(|cleaner| cleaner.kill_by);
        [cleaning, self.wait_until, self.close_by].into_iter().flatten().min()
    }

    /// Whether it has a process that is our child.
    pub(crate) fn lives(&self) -> bool {
        self.main.is_some() || self.cleaner.is_some()
    }

    /// Nothing will be started in it any more: its streams end with its last process.
    pub(crate) fn let_go(&mut self, link: &mut Link) {
        self.side = None;
        self.close_by = Some(Instant::now() + CLOSE_MAX);
        if let Some(input) = self.streams.as_mut().and_then(|streams| streams.input.as_mut()) {
            input.close(link);
        }
    }

    pub(crate) fn signal(&self, signal: i32) {
        if let Some(pid) = self.main {
            let _ = sys::kill(pid.as_raw(), signal); // Not reaped yet, so the pid is still its own.
        }
    }

    /// Kills every process in it. `others_live`: in the machine there are those of other apps.
    pub(crate) fn kill(&self, machine: Machine, others_live: bool) {
        // Also where there is a cgroup: what was forked just now has yet to enter it.
        for pid in [self.main, self.cleaner.as_ref().map(|cleaner| cleaner.pid)].into_iter().flatten() {
            let _ = sys::kill(pid.as_raw(), libc::SIGKILL); // Not reaped yet, so the pid is still its own.
        }
        if self.cgroup.as_ref().is_some_and(|cgroup| cgroup.kill().is_ok()) {
            return;
        }
        if machine.is_own_world() && !others_live {
            return processes::kill_world();
        }
        if let Some(namespace) = self.namespace {
            // A process may fork while we look; its child is caught with the machine at the latest.
            for pid in processes::in_mount_namespace(namespace) {
                let _ = sys::kill(pid, libc::SIGKILL); // It may have ended since.
            }
        }
    }
}

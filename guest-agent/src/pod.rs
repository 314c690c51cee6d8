//! The shell around [`Supervisor`]: launches the apps, waits for whatever happens next, and does what
//! the supervisor decides.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use hull_agent_protocol::message::{AgentFault, Message};
use hull_agent_protocol::{
    AppSpec, CONTROL_CHANNEL, Frame, FromAgent, PROCESS_CHANNEL_FIRST, PodSpec, StandardStreams, ToAgent,
    Violation,
};
use hull_errors::{Doing, chain};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

use crate::cgroup::{AppCgroup, PodCgroup};
use crate::exec::{Processes, Request};
use crate::launch::{Launch, Namespaces, Report, Room, Word, launch};
use crate::link::{Link, Lost};
use crate::machine::Machine;
use crate::root::{AppDir, assemble};
use crate::streams::Streams;
use crate::supervisor::{Action, Event, Supervisor};
use crate::{Error, limits, processes, sys};

/// How long the streams of an app may stay open after every process of it was killed. They close with
/// the last process; only one that was handed on, to another app say, stays open.
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// Longest app name, in bytes: it becomes the name of a directory.
const NAME_MAX: usize = 255;

#[derive(Debug)]
struct App {
    spec: AppSpec,
    dir: Option<AppDir>,
    streams: Option<Streams>,
    cgroup: Option<AppCgroup>,
    /// The main process, until it was reaped.
    main: Option<Pid>,
    /// Until the program runs.
    report: Option<Report>,
    namespace: Option<u64>,
    namespaces: Option<Namespaces>,
    close_by: Option<Instant>,
}

#[derive(Debug)]
struct Pod<'a> {
    machine: Machine,
    link: &'a mut Link,
    supervisor: Supervisor,
    apps: Vec<App>,
    processes: Processes,
    spec: &'a PodSpec,
    grace: Option<Instant>,
    finished: bool,
}

/// What poll(2) found.
#[derive(Clone, Copy, Debug)]
enum Ready {
    Link,
    Signals,
    Report(usize),
    Output(usize, usize),
    Input(usize),
    Process(usize),
}

/// Waits for the pod, runs it, and leaves no process of it. The link's queue is not flushed.
///
/// # Errors
/// Stage1 is gone, or cannot be trusted.
pub(crate) fn run(machine: Machine, cgroup: Option<&PodCgroup>, link: &mut Link) -> Result<(), Lost> {
    let spec = wait_for_start(link)?;
    if let Err(why) = machine.name(&spec.hostname).and_then(|()| limits::set_sysctls(machine, &spec)) {
        link.say(&FromAgent::Failed { app: None, fault: *why.kind(), text: chain(&why) });
        return Ok(());
    }
    let signals = match take_signals() {
        Ok(signals) => signals,
        Err(why) => {
            link.say(&FromAgent::Failed { app: None, fault: *why.kind(), text: chain(&why) });
            return Ok(());
        }
    };
    let mut pod = Pod::new(machine, &spec, link);
    pod.launch_all(cgroup);
    let ended = pod.supervise(&signals);
    pod.leave_nothing();
    ended
}

fn take_signals() -> Result<SignalFd, Error> {
    let set: SigSet = [Signal::SIGCHLD].into_iter().collect();
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .doing(AgentFault::Machine, || "make a signalfd".into())
}

fn wait_for_start(link: &mut Link) -> Result<PodSpec, Lost> {
    loop {
        link.flush()?;
        if let Some(frame) = link.next_frame()? {
            let message = control(&frame)?;
            let ToAgent::Start(spec) = message else {
                return Err(Violation("the first message is not Start".into()).into());
            };
            check(&spec)?;
            return Ok(spec);
        }
        link.wait(PollTimeout::NONE);
        link.fill()?;
    }
}

fn control(frame: &Frame) -> Result<ToAgent, Violation> {
    match frame.channel {
        CONTROL_CHANNEL => ToAgent::decode(&frame.payload),
        channel => Err(Violation(format!("bytes on channel {channel}, which is no input"))),
    }
}

/// Refuses what would break our own bookkeeping.
fn check(spec: &PodSpec) -> Result<(), Violation> {
    let refuse = |why: &str| Err(Violation(why.into()));
    if spec.apps.is_empty() || spec.apps.len() > PodSpec::APPS_MAX {
        return refuse("a pod without apps, or with too many");
    }
    let (mut names, mut channels) = (BTreeSet::new(), BTreeSet::from([CONTROL_CHANNEL]));
    for app in &spec.apps {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if app.name.is_empty() || app.name.len() > NAME_MAX || !app.name.bytes().all(plain) {
            return refuse("an app name that is no AC name");
        }
        if !names.insert(&app.name) {
            return refuse("two apps of one name");
        }
        let own = match app.streams {
            StandardStreams::Pipes { stdin, stdout, stderr } => [stdin, Some(stdout), Some(stderr)],
            StandardStreams::Terminal { channel, .. } => [Some(channel), None, None],
        };
        if !own.into_iter().flatten().all(|channel| channels.insert(channel)) {
            return refuse("a channel with two meanings");
        }
    }
    Ok(())
}

impl<'a> Pod<'a> {
    fn new(machine: Machine, spec: &'a PodSpec, link: &'a mut Link) -> Self {
        let app = |spec: &AppSpec| App {
            spec: spec.clone(),
            dir: None,
            streams: None,
            cgroup: None,
            main: None,
            report: None,
            namespace: None,
            namespaces: None,
            close_by: None,
        };
        Self {
            machine,
            link,
            supervisor: Supervisor::new(&spec.apps),
            apps: spec.apps.iter().map(app).collect(),
            processes: Processes::default(),
            spec,
            grace: None,
            finished: false,
        }
    }

    fn launch_all(&mut self, cgroup: Option<&PodCgroup>) {
        for index in 0..self.apps.len() {
            if let Err(why) = self.launch(index, cgroup) {
                let (fault, text) = (*why.kind(), chain(&why));
                self.step(Event::StartFailed { app: index, fault, text });
            }
        }
    }

    fn launch(&mut self, index: usize, cgroup: Option<&PodCgroup>) -> Result<(), Error> {
        let app = &mut self.apps[index];
        let dir = assemble(index, &app.spec)?;
        let cgroup = cgroup.map(|pod| pod.make(&app.spec.name)).transpose();
        app.cgroup =
            cgroup.doing(AgentFault::Machine, || format!("make a cgroup for app {}", app.spec.name))?;
        limits::bound(&app.spec, app.cgroup.as_ref(), self.spec.lenient)?;
        let connected = Streams::connect(app.spec.streams, &dir.terminals());
        let (streams, side) = connected
            .doing(AgentFault::Machine, || format!("make the standard streams of app {}", app.spec.name))?;
        let launched = launch(&Launch {
            app: &app.spec,
            room: Room::New(&dir),
            side,
            cgroup: app.cgroup.as_ref(),
            machine: self.machine,
            pod: self.spec,
        })?;
        app.dir = Some(dir);
        app.streams = Some(streams);
        app.main = Some(launched.pid);
        app.report = Some(launched.report);
        Ok(())
    }

    fn supervise(&mut self, signals: &SignalFd) -> Result<(), Lost> {
        // More than Start may have come at once.
        self.serve_frames()?;
        while !self.finished {
            self.link.flush()?;
            for ready in self.wait(signals) {
                match ready {
                    Ready::Link => self.serve_link()?,
                    Ready::Signals => {
                        while let Ok(Some(_)) = signals.read_signal() {}
                        self.reap();
                    }
                    Ready::Report(app) => self.hear(app),
                    Ready::Output(app, output) => {
                        if let Some(streams) = &mut self.apps[app].streams {
                            streams.outputs[output].relay(self.link);
                        }
                    }
                    Ready::Input(app) => {
                        if let Some(input) = self.apps[app].streams.as_mut().and_then(|s| s.input.as_mut()) {
                            input.pass_on(self.link);
                        }
                    }
                    Ready::Process(process) => self.processes.serve(process, self.link),
                }
            }
            self.look_at_the_clock();
            self.report_drained();
        }
        Ok(())
    }

    fn wait(&self, signals: &SignalFd) -> Vec<Ready> {
        let mut polled: Vec<(Ready, BorrowedFd<'_>, PollFlags)> = vec![];
        let mut due = vec![];
        let mut link = PollFlags::POLLIN;
        link.set(PollFlags::POLLOUT, self.link.wants_to_write());
        polled.push((Ready::Link, self.link.as_fd(), link));
        polled.push((Ready::Signals, signals.as_fd(), PollFlags::POLLIN));
        for (index, app) in self.apps.iter().enumerate() {
            if let Some(report) = &app.report {
                polled.push((Ready::Report(index), report.as_fd(), PollFlags::POLLIN));
                continue; // Before the program runs, its streams have nothing to say.
            }
            let Some(streams) = &app.streams else { continue };
            for (number, output) in streams.outputs.iter().enumerate().filter(|_| self.link.has_room()) {
                let ready = Ready::Output(index, number);
                match output.wants_to_read() {
                    Some(_) if output.is_due() => due.push(ready),
                    Some(fd) => polled.push((ready, fd, PollFlags::POLLIN)),
                    None => (),
                }
            }
            if let Some(fd) = streams.input.as_ref().and_then(|input| input.wants_to_write()) {
                polled.push((Ready::Input(index), fd, PollFlags::POLLOUT));
            }
        }
        for (process, fd, flags) in self.processes.polled(self.link.has_room()) {
            polled.push((Ready::Process(process), fd, flags));
        }
        let mut fds: Vec<_> = polled.iter().map(|(_, fd, flags)| PollFd::new(*fd, *flags)).collect();
        let timeout = if due.is_empty() { self.timeout() } else { PollTimeout::ZERO };
        if poll(&mut fds, timeout).is_ok() {
            let found = polled.iter().zip(&fds).filter(|(_, fd)| fd.any() == Some(true));
            due.extend(found.map(|((ready, ..), _)| *ready));
        }
        due
    }

    fn timeout(&self) -> PollTimeout {
        let next = self.apps.iter().filter_map(|app| app.close_by).chain(self.grace).min();
        let Some(next) = next else { return PollTimeout::NONE };
        // Rounded up: a poll that returns just before the deadline would spin.
        let wait = next.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX)
    }

    fn serve_link(&mut self) -> Result<(), Lost> {
        self.link.fill()?;
        self.serve_frames()
    }

    fn serve_frames(&mut self) -> Result<(), Lost> {
        while let Some(frame) = self.link.next_frame()? {
            match frame.channel {
                CONTROL_CHANNEL => self.obey(&ToAgent::decode(&frame.payload)?)?,
                channel => self.take_input(channel, &frame.payload)?,
            }
        }
        Ok(())
    }

    fn take_input(&mut self, channel: u32, bytes: &[u8]) -> Result<(), Violation> {
        if channel >= PROCESS_CHANNEL_FIRST {
            return self.processes.take_input(channel, bytes, self.link);
        }
        let app = self.apps.iter_mut().find(|app| app.spec.streams.input() == Some(channel));
        let app = app.ok_or_else(|| Violation(format!("bytes on channel {channel}, which is no input")))?;
        // An app that failed to start has no streams.
        match app.streams.as_mut().and_then(|streams| streams.input.as_mut()) {
            Some(input) => input.take(bytes, self.link),
            None => Ok(()),
        }
    }

    fn obey(&mut self, message: &ToAgent) -> Result<(), Violation> {
        match message {
            ToAgent::Exec { process, app, exec, streams } => {
                let request = Request { process: *process, app: *app, exec, streams: *streams };
                self.exec(&request);
                return Ok(());
            }
            ToAgent::SignalProcess { process, signal } => {
                self.processes.signal(*process, valid(*signal)?);
                return Ok(());
            }
            _ => (),
        }
        match *message {
            ToAgent::Exec { .. } | ToAgent::SignalProcess { .. } => (),
            ToAgent::Start(_) => return Err(Violation("a second Start".into())),
            ToAgent::Signal { signal } => self.step(Event::SignalAsked { signal: valid(signal)? }),
            ToAgent::Stop { signal, grace_ms } => {
                let grace = Duration::from_millis(grace_ms.into());
                self.step(Event::StopAsked { signal: signal.map(valid).transpose()?, grace });
            }
            ToAgent::Resize { channel, size } => {
                self.processes.resize(channel, size);
                self.apps.iter().filter_map(|app| app.streams.as_ref()).for_each(|s| s.resize(channel, size));
            }
            ToAgent::Credit { channel, bytes } if channel >= PROCESS_CHANNEL_FIRST => {
                self.processes.credit(channel, bytes)?;
            }
            ToAgent::Credit { channel, bytes } => {
                let streams = self.apps.iter_mut().filter_map(|app| app.streams.as_mut());
                let output = streams.flat_map(|s| &mut s.outputs).find(|output| output.channel() == channel);
                output
                    .ok_or_else(|| Violation(format!("credit for channel {channel}, which is no output")))?
                    .credit(bytes)?;
            }
        }
        Ok(())
    }

    /// Reaps every child that ended: main processes of apps, and orphans that nobody else waits for.
    fn reap(&mut self) {
        while let Ok(Some((pid, outcome))) = sys::reap() {
            let Some(app) = self.apps.iter().position(|app| app.main == Some(pid)) else {
                self.processes.ended(pid, outcome, self.link);
                continue;
            };
            // Its start is told before its end, whichever we noticed first.
            self.hear(app);
            self.apps[app].main = None;
            self.step(Event::MainEnded { app, outcome });
        }
    }

    fn hear(&mut self, app: usize) {
        let Some(word) = self.apps[app].report.as_mut().and_then(Report::read) else { return };
        let report = self.apps[app].report.take();
        self.apps[app].namespaces = report.and_then(|mut report| report.take_namespaces());
        match word {
            Word::Started { namespace } => {
                self.apps[app].namespace = namespace;
                let pid = self.apps[app].main.map_or(0, |pid| pid.as_raw().unsigned_abs());
                self.step(Event::Started { app, pid });
            }
            Word::Failed { fault, text } => {
                self.apps[app].streams = None;
                self.step(Event::StartFailed { app, fault, text });
            }
        }
    }

    fn look_at_the_clock(&mut self) {
        let now = Instant::now();
        if self.grace.take_if(|grace| *grace <= now).is_some() {
            self.step(Event::GraceOver);
        }
        for app in &mut self.apps {
            if app.close_by.take_if(|close_by| *close_by <= now).is_some() {
                app.streams.iter_mut().for_each(Streams::stop_waiting);
            }
        }
    }

    fn report_drained(&mut self) {
        self.processes.report_ended(self.link);
        for app in 0..self.apps.len() {
            let drained = self.apps[app].streams.as_ref().is_none_or(Streams::have_ended);
            if drained && self.supervisor.is_draining(app) {
                self.apps[app].close_by = None;
                self.step(Event::Drained { app });
            }
        }
    }

    fn step(&mut self, event: Event) {
        let mut actions = vec![];
        self.supervisor.step(event, &mut actions);
        for action in actions {
            match action {
                Action::Say(message) => self.link.say(&message),
                Action::Signal { app, signal } => self.signal(app, signal),
                Action::Kill { app } => self.kill(app),
                Action::ArmGrace(grace) => {
                    let new = Instant::now() + grace;
                    self.grace = Some(self.grace.map_or(new, |old| old.min(new)));
                }
                Action::Finish => self.finished = true,
            }
        }
    }

    fn signal(&self, app: usize, signal: i32) {
        if let Some(pid) = self.apps[app].main {
            let _ = sys::kill(pid.as_raw(), signal); // Not reaped yet, so the pid is still its own.
        }
    }

    fn kill(&mut self, index: usize) {
        self.kill_processes(index);
        let app = &mut self.apps[index];
        app.close_by = Some(Instant::now() + CLOSE_MAX);
        // Not before its end: an app that is to be killed must not see its input end first.
        if let (None, Some(streams)) = (app.main, &mut app.streams)
            && let Some(input) = &mut streams.input
        {
            input.close(self.link);
        }
    }

    /// Runs one more program in an app.
    fn exec(&mut self, request: &Request<'_>) {
        let running = self.supervisor.is_running(request.app.into());
        let app = self.apps.get(usize::from(request.app)).filter(|_| running);
        let room = app.and_then(|app| Some((app, app.dir.as_ref()?, app.namespaces.as_ref()?)));
        let Some((app, dir, namespaces)) = room else {
            return self.processes.refuse(request, "the app does not run", self.link);
        };
        let spec = AppSpec { exec: request.exec.to_vec(), streams: request.streams, ..app.spec.clone() };
        let started = Streams::connect(spec.streams, &dir.terminals())
            .doing(AgentFault::Machine, || "make standard streams".into())
            .and_then(|(streams, side)| {
                let room = Room::Running(namespaces);
                let (cgroup, machine, pod) = (app.cgroup.as_ref(), self.machine, self.spec);
                let launched = launch(&Launch { app: &spec, room, side, cgroup, machine, pod })?;
                Ok((streams, launched))
            });
        match started {
            Ok((streams, launched)) => self.processes.add(request, streams, launched),
            Err(why) => self.processes.refuse(request, &chain(&why), self.link),
        }
    }

    fn kill_processes(&self, index: usize) {
        self.processes.kill_of(index);
        let app = &self.apps[index];
        // Also where there is a cgroup: an app that was forked just now has yet to enter it.
        if let Some(pid) = app.main {
            let _ = sys::kill(pid.as_raw(), libc::SIGKILL); // Not reaped yet, so the pid is still its own.
        }
        if app.cgroup.as_ref().is_some_and(|cgroup| cgroup.kill().is_ok()) {
            return;
        }
        let others_live =
            self.apps.iter().enumerate().any(|(other, app)| other != index && app.main.is_some());
        if self.machine.is_own_world() && !others_live {
            return kill_world();
        }
        if let Some(namespace) = app.namespace {
            // A process may fork while we look; its child is caught with the machine at the latest.
            for pid in processes::in_mount_namespace(namespace) {
                let _ = sys::kill(pid, libc::SIGKILL); // It may have ended since.
            }
        }
    }

    /// Kills and reaps whatever is left: every process but this one, or every descendant.
    fn leave_nothing(&mut self) {
        for app in &self.apps {
            if let Some(cgroup) = &app.cgroup {
                let _ = cgroup.kill(); // What follows kills what this cannot.
            }
        }
        loop {
            match self.machine.is_own_world() {
                true => kill_world(),
                // The children of a child that ends become ours.
                false => processes::own_children().for_each(|pid| {
                    let _ = sys::kill(pid, libc::SIGKILL); // It may have ended since.
                }),
            }
            if sys::wait().is_err() {
                return; // No child is left.
            }
        }
    }
}

/// Every process but this one.
fn kill_world() {
    // On a host this would be everybody.
    assert_eq!(std::process::id(), 1, "only PID 1 owns the world");
    let _ = sys::kill(-1, libc::SIGKILL); // There may be none.
}

fn valid(signal: i32) -> Result<i32, Violation> {
    match (1..=libc::SIGRTMAX()).contains(&signal) {
        true => Ok(signal),
        false => Err(Violation(format!("signal {signal}, which does not exist"))),
    }
}

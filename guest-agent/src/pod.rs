//! The shell around [`Supervisor`]: launches the apps, waits for whatever happens next, and does what
//! the supervisor decides.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use hull_agent_protocol::message::{AgentFault, Message};
use hull_agent_protocol::{
    AppSpec, CONTROL_CHANNEL, Frame, FromAgent, Outcome, PROCESS_CHANNEL_FIRST, PodSpec, StandardStreams,
    ToAgent, Violation,
};
use hull_errors::{Doing, chain};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

use crate::app::{App, Surroundings};
use crate::cgroup::PodCgroup;
use crate::exec::{Processes, Request};
use crate::launch::{Launch, Room, Task, Word, launch};
use crate::limits::Missed;
use crate::link::{Link, Lost};
use crate::machine::Machine;
use crate::metadata::Service;
use crate::streams::Streams;
use crate::supervisor::{Action, Event, Supervisor};
use crate::{Error, limits, network, processes, sys, volumes};

/// appc's name for where the metadata service is.
const METADATA_URL: &str = "AC_METADATA_URL";

/// Longest app name, in bytes: it becomes the name of a directory.
const NAME_MAX: usize = 255;

#[derive(Debug)]
struct Pod<'a> {
    machine: Machine,
    link: &'a mut Link,
    supervisor: Supervisor,
    apps: Vec<App>,
    processes: Processes,
    metadata: Option<Service>,
    spec: &'a PodSpec,
    cgroup: Option<&'a PodCgroup>,
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
    Metadata(usize),
}

/// Waits for the pod, runs it, and leaves no process of it. The link's queue is not flushed.
///
/// # Errors
/// Stage1 is gone, or cannot be trusted.
pub(crate) fn run(machine: Machine, cgroup: Option<&PodCgroup>, link: &mut Link) -> Result<(), Lost> {
    let spec = wait_for_start(link)?;
    let mut missed = Missed::new(spec.lenient);
    let prepared = machine
        .name(&spec.hostname)
        .and_then(|()| network::connect(&spec.interfaces))
        .and_then(|()| limits::set_sysctls(machine, &spec, &mut missed))
        .and_then(|()| volumes::make_all(&spec.volumes));
    missed.texts.into_iter().for_each(|text| link.say(&FromAgent::Warning { text }));
    if let Err(why) = prepared {
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
    let mut pod = Pod::new(machine, &spec, cgroup, link);
    if let Err(why) = pod.serve_metadata() {
        pod.link.say(&FromAgent::Failed { app: None, fault: *why.kind(), text: chain(&why) });
        return Ok(());
    }
    (0..spec.apps.len()).for_each(|app| pod.launch(app));
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
    if spec.volumes.len() > PodSpec::VOLUMES_MAX
        || spec.apps.iter().any(|app| app.mounts.len() > AppSpec::MOUNTS_MAX)
    {
        return refuse("too many volumes or mounts");
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
    fn new(machine: Machine, spec: &'a PodSpec, cgroup: Option<&'a PodCgroup>, link: &'a mut Link) -> Self {
        Self {
            machine,
            link,
            supervisor: Supervisor::new(&spec.apps),
            apps: spec.apps.iter().map(App::new).collect(),
            processes: Processes::default(),
            metadata: None,
            spec,
            cgroup,
            grace: None,
            finished: false,
        }
    }

    /// Lets the apps ask what their pod is, and tells them where.
    fn serve_metadata(&mut self) -> Result<(), Error> {
        let Some(metadata) = &self.spec.metadata else { return Ok(()) };
        let started = Service::start(metadata).and_then(|service| Ok((service.url(metadata)?, service)));
        let (url, service) = started.doing(AgentFault::Machine, || "start the metadata service".into())?;
        for app in &mut self.apps {
            app.spec.environment.retain(|(name, _)| name != METADATA_URL);
            app.spec.environment.push((METADATA_URL.into(), url.clone()));
        }
        self.metadata = Some(service);
        Ok(())
    }

    fn surroundings(&self) -> Surroundings<'a> {
        Surroundings { machine: self.machine, pod: self.spec, cgroup: self.cgroup }
    }

    fn launch(&mut self, app: usize) {
        let (around, mut missed) = (self.surroundings(), Missed::new(self.spec.lenient));
        let launched = self.apps[app].launch(app, around, &mut missed);
        missed.texts.into_iter().for_each(|text| self.link.say(&FromAgent::Warning { text }));
        if let Err(why) = launched {
            let (fault, text) = (*why.kind(), chain(&why));
            self.step(Event::StartFailed { app, fault, text });
        }
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
                    Ready::Metadata(number) => {
                        self.metadata.iter_mut().for_each(|service| service.serve(number, self.link));
                    }
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
        for (number, fd, flags) in self.metadata.iter().flat_map(Service::polled) {
            polled.push((Ready::Metadata(number), fd, flags));
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
        let next = self.apps.iter().filter_map(App::due).chain(self.grace);
        let next = next.chain(self.metadata.as_ref().and_then(Service::due)).min();
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
                let request = Request { process: *process, app: *app, exec: Some(exec), streams: *streams };
                self.exec(&request);
                return Ok(());
            }
            ToAgent::Export { process, app, streams } => {
                self.exec(&Request { process: *process, app: *app, exec: None, streams: *streams });
                return Ok(());
            }
            ToAgent::Signed { request, signature } => {
                self.metadata
                    .iter_mut()
                    .for_each(|service| service.answered(*request, Some(signature), true));
                return Ok(());
            }
            ToAgent::Verified { request, valid } => {
                self.metadata.iter_mut().for_each(|service| service.answered(*request, None, *valid));
                return Ok(());
            }
            ToAgent::SignalProcess { process, signal } => {
                self.processes.signal(*process, valid(*signal)?);
                return Ok(());
            }
            _ => (),
        }
        match *message {
            ToAgent::Exec { .. }
            | ToAgent::Export { .. }
            | ToAgent::Signed { .. }
            | ToAgent::Verified { .. }
            | ToAgent::SignalProcess { .. } => (),
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

    /// Reaps every child that ended: those of apps, and orphans that nobody else waits for.
    fn reap(&mut self) {
        while let Ok(Some((pid, outcome))) = sys::reap() {
            if let Some(app) = self.apps.iter().position(|app| app.main == Some(pid)) {
                // Its start is told before its end, whichever we noticed first.
                self.hear(app);
                self.apps[app].main = None;
                let ran = self.apps[app].ran();
                self.step(Event::MainEnded { app, outcome, ran });
            } else if !self.reap_cleaner(pid, outcome) {
                self.processes.ended(pid, outcome, self.link);
            }
        }
    }

    fn reap_cleaner(&mut self, pid: Pid, outcome: Outcome) -> bool {
        for app in 0..self.apps.len() {
            if let Some(came_to) = self.apps[app].cleaner_ended(pid, outcome) {
                if let Err(why) = came_to {
                    self.warn(app, &why);
                }
                self.step(Event::CleanedUp { app });
                return true;
            }
        }
        false
    }

    fn warn(&mut self, app: usize, why: &str) {
        let text = format!("app {}: {why}", self.apps[app].spec.name);
        self.link.say(&FromAgent::Warning { text });
    }

    fn hear(&mut self, app: usize) {
        match self.apps[app].hear() {
            Some(Word::Started { .. }) => {
                let pid = self.apps[app].main.map_or(0, |pid| pid.as_raw().unsigned_abs());
                self.step(Event::Started { app, pid });
            }
            Some(Word::Failed { fault, text }) => self.step(Event::StartFailed { app, fault, text }),
            None => (),
        }
    }

    fn look_at_the_clock(&mut self) {
        let now = Instant::now();
        self.metadata.iter_mut().for_each(|service| service.tidy(now));
        if self.grace.take_if(|grace| *grace <= now).is_some() {
            self.step(Event::GraceOver);
        }
        for app in 0..self.apps.len() {
            if self.apps[app].wait_until.take_if(|until| *until <= now).is_some() {
                self.step(Event::WaitOver { app });
            }
            if self.apps[app].cleans_too_long(now) {
                self.kill(app);
            }
            if self.apps[app].close_by.take_if(|close_by| *close_by <= now).is_some() {
                self.apps[app].streams.iter_mut().for_each(Streams::stop_waiting);
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
                Action::Signal { app, signal } => self.apps[app].signal(signal),
                Action::Kill { app } => self.kill(app),
                Action::CleanUp { app } => self.clean_up(app),
                Action::Wait { app, time } => self.apps[app].wait_until = Some(Instant::now() + time),
                Action::Launch { app } => self.launch(app),
                Action::LetGo { app } => self.apps[app].let_go(self.link),
                Action::ArmGrace(grace) => {
                    let new = Instant::now() + grace;
                    self.grace = Some(self.grace.map_or(new, |old| old.min(new)));
                }
                Action::Finish => self.finished = true,
            }
        }
    }

    fn clean_up(&mut self, app: usize) {
        let around = self.surroundings();
        match self.apps[app].clean_up(around) {
            Ok(true) => return,
            Ok(false) => (),
            Err(why) => self.warn(app, &chain(&why)),
        }
        self.step(Event::CleanedUp { app });
    }

    fn kill(&self, index: usize) {
        self.processes.kill_of(index);
        let others_live = self.apps.iter().enumerate().any(|(other, app)| other != index && app.lives());
        self.apps[index].kill(self.machine, others_live);
    }

    /// Runs one more program in an app.
    fn exec(&mut self, request: &Request<'_>) {
        let running = self.supervisor.is_running(request.app.into());
        let app = self.apps.get(usize::from(request.app)).filter(|_| running);
        let room = app.and_then(|app| Some((app, app.dir.as_ref()?, app.namespaces.as_ref()?)));
        let Some((app, dir, namespaces)) = room else {
            return self.processes.refuse(request, "the app does not run", self.link);
        };
        let (task, room) = match request.exec {
            Some(_) => (Task::Run, Room::Running(namespaces)),
            None => (Task::Export, Room::New(dir)),
        };
        let exec = request.exec.unwrap_or_default().to_vec();
        let spec = AppSpec { exec, streams: request.streams, ..app.spec.clone() };
        let started = Streams::connect(spec.streams, &dir.terminals())
            .doing(AgentFault::Machine, || "make standard streams".into())
            .and_then(|(streams, side)| {
                let (cgroup, machine, pod) = (app.cgroup.as_ref(), self.machine, self.spec);
                let launched = launch(&Launch { app: &spec, room, task, side: &side, cgroup, machine, pod })?;
                Ok((streams, launched))
            });
        match started {
            Ok((streams, launched)) => self.processes.add(request, streams, launched),
            Err(why) => self.processes.refuse(request, &chain(&why), self.link),
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
                true => processes::kill_world(),
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

fn valid(signal: i32) -> Result<i32, Violation> {
    match (1..=libc::SIGRTMAX()).contains(&signal) {
        true => Ok(signal),
        false => Err(Violation(format!("signal {signal}, which does not exist"))),
    }
}

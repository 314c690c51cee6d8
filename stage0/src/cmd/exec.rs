//! `hull exec`: a command joins an app of a running pod.
//!
//! Output flows from stage1 to this process's own descriptors. Input from a terminal passes through here: stage1
//! may be a background job of the same terminal, and would be stopped by reading from it.

use std::fs::File;
use std::io::{IsTerminal, PipeWriter, pipe, stderr, stdin, stdout};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use hull_errors::Doing;
use hull_pod::AppName;
use hull_pod::control::{Answer, Client, Request};
use hull_pod::verdict::exit_code;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{OutputFlags, SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::{read, write};

use super::call::{ask, call};
use crate::cli::control::ExecArgs;
use crate::cli::detach::DetachKeys;
use crate::host::Host;
use crate::{Error, Kind};

/// Signals that mean the command rather than this process.
const FORWARDED: [Signal; 6] =
    [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGUSR1, Signal::SIGUSR2];

/// Bytes of a terminal that are read at once.
const CHUNK: usize = 4096;

pub(crate) fn exec(args: &ExecArgs, host: &Host) -> Result<ExitCode, Error> {
    if args.tty && !stdin().is_terminal() {
        let why = "--tty needs a terminal as standard input; leave it out to run the command without one";
        return Err(Error::new(Kind::User, why));
    }
    let what = What::Program { command: args.command.clone(), stdin: args.interactive || args.tty };
    let job = Job { app: args.app.clone(), what, terminal: args.tty, detach: DetachKeys::none() };
    job.run(&args.uuid, host)?.code()
}

/// What to do in an app, and how that is connected.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) app: Option<AppName>,
    pub(super) what: What,
    pub(super) terminal: bool,
    /// What one types to leave the app to itself.
    pub(super) detach: DetachKeys,
}

#[derive(Debug)]
pub(super) enum What {
    /// Run a command.
    Program { command: Vec<String>, stdin: bool },
    /// Be connected to its own streams.
    Attach { stdin: bool, stdout: bool, stderr: bool },
}

/// What it came to.
#[derive(Debug)]
pub(super) enum Come {
    Ended(ExitCode),
    /// The user left.
    Detached,
    /// It did not start.
    Refused(String),
}

impl Come {
    pub(super) fn code(self) -> Result<ExitCode, Error> {
        match self {
            Self::Ended(code) => Ok(code),
            Self::Detached => Ok(ExitCode::SUCCESS),
            Self::Refused(why) => Err(Error::new(Kind::User, why)),
        }
    }
}

impl Job {
    pub(super) fn run(&self, uuid: &str, host: &Host) -> Result<Come, Error> {
        let pods = host.pods()?;
        let found = pods.find(uuid).doing(Kind::User, || "find the pod".into())?;
        let not_running = || Error::new(Kind::User, format!("pod {:?} is not running", found.id.as_str()));
        let client = call(&pods, &found)?.ok_or_else(not_running)?;
        let signals = self.take_signals()?;
        let (given, pump) = self.input()?;
        // The command may write before anybody says that it has started.
        let raw = (self.terminal && stdin().is_terminal()).then(Raw::output).transpose()?;
        self.ask(&client, &given)?;
        drop(given);
        let mut line = Line { client, signals, pump, started: false, detach: self.detach.clone() };
        loop {
            let Some(answer) = line.next()? else { return Ok(Come::Detached) };
            match answer {
                Answer::Started => {
                    line.started = true;
                    // Until there is somebody to type to, this command can be interrupted.
                    raw.as_ref().map_or(Ok(()), Raw::input)?;
                }
                // All that was to be said to the app is said.
                Answer::Done => return Ok(Come::Detached),
                Answer::Endpoints { .. } => (),
                Answer::Refused { text } => return Ok(Come::Refused(text)),
                Answer::Exited { outcome } => {
                    drop(raw);
                    return Ok(Come::Ended(ExitCode::from(exit_code(outcome))));
                }
            }
        }
    }

    fn ask(&self, client: &Client, input: &OwnedFd) -> Result<(), Error> {
        let (app, terminal) = (self.app.clone(), self.terminal);
        let request = match &self.what {
            What::Program { command, .. } => Request::Exec { app, exec: command.clone(), terminal },
            What::Attach { stdin, stdout, stderr } => {
                Request::Attach { app, stdin: *stdin, stdout: *stdout, stderr: *stderr, terminal }
            }
        };
        let (out, err, terminal) = (stdout(), stderr(), stdin());
        let all = [input.as_fd(), out.as_fd(), err.as_fd(), terminal.as_fd()];
        let count = if self.terminal { 4 } else { 3 };
        client.ask(&request, &all[..count]).doing(Kind::Host, || "speak to the pod".into())
    }

    /// What the command reads from, and where the terminal's bytes are to go.
    fn input(&self) -> Result<(OwnedFd, Option<PipeWriter>), Error> {
        let doing = || "connect standard input".to_owned();
        let (What::Program { stdin: wanted, .. } | What::Attach { stdin: wanted, .. }) = self.what;
        if !wanted {
            return Ok((File::open("/dev/null").doing(Kind::Host, doing)?.into(), None));
        }
        if !stdin().is_terminal() {
            return Ok((stdin().as_fd().try_clone_to_owned().doing(Kind::Host, doing)?, None));
        }
        let (reader, writer) = pipe().doing(Kind::Host, doing)?;
        Ok((reader.into(), Some(writer)))
    }

    /// Who is only attached to an app takes no signals for it: they end this command, and the app goes on.
    fn take_signals(&self) -> Result<SignalFd, Error> {
        let forwarded = match self.what {
            What::Program { .. } => &FORWARDED[..],
            What::Attach { .. } => &[],
        };
        let set: SigSet = forwarded.iter().copied().chain([Signal::SIGWINCH]).collect();
        set.thread_block().doing(Kind::Host, || "block signals".into())?;
        SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .doing(Kind::Host, || "make a signalfd".into())
    }
}

/// The connection while the command runs.
#[derive(Debug)]
struct Line {
    client: Client,
    signals: SignalFd,
    pump: Option<PipeWriter>,
    /// What is typed before that may be meant for the next shell that is tried.
    started: bool,
    detach: DetachKeys,
}

impl Line {
    /// The next answer; `None` if the user leaves. Passes on signals and what is typed until then.
    fn next(&mut self) -> Result<Option<Answer>, Error> {
        loop {
            let terminal = stdin();
            let mut fds = vec![
                PollFd::new(self.client.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            ];
            let typing = self.pump.as_ref().filter(|_| self.started);
            fds.extend(typing.map(|_| PollFd::new(terminal.as_fd(), PollFlags::POLLIN)));
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => (),
                Err(why) => return Err(Error::because(Kind::Host, "wait for the pod", why)),
            }
            let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect();
            if ready[1] {
                self.pass_signals()?;
            }
            if ready.get(2) == Some(&true) && self.pump() {
                return Ok(None);
            }
            if ready[0] {
                let answer = self.client.answer().doing(Kind::Host, || "hear from the pod".into())?;
                let gone = || Error::new(Kind::Host, "the pod ended before the command did");
                return answer.ok_or_else(gone).map(Some);
            }
        }
    }

    fn pass_signals(&self) -> Result<(), Error> {
        while let Ok(Some(info)) = self.signals.read_signal() {
            let signal = i32::try_from(info.ssi_signo).unwrap_or_default();
            match signal == Signal::SIGWINCH as i32 {
                true => ask(&self.client, &Request::Resize)?,
                false => ask(&self.client, &Request::Signal { signal })?,
            }
        }
        Ok(())
    }

    /// Passes on what is typed; `true` if that was to leave.
    fn pump(&mut self) -> bool {
        let Some(writer) = &self.pump else { return false };
        let mut chunk = [0; CHUNK];
        let typed = match read(stdin(), &mut chunk) {
            Err(Errno::EINTR | Errno::EAGAIN) => return false,
            Ok(len) => len,
            Err(_) => 0, // A terminal that hung up.
        };
        let Some(keys) = self.detach.filter(&chunk[..typed]) else { return true };
        // A whole chunk fits into a pipe or waits for the command to read; nothing else is to be done then.
        let written = if keys.is_empty() { Ok(0) } else { write(writer, &keys) };
        if typed == 0 || written.is_err() {
            self.pump = None;
        }
        false
    }
}

/// This terminal in raw mode: the command's own does the line editing. Restored on drop.
#[derive(Debug)]
struct Raw(Termios);

impl Raw {
    /// Leaves what is written as it is.
    fn output() -> Result<Self, Error> {
        let before = tcgetattr(stdin()).doing(Kind::Host, || "read the terminal's settings".into())?;
        let mut raw = before.clone();
        raw.output_flags.remove(OutputFlags::OPOST);
        Self::set(&raw)?;
        Ok(Self(before))
    }

    /// Leaves what is typed as it is, too.
    fn input(&self) -> Result<(), Error> {
        let mut raw = self.0.clone();
        cfmakeraw(&mut raw);
        Self::set(&raw)
    }

    fn set(to: &Termios) -> Result<(), Error> {
        tcsetattr(stdin(), SetArg::TCSANOW, to).doing(Kind::Host, || "make the terminal raw".into())
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(stdin(), SetArg::TCSANOW, &self.0); // A terminal that is gone needs nothing.
    }
}

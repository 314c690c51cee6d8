//! Runs the one command of the emulated host, as a PID 1 does: everything that dies is reaped.
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};

use hull_errors::Doing;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::message::{Job, Kind as Word};
use crate::error::{Error, Kind, Result};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// One read takes 64 KiB and a pipe holds 1 MiB at most (pipe(7)); more is new, from a process that
/// outlived the command.
const DRAIN_READS_MAX: u32 = 16;

/// The exit code that env(1) has for a program that cannot be run.
const NOT_RUN: u8 = 126;
/// And for one that does not exist.
const NOT_FOUND: u8 = 127;

/// Runs the job to the end of its first process and passes on what it says. What others hold
/// its pipes open for is not waited for.
pub(crate) fn run(job: &Job, mut tell: impl FnMut(Word, &[u8]) -> Result<()>) -> Result<u8> {
    let ended = child_signal().doing(Kind::Lab, || "listen for ended processes".into())?;
    let (program, arguments) =
        job.arguments.split_first().ok_or_else(|| Error::new(Kind::Lab, "run nothing"))?;
    let mut command = Command::new(program);
    command.args(arguments).current_dir(&job.directory).env_clear();
    command.env("PATH", PATH).env("HOME", "/root").env("LANG", "C.UTF-8");
    command.envs(job.environment.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(e) => {
            tell(Word::Error, format!("lab: run {}: {e}\n", program.to_string_lossy()).as_bytes())?;
            return Ok(if e.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_RUN });
        }
    };
    let mut streams = [
        Stream::new(Word::Output, child.stdout.take().map(OwnedFd::from)),
        Stream::new(Word::Error, child.stderr.take().map(OwnedFd::from)),
    ];
    let first = Pid::from_raw(child.id().cast_signed());
    let code = loop {
        forward(&mut streams, &ended, &mut tell)?;
        if let Some(code) = reap(&ended, first)? {
            break code;
        }
    };
    for stream in &mut streams {
        stream.drain(&mut tell)?;
    }
    Ok(code)
}

/// SIGCHLD as something to poll. Rust gives children an empty signal mask.
fn child_signal() -> nix::Result<SignalFd> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGCHLD);
    set.thread_block()?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

/// Waits, and passes on what each stream has.
fn forward(
    streams: &mut [Stream; 2],
    ended: &SignalFd,
    tell: &mut impl FnMut(Word, &[u8]) -> Result<()>,
) -> Result<()> {
    let ready = {
        let watch = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let open = streams.iter().filter_map(|s| s.pipe.as_ref()).map(|pipe| watch(pipe.as_fd()));
        let mut fds: Vec<PollFd<'_>> = std::iter::once(watch(ended.as_fd())).chain(open).collect();
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(e) => return Err(Error::because(Kind::Lab, "wait for the command", e)),
        }
        let ready: Vec<bool> = fds.iter().skip(1).map(|fd| fd.any().unwrap_or(false)).collect();
        ready
    };
    let open = streams.iter_mut().filter(|s| s.pipe.is_some());
    for (stream, _) in open.zip(ready).filter(|(_, ready)| *ready) {
        stream.pass_on(tell)?;
    }
    Ok(())
}

/// Reaps all that ended; the exit code if `first` was among them.
fn reap(ended: &SignalFd, first: Pid) -> Result<Option<u8>> {
    while let Ok(Some(_)) = ended.read_signal() {}
    let mut code = None;
    loop {
        let status = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(nix::Error::ECHILD) => return Ok(code),
            Ok(status) => status,
            Err(e) => return Err(Error::because(Kind::Lab, "reap a process", e)),
        };
        match status {
            WaitStatus::Exited(pid, status) if pid == first => code = u8::try_from(status).ok(),
            WaitStatus::Signaled(pid, signal, _) if pid == first => code = Some(128 + signal as u8),
            _ => {}
        }
    }
}

/// One of the command's outputs.
struct Stream {
    word: Word,
    /// None after its end.
    pipe: Option<File>,
}

impl Stream {
    fn new(word: Word, pipe: Option<OwnedFd>) -> Self {
        Self { word, pipe: pipe.map(File::from) }
    }

    /// One read; false when there is nothing more now, or ever.
    fn pass_on(&mut self, tell: &mut impl FnMut(Word, &[u8]) -> Result<()>) -> Result<bool> {
        let mut bytes = [0; 64 << 10];
        let Some(pipe) = &mut self.pipe else { return Ok(false) };
        match pipe.read(&mut bytes) {
            Ok(0) => self.pipe = None,
            Ok(count) => {
                tell(self.word, &bytes[..count])?;
                return Ok(true);
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(Error::because(Kind::Lab, "read what the command says", e)),
        }
        Ok(false)
    }

    /// What was said before the end, whoever still holds the other end.
    fn drain(&mut self, tell: &mut impl FnMut(Word, &[u8]) -> Result<()>) -> Result<()> {
        if let Some(pipe) = &self.pipe {
            let set = fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK));
            set.doing(Kind::Lab, || "drain what the command said".into())?;
        }
        for _ in 0..DRAIN_READS_MAX {
            if !self.pass_on(tell)? {
                break;
            }
        }
        Ok(())
    }
}

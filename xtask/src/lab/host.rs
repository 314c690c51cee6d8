//! The outer side: starts the machine, hands over the job, passes on what comes back.
use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use hull_errors::Doing;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::archive::Archive;
use super::message::{Decoder, Frame, Job, Kind as Word};
use super::options::Options;
use super::qemu::{self, Files, Machine};
use super::{EXCHANGE_VARIABLE, mounts};
use crate::error::{Error, Kind, Result};
use crate::install;
use crate::kernel::{self, Flavour};
use crate::paths::Paths;
use crate::tool;

/// How much of the console is kept to explain a broken host.
const CONSOLE_MAX: usize = 64 << 10;

/// How many lines of it are shown.
const CONSOLE_LINES: usize = 40;

/// Our own variables of the environment that the command should see.
const PASSED_ON: [&str; 3] = ["HULL_", "RUST_", "CARGO_"];

pub(crate) fn run(options: &Options, paths: &Paths) -> Result<ExitCode> {
    install::ensure(qemu::PACKAGES)?;
    let kernel = kernel::ensure(Flavour::Lab, paths)?;
    let exchange = paths.exchange();
    fs::create_dir_all(&exchange).doing(Kind::Failed, || format!("create {}", exchange.display()))?;
    let job = job(options, paths)?;
    let signals = signals().doing(Kind::Lab, || "listen for signals".into())?;
    let deadline = Instant::now() + options.timeout;
    let archive = archive(paths)?;
    let machine = Machine::start(options, &Files { kernel: &kernel, archive, exchange: &exchange })?;
    let mut session =
        Session { machine, job, decoder: Decoder::default(), console: Vec::new(), loud: options.console };
    let code = session.serve(&signals, deadline);
    code.map_err(|e| session.explain(e))
}

fn job(options: &Options, paths: &Paths) -> Result<Job> {
    let directory = env::current_dir().doing(Kind::Failed, || "find the current folder".into())?;
    let mut environment: Vec<(OsString, OsString)> = env::vars_os()
        .filter(|(name, _)| PASSED_ON.iter().any(|prefix| name.as_bytes().starts_with(prefix.as_bytes())))
        .collect();
    environment.push((EXCHANGE_VARIABLE.into(), paths.exchange().into()));
    let kept = [&directory, &paths.checkout, &paths.target, &paths.cache].into_iter().chain(&options.shares);
    let shares = kept.filter(|p| mounts::covered(p)).cloned().collect();
    Ok(Job { directory, environment, arguments: options.command.clone(), shares })
}

/// SIGINT, SIGTERM and SIGHUP become readable, so that QEMU is gone before we are.
fn signals() -> nix::Result<SignalFd> {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        set.add(signal);
    }
    set.thread_block()?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

/// The boot archive, in a memory file: this program as `/init`, and what it needs to start.
fn archive(paths: &Paths) -> Result<OwnedFd> {
    let program = stripped(paths)?;
    let bytes = fs::read(&program).doing(Kind::Lab, || format!("read {}", program.display()))?;
    let mut archive = Archive::default();
    for folder in mounts::FOLDERS {
        archive.folder(folder);
    }
    archive.character_device("dev/console", (5, 1));
    archive.program("init", &bytes);
    let doing = || "write the boot archive".to_owned();
    let mut file = File::from(memfd_create(c"hull-lab", MFdFlags::MFD_CLOEXEC).doing(Kind::Lab, doing)?);
    file.write_all(&archive.finish()).doing(Kind::Lab, doing)?;
    Ok(file.into())
}

/// This program without what only a debugger wants: the emulated host unpacks it slowly. Kept
/// beside it until it changes.
fn stripped(paths: &Paths) -> Result<PathBuf> {
    let kept = paths.target.join("xtask-init");
    let changed = |path: &Path| fs::metadata(path).and_then(|m| m.modified());
    if let (Ok(ours), Ok(theirs)) = (changed(&paths.program), changed(&kept))
        && ours < theirs
    {
        return Ok(kept);
    }
    let fresh = kept.with_extension(std::process::id().to_string());
    tool::run(Command::new("strip").args(["--strip-all", "-o"]).arg(&fresh).arg(&paths.program))?;
    fs::rename(&fresh, &kept).doing(Kind::Lab, || format!("rename {}", fresh.display()))?;
    Ok(kept)
}

/// One run of the machine.
struct Session {
    machine: Machine,
    job: Job,
    decoder: Decoder,
    /// The last [`CONSOLE_MAX`] bytes or more.
    console: Vec<u8>,
    /// Copy the console to stderr.
    loud: bool,
}

impl Session {
    fn serve(&mut self, signals: &SignalFd, deadline: Instant) -> Result<ExitCode> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::new(
                    Kind::Timeout,
                    "run the command in the lab: out of time (see --timeout)",
                ));
            }
            let [port, console, signal] = self.wait(signals, left)?;
            if signal {
                return Err(ended_by(signals));
            }
            if console {
                self.read_console()?;
            }
            if port && let Some(code) = self.read_port()? {
                return Ok(ExitCode::from(code));
            }
        }
    }

    /// Which of port, console and signals have something.
    fn wait(&self, signals: &SignalFd, left: Duration) -> Result<[bool; 3]> {
        let watch = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let machine = &self.machine;
        let mut fds = [watch(machine.port.as_fd()), watch(machine.console.as_fd()), watch(signals.as_fd())];
        // A day at most; the loop comes back.
        let left = left.min(Duration::from_secs(86_400)) + Duration::from_millis(1);
        let timeout = PollTimeout::try_from(left).expect("a day of milliseconds fits");
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::Error::EINTR) => Ok(fds.map(|fd| fd.any().unwrap_or(false))),
            Err(e) => Err(Error::because(Kind::Lab, "wait for the emulated host", e)),
        }
    }

    fn read_port(&mut self) -> Result<Option<u8>> {
        let mut bytes = [0; 64 << 10];
        let count = match self.machine.port.read(&mut bytes) {
            Ok(count) if count > 0 => count,
            Ok(_) | Err(_) => return Err(self.died()),
        };
        self.decoder.push(&bytes[..count]);
        let garbled = || "understand the emulated host".to_owned();
        while let Some(frame) = self.decoder.next().doing(Kind::Lab, garbled)? {
            if let Some(code) = self.obey(&frame)? {
                return Ok(Some(code));
            }
        }
        Ok(None)
    }

    fn obey(&mut self, Frame { kind, bytes }: &Frame) -> Result<Option<u8>> {
        let told = || "pass on what the command says".to_owned();
        match (kind, bytes.as_slice()) {
            (Word::Ready, _) => {
                let sent = self.machine.port.write_all(&self.job.encode());
                sent.doing(Kind::Lab, || "hand the command to the emulated host".into())?;
            }
            (Word::Output, bytes) => pass_on(&mut io::stdout().lock(), bytes).doing(Kind::Failed, told)?,
            (Word::Error, bytes) => pass_on(&mut io::stderr().lock(), bytes).doing(Kind::Failed, told)?,
            (Word::Exit, [code]) => return Ok(Some(*code)),
            (Word::Fault, text) => {
                let text = String::from_utf8_lossy(text).into_owned();
                return Err(Error::because(Kind::Lab, "prepare the emulated host", text));
            }
            _ => return Err(Error::new(Kind::Lab, "understand the emulated host: a frame out of place")),
        }
        Ok(None)
    }

    fn read_console(&mut self) -> Result<()> {
        let mut bytes = [0; 4096];
        let count = self.machine.console.read(&mut bytes);
        let count = count.doing(Kind::Lab, || "read the emulated host's console".into())?;
        if count == 0 {
            return Err(self.died());
        }
        self.keep(&bytes[..count]);
        Ok(())
    }

    /// The reason is on the console, which may have more to say than was read.
    fn died(&mut self) -> Error {
        let mut rest = Vec::new();
        // What cannot be read is not shown.
        let _ = self.machine.console.read_to_end(&mut rest);
        self.keep(&rest);
        Error::new(Kind::Lab, "run the command in the lab: the emulated host died")
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.loud {
            // Losing console output is no reason to stop.
            let _ = pass_on(&mut io::stderr().lock(), bytes);
        }
        self.console.extend_from_slice(bytes);
        if self.console.len() > 2 * CONSOLE_MAX {
            self.console.drain(..self.console.len() - CONSOLE_MAX);
        }
    }

    /// Adds the console's last lines where they help.
    fn explain(&self, error: Error) -> Error {
        let text = String::from_utf8_lossy(&self.console);
        let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
        if *error.kind() == Kind::Lab && !self.loud && !lines.is_empty() {
            eprintln!("xtask: the emulated host's last words:");
            for line in &lines[lines.len().saturating_sub(CONSOLE_LINES)..] {
                eprintln!("  {line}");
            }
        }
        error
    }
}

fn pass_on(to: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes)?;
    to.flush()
}

fn ended_by(signals: &SignalFd) -> Error {
    let number = match signals.read_signal() {
        Ok(Some(info)) => u8::try_from(info.ssi_signo).unwrap_or(0),
        Ok(None) | Err(_) => 0,
    };
    Error::new(Kind::Signal(number), format!("run the command in the lab: ended by signal {number}"))
}

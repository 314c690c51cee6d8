//! Measures each contender: times without tracing, exits in runs of their own, memory while the app waits.
use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hull_errors::Doing;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::contender::{App, Contender, hull_debug};
use super::elf;
use super::exits::Exits;
use super::figures::{Figures, Measured, Spread};
use super::memory::Memory;
use super::options::Job;
use super::place::Place;
use super::tracing::Tracing;
use crate::error::{Error, Kind, Result};
use crate::tool::{self, say};

/// What the app says; a terminal adds a carriage return.
const HELLO: &str = "hello";

/// No contender may take longer for anything, in milliseconds.
const PATIENCE_MS: u16 = 60_000;

pub(super) fn run(job: &Job) -> Result<Figures> {
    let place = Place::build(&job.programs)?;
    // Converts the image, which QEMU's guest takes as well.
    timed(&mut Contender::Hull.command(App::Hello, &place)?, &mut || Ok(()))?;
    let kernel = place.kernel();
    let kernel = fs::read(&kernel).doing(Kind::Failed, || format!("read {}", kernel.display()))?;
    let measured = |contender| measure(contender, &place, job);
    Ok(Figures {
        host: job.host,
        runs: job.runs,
        versions: versions(&place)?,
        hull: Measured { kernel_bytes_copied: hull_kernel_bytes(&place)?, ..measured(Contender::Hull)? },
        qemu: Measured {
            kernel_bytes_copied: elf::loaded_bytes(&kernel)
                .ok_or_else(|| Error::new(Kind::Failed, "read the kernel's program headers"))?,
            ..measured(Contender::Qemu)?
        },
    })
}

fn measure(contender: Contender, place: &Place, job: &Job) -> Result<Measured> {
    say(format_args!("measuring {}", contender.name()));
    let command = |app| contender.command(app, place);
    // Once for the page cache.
    timed(&mut command(App::Hello)?, &mut || Ok(()))?;
    let (mut first, mut total) = (Vec::new(), Vec::new());
    for _ in 0..job.runs {
        let times = timed(&mut command(App::Hello)?, &mut || Ok(()))?;
        first.push(times.first_byte);
        total.push(times.total);
    }
    Ok(Measured {
        first_byte: Spread::of(&first),
        total: Spread::of(&total),
        exits: exits(contender, place, job)?,
        memory: memory(&mut command(App::Wait)?)?,
        kernel_bytes_copied: 0,
    })
}

/// The run in the middle of as many as are timed.
fn exits(contender: Contender, place: &Place, job: &Job) -> Result<Option<Exits>> {
    let Some(tracing) = Tracing::find(job.host)? else { return Ok(None) };
    let mut counted = Vec::new();
    for _ in 0..job.runs {
        let counting = tracing.start()?;
        let mut first_byte = None;
        timed(&mut contender.command(App::Hello, place)?, &mut || {
            first_byte = Some(counting.read()?);
            Ok(())
        })?;
        let first_byte = first_byte.expect("a run without a first byte has failed");
        counted.push(Exits { first_byte, total: counting.read()? });
    }
    Ok(Exits::median(counted))
}

struct Times {
    first_byte: Duration,
    total: Duration,
}

/// From the start to the first byte of the app, and to the exit code.
fn timed(command: &mut Command, on_first_byte: &mut dyn FnMut() -> Result<()>) -> Result<Times> {
    let start = Instant::now();
    let mut running = Running::start(command, Stdio::null(), Stdio::inherit())?;
    running.read()?;
    let first_byte = start.elapsed();
    on_first_byte()?;
    while running.read()? {}
    let status = running.child.wait().doing(Kind::Failed, || format!("wait for {}", running.name))?;
    let total = start.elapsed();
    let said = String::from_utf8_lossy(&running.said);
    match status.success() && said.trim() == HELLO {
        true => Ok(Times { first_byte, total }),
        false => Err(Error::new(Kind::Failed, format!("run {}: {status}, it said {said:?}", running.name))),
    }
}

/// While the app waits for input.
fn memory(command: &mut Command) -> Result<Memory> {
    let mut running = Running::start(command, Stdio::piped(), Stdio::inherit())?;
    running.read_until(HELLO)?;
    let doing = || format!("talk to {}", running.name);
    let stdin = running.child.stdin.as_mut().expect("it was asked for");
    stdin.write_all(b"still there\n").doing(Kind::Failed, doing)?;
    running.read_until("there")?;
    let process = running.child.id();
    let mut sum = Memory::default();
    for pid in children(process).into_iter().chain([process]) {
        let path = format!("/proc/{pid}/smaps");
        let smaps = fs::read_to_string(&path).doing(Kind::Failed, || format!("read {path}"))?;
        let memory = Memory::read(&smaps);
        sum += memory.ok_or_else(|| Error::new(Kind::Failed, format!("understand {path}")))?;
    }
    Ok(sum)
}

/// The processes that a process has started: a supervisor's VMM.
fn children(parent: u32) -> Vec<u32> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        // Behind the name, which may hold anything: the state, the parent (proc(5)).
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        fields.split_whitespace().nth(1).and_then(|text| text.parse().ok()) == Some(parent)
    })
    .collect()
}

fn hull_kernel_bytes(place: &Place) -> Result<u64> {
    let mut command = hull_debug(place);
    let doing = format!("run {}", tool::shown(&command));
    let output = command.stdin(Stdio::null()).output().doing(Kind::Failed, || doing.clone())?;
    let said = String::from_utf8_lossy(&output.stderr);
    copied(&said)
        .ok_or_else(|| Error::new(Kind::Failed, format!("{doing}: it did not say what it copied: {said}")))
}

/// The number in `hull-kvm: 123 bytes of kernel copied`.
fn copied(said: &str) -> Option<u64> {
    let number =
        |line: &str| line.strip_prefix("hull-kvm: ")?.strip_suffix(" bytes of kernel copied")?.parse().ok();
    said.lines().find_map(number)
}

fn versions(place: &Place) -> Result<Vec<(&'static str, String)>> {
    let first_line = |text: String| text.lines().next().unwrap_or_default().to_owned();
    let hull = tool::read(Command::new(place.hull()).arg("version"))?;
    let mut qemu = Command::new(place.qemu());
    let qemu = tool::read(qemu.env("LD_LIBRARY_PATH", place.qemu_libraries()).arg("--version"))?;
    let host = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    Ok(vec![
        ("hull", first_line(hull).trim_start_matches("hull Version: ").to_owned()),
        ("qemu", first_line(qemu)),
        ("host_kernel", host.trim().to_owned()),
    ])
}

/// A contender that runs; killed when dropped too early.
struct Running {
    child: Child,
    name: String,
    said: Vec<u8>,
}

impl Running {
    fn start(command: &mut Command, stdin: Stdio, stderr: Stdio) -> Result<Self> {
        let spawned = command.stdin(stdin).stdout(Stdio::piped()).stderr(stderr).spawn();
        let name = command.get_program().to_string_lossy().into_owned();
        let child = spawned.doing(Kind::Failed, || format!("start {name}"))?;
        Ok(Self { child, name, said: Vec::new() })
    }

    /// Waits for what the app says next; false at its end.
    fn read(&mut self) -> Result<bool> {
        let doing = || format!("listen to {}", self.name);
        let stdout = self.child.stdout.as_mut().expect("it was asked for");
        let ready = {
            let mut fds = [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)];
            poll(&mut fds, PollTimeout::from(PATIENCE_MS)).doing(Kind::Failed, doing)?
        };
        if ready == 0 {
            return Err(Error::new(Kind::Timeout, format!("{}: it says nothing", doing())));
        }
        let mut bytes = [0; 4096];
        let count = stdout.read(&mut bytes).doing(Kind::Failed, doing)?;
        self.said.extend_from_slice(&bytes[..count]);
        Ok(count > 0)
    }

    fn read_until(&mut self, text: &str) -> Result<()> {
        while !String::from_utf8_lossy(&self.said).contains(text) {
            if !self.read()? {
                let said = String::from_utf8_lossy(&self.said);
                return Err(Error::new(
                    Kind::Failed,
                    format!("hear {text} from {}: only {said:?}", self.name),
                ));
            }
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Either fails only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copied_bytes_are_found_among_the_kernels_messages() {
        let check = |said: &str, want| assert_eq!(copied(said), want, "{said}");
        check("[    0.0] Linux\nhull-kvm: 14082048 bytes of kernel copied\nx", Some(14_082_048));
        check("hull-kvm: some bytes of kernel copied", None);
        check("", None);
    }

    #[test]
    fn first_byte_and_end_are_told_apart() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo hello; read never; exit 0"]);
        let mut calls = 0;
        let times = timed(&mut command, &mut || {
            calls += 1;
            Ok(())
        });
        let times = times.unwrap();
        assert!(times.first_byte <= times.total);
        assert_eq!(calls, 1);
    }

    #[test]
    fn a_run_that_says_something_else_does_not_count() {
        for script in ["echo hell", "echo hello; exit 1", "exit 0"] {
            let mut command = Command::new("sh");
            assert!(timed(command.args(["-c", script]), &mut || Ok(())).is_err(), "{script}");
        }
    }
}

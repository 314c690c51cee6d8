//! `hull-agent`: PID 1 of every pod. stage1 provides the machine; what "run this app" means is written
//! here, once for all of them.
//!
//! ```text
//! hello ─▶ machine prepared ─▶ Start ─▶ apps launched ─▶ relayed and supervised ─▶ Finished
//! ```
//! Everything is one thread: a poll(2) loop ([`pod`]) around a pure core ([`supervisor`]).
//!
//! The program does without std's own start: that aborts where a kernel without a console starts PID 1
//! with no standard streams, and no `/dev/null` to stand in for them.
#![cfg_attr(not(test), no_main)]

mod app;
mod capabilities;
mod cgroup;
mod copy_up;
mod environment;
mod exec;
mod export;
mod identity;
mod inside;
mod launch;
mod limits;
mod link;
mod machine;
mod metadata;
mod network;
mod passwd;
mod pod;
mod processes;
mod program;
mod root;
mod streams;
mod supervisor;
mod sys;
mod volumes;

use std::io::{self, stdin};
use std::os::fd::{AsFd, AsRawFd, IntoRawFd};

use hull_agent_protocol::message::AgentFault;
use hull_agent_protocol::{FromAgent, VERSION};
use hull_errors::chain;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::signal::SigSet;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{dup2_stdin, mkdir};

use crate::link::{Link, Lost};
use crate::machine::{Machine, Site};

/// This crate's error: whose fault it is.
type Error = hull_errors::Error<AgentFault>;

#[cfg(test)]
fn main() {
    start()
}

/// The program, from [`sys::main`].
fn start() -> ! {
    if let Err(why) = open_standard_streams() {
        // There is nobody to tell but by the code.
        std::process::exit(why as i32);
    }
    let (machine, site) = match parse(std::env::args().skip(1)) {
        Ok(parsed) => parsed,
        Err(why) => {
            eprintln!("hull-agent: {why}");
            std::process::exit(2);
        }
    };
    let code = match serve(machine, &site) {
        Ok(()) => 0,
        // Who ends the link ends the pod.
        Err(Lost::Ended) => 1,
        Err(Lost::Violation(why)) => {
            eprintln!("hull-agent: stage1 broke the protocol: {why}");
            1
        }
    };
    machine.end(code)
}

/// Opens `/dev/null` for those of the descriptors 0, 1 and 2 that are not open, so that nothing else ever
/// takes their places.
fn open_standard_streams() -> nix::Result<()> {
    loop {
        let opened = open("/dev/null", OFlag::O_RDWR, Mode::empty());
        let fd = match opened {
            Err(Errno::ENOENT) => {
                // An initial ramfs need hold nothing but this program.
                match mkdir("/dev", Mode::from_bits_truncate(0o755)) {
                    Err(Errno::EEXIST) | Ok(()) => (),
                    Err(why) => return Err(why),
                }
                mknod("/dev/null", SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(1, 3))?;
                continue;
            }
            other => other?,
        };
        if fd.as_raw_fd() > libc::STDERR_FILENO {
            return Ok(());
        }
        // From here on it belongs to the process, as a standard stream does.
        let _ = fd.into_raw_fd();
    }
}

fn parse(arguments: impl Iterator<Item = String>) -> Result<(Machine, Site), String> {
    let (mut machine, mut site) = (None, Site::default());
    let mut arguments = arguments.peekable();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--machine=vm" => machine = Some(Machine::Vm),
            "--machine=nspawn" => machine = Some(Machine::Nspawn),
            "--machine=fly" => machine = Some(Machine::Fly),
            "--base" => site.base = Some(arguments.next().ok_or("--base needs a directory")?.into()),
            "--cgroup" => site.cgroup = Some(arguments.next().ok_or("--cgroup needs a directory")?.into()),
            other => return Err(format!("unknown argument {other:?}")),
        }
    }
    let machine = machine.ok_or("--machine=vm|nspawn|fly is missing; stage1 starts this program")?;
    Ok((machine, site))
}

fn serve(machine: Machine, site: &Site) -> Result<(), Lost> {
    // The loop reads the signals it wants; all others, from a user's terminal say, are stage1's.
    let _ = SigSet::all().thread_set_mask(); // Fails for an unknown operation only.
    let mut link = connect(machine).map_err(|why| {
        eprintln!("hull-agent: connect to stage1: {why}");
        Lost::Ended
    })?;
    link.say(&FromAgent::Hello { version: VERSION });
    link.flush()?;
    let ran = match machine.prepare(site) {
        Ok(cgroup) => pod::run(machine, cgroup.as_ref(), &mut link),
        Err(why) => {
            let text = chain(&why);
            link.say(&FromAgent::Failed { app: None, fault: AgentFault::Machine, text });
            Ok(())
        }
    };
    ran?;
    machine.settle();
    link.say(&FromAgent::Finished);
    link.finish(machine == Machine::Vm)
}

fn connect(machine: Machine) -> io::Result<Link> {
    if machine == Machine::Vm {
        return Link::to_host();
    }
    let socket = stdin().as_fd().try_clone_to_owned()?;
    // Nobody but us shall hold the link.
    dup2_stdin(open("/dev/null", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?)?;
    Link::new(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_few_and_exact() {
        let parse = |line: &str| parse(line.split_whitespace().map(String::from));
        let (machine, site) = parse("--machine=fly --base /b --cgroup /c").unwrap();
        assert_eq!(machine, Machine::Fly);
        assert_eq!((site.base.unwrap().to_str(), site.cgroup.unwrap().to_str()), (Some("/b"), Some("/c")));
        for line in ["", "--machine=kvm", "--machine=vm --base", "--machine=vm extra", "--base /b"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}

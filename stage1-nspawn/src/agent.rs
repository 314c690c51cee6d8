//! The agent's process, from its start to its burial.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read, Write, pipe};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use hull_errors::{Doing, chain};
use hull_network::Namespace;
use hull_pod::Flavour;
use hull_stage1::{Kind, Pod};
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, dup2_stdin, dup2_stdout, execve, setsid};

use crate::world::{self, World};
use crate::{Error, sys};

/// How long the agent may take to end after the link has.
const OBEDIENCE: Duration = Duration::from_secs(5);

/// A process that runs the agent. Dropping it takes it away, with every process of the pod.
#[derive(Debug)]
pub(crate) struct Agent {
    pid: Pid,
    ended: OwnedFd,
    flavour: Flavour,
    status: Option<WaitStatus>,
}

impl Agent {
    /// Starts the agent of `pod` in a world of its own. `link` becomes its end of the link.
    pub(crate) fn start(
        pod: &Pod,
        link: UnixStream,
        cgroup: Option<&Path>,
        network: Option<&Namespace>,
    ) -> Result<Self, Error> {
        let doing = || "start the agent".to_owned();
        let flavour = pod.contract.flavour;
        let (mut reader, writer) = pipe().doing(Kind::Host, doing)?;
        let own = File::open("/proc/self/ns/pid").doing(Kind::Host, doing)?;
        if flavour == Flavour::Nspawn {
            // For our next child, which is its PID 1.
            unshare(CloneFlags::CLONE_NEWPID).doing(Kind::Host, || "make a pid namespace".into())?;
        }
        let Some(pid) = sys::fork().doing(Kind::Host, doing)? else {
            drop(reader);
            let Err(why) = become_agent(pod, &link, cgroup, network);
            // If stage1 is gone there is nobody to tell.
            let _ = (&writer).write_all(chain(&why).as_bytes());
            std::process::exit(1)
        };
        drop((link, writer));
        // Later children are not the pod's, and outlive it.
        setns(&own, CloneFlags::CLONE_NEWPID).doing(Kind::Host, doing)?;
        let ended = sys::open_child(pid).doing(Kind::Host, doing)?;
        let agent = Self { pid, ended, flavour, status: None };
        // Closed without a word when the agent runs.
        let mut why = String::new();
        reader.read_to_string(&mut why).doing(Kind::Host, doing)?;
        match why.is_empty() {
            true => Ok(agent),
            false => Err(Error::new(Kind::Host, why)),
        }
    }

    /// As the host sees it.
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Waits for the agent, whose link has ended, and says how it ended.
    pub(crate) fn why_it_ended(&mut self) -> String {
        self.bury();
        match self.status {
            Some(WaitStatus::Signaled(_, signal, _)) => format!("the agent was killed by {signal}"),
            Some(WaitStatus::Exited(_, code)) => format!("the agent ended with code {code}"),
            _ => "the agent ended".into(),
        }
    }

    /// Sees the agent end: by itself, or at our hand. Its link must have ended.
    fn bury(&mut self) {
        if self.status.is_some() {
            return;
        }
        let mut fds = [PollFd::new(self.ended.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(OBEDIENCE).unwrap_or(PollTimeout::MAX);
        let _ = poll(&mut fds, timeout); // Whatever it says, what follows is right.
        // Not reaped yet, so the pid is still its own. It may be a zombie, which minds nothing.
        let _ = kill(self.pid, Signal::SIGKILL);
        self.status = waitpid(self.pid, None).ok().or(Some(WaitStatus::StillAlive));
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if self.flavour == Flavour::Nspawn && self.status.is_none() {
            // The kernel takes the whole pid namespace with it; there is nothing to be polite about.
            let _ = kill(self.pid, Signal::SIGKILL); // A zombie minds nothing.
        }
        self.bury();
    }
}

fn become_agent(
    pod: &Pod,
    link: &UnixStream,
    cgroup: Option<&Path>,
    network: Option<&Namespace>,
) -> Result<Infallible, Error> {
    let doing = || "start the agent".to_owned();
    // The terminal's signals are for stage1, which passes them on.
    setsid().doing(Kind::Host, doing)?;
    if pod.contract.flavour == Flavour::Nspawn {
        // A chroot's agent has to kill its apps itself: it goes by the end of the link.
        prctl::set_pdeathsig(Signal::SIGKILL).doing(Kind::Host, doing)?;
    }
    if let Some(cgroup) = cgroup {
        fs::write(cgroup.join("cgroup.procs"), "0")
            .doing(Kind::Host, || format!("enter cgroup {}", cgroup.display()))?;
    }
    // Before the mounts: what is in /sys depends on it.
    network.map_or(Ok(()), Namespace::enter).doing(Kind::Host, doing)?;
    let world = world::enter(pod, cgroup)?;
    connect(link).doing(Kind::Host, doing)?;
    execute(pod.contract.flavour, &world).doing(Kind::Host, || format!("execute {}", world.agent.display()))
}

/// The link in, nothing out; errors go where ours go.
fn connect(link: &UnixStream) -> io::Result<()> {
    dup2_stdin(link)?;
    dup2_stdout(open("/dev/null", OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?)?;
    sys::cloexec_from(3)
}

fn execute(flavour: Flavour, world: &World) -> io::Result<Infallible> {
    let text = |path: &Path| CString::new(path.as_os_str().as_bytes());
    let machine = CString::new(format!("--machine={}", flavour.as_str()))?;
    let mut arguments = vec![c"hull-agent".to_owned(), machine, c"--base".to_owned(), text(&world.base)?];
    if let Some(cgroup) = &world.cgroup {
        arguments.extend([c"--cgroup".to_owned(), text(cgroup)?]);
    }
    let environment: [CString; 0] = [];
    Ok(execve(&text(&world.agent)?, &arguments, &environment)?)
}

//! The machine that a pod runs in: what the agent makes of it before the first app, and its end.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use hull_agent_protocol::DOORBELL_PORT;
use hull_agent_protocol::message::AgentFault;
use hull_errors::Doing;
use nix::mount::{MsFlags, mount};
use nix::sys::prctl;
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::unistd::{chdir, chroot, sethostname, sync};

use crate::cgroup::PodCgroup;
use crate::root::{self, mount_new};
use crate::{Error, sys};

/// Where a virtual machine has its cgroups.
const CGROUPS: &str = "/sys/fs/cgroup";

/// What surrounds the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Machine {
    /// A virtual machine: PID 1 of its kernel, in an initial ramfs.
    Vm,
    /// Namespaces of its own that stage1 has made: PID 1, in a small root.
    Nspawn,
    /// A mount namespace of its own and a subreaper; all else is the host's.
    Fly,
}

/// Where in the machine the agent works, as stage1 said.
#[derive(Debug, Default)]
pub(crate) struct Site {
    /// The directory to assemble apps in; the machine's root if absent.
    pub(crate) base: Option<PathBuf>,
    /// The pod's cgroup, for the agent to divide.
    pub(crate) cgroup: Option<PathBuf>,
}

impl Machine {
    /// Whether the pod has a host name of its own.
    pub(crate) fn has_own_name(self) -> bool {
        self != Self::Fly
    }

    /// Whether every process but the agent is an app's, or the kernel's.
    pub(crate) fn is_own_world(self) -> bool {
        self != Self::Fly
    }

    /// Mounts and sets up what apps need. The working directory is where they are assembled afterwards.
    pub(crate) fn prepare(self, site: &Site) -> Result<Option<PodCgroup>, Error> {
        if self.is_own_world() && std::process::id() != 1 {
            return Err(Error::new(AgentFault::Machine, "prepare the machine: this is not its PID 1"));
        }
        // What shares the pid namespace with us shall not look into us or our children.
        prctl::set_dumpable(false).doing(AgentFault::Machine, || "become undumpable".into())?;
        let cgroup = match self {
            Self::Vm => {
                move_off_the_initial_ramfs()
                    .doing(AgentFault::Machine, || "leave the initial ramfs".into())?;
                mount_kernel_file_systems()?;
                let cgroup = PodCgroup::of_machine(Path::new(CGROUPS));
                Some(cgroup.doing(AgentFault::Machine, || format!("set up {CGROUPS}"))?)
            }
            Self::Nspawn | Self::Fly => {
                prctl::set_child_subreaper(true).doing(AgentFault::Machine, || "adopt orphans".into())?;
                let pod = site.cgroup.as_deref().map(|path| {
                    PodCgroup::of_pod(path)
                        .doing(AgentFault::Machine, || format!("divide cgroup {}", path.display()))
                });
                pod.transpose()?
            }
        };
        let base = site.base.as_deref().unwrap_or(Path::new("/"));
        chdir(base).doing(AgentFault::Machine, || format!("enter {}", base.display()))?;
        root::lay_out().doing(AgentFault::Machine, || format!("lay out {}", base.display()))?;
        if self.is_own_world() {
            bring_up_loopback().doing(AgentFault::Machine, || "bring up the loopback interface".into())?;
        }
        Ok(cgroup)
    }

    /// Gives the machine its name.
    pub(crate) fn name(self, hostname: &str) -> Result<(), Error> {
        if !self.has_own_name() {
            return Ok(());
        }
        sethostname(hostname).doing(AgentFault::Machine, || format!("set host name {hostname:?}"))
    }

    /// Lets nothing that was written be lost.
    pub(crate) fn settle(self) {
        if self == Self::Vm {
            sync();
        }
    }

    /// Ends the machine, or this process where that does it.
    pub(crate) fn end(self, code: u8) -> ! {
        if self == Self::Vm && std::process::id() == 1 {
            let why = sys::write_port(DOORBELL_PORT, code);
            // The bell stops the machine; we are still here only if there is none.
            eprintln!("hull-agent: nothing answers at port {DOORBELL_PORT:#x} ({why:?}), rebooting");
            let Err(why) = reboot(RebootMode::RB_AUTOBOOT);
            eprintln!("hull-agent: reboot: {why}");
        }
        std::process::exit(i32::from(code))
    }
}

/// The initial ramfs cannot be left with pivot_root(2), which every app does; so the agent moves to a
/// tmpfs first (kernel `Documentation/filesystems/ramfs-rootfs-initramfs.rst`).
fn move_off_the_initial_ramfs() -> io::Result<()> {
    const NEW: &str = "/hull";
    fs::create_dir(NEW)?;
    mount_new("tmpfs", NEW, MsFlags::MS_NODEV, "mode=755")?;
    chdir(NEW)?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)?;
    chroot(".")?;
    Ok(chdir("/")?)
}

fn mount_kernel_file_systems() -> Result<(), Error> {
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let nodes = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    let all = [("proc", "/proc", quiet), ("sysfs", "/sys", quiet), ("devtmpfs", "/dev", nodes)];
    for (kind, target, flags) in all {
        fs::create_dir(target)
            .and_then(|()| mount_new(kind, target, flags, ""))
            .doing(AgentFault::Machine, || format!("mount {target}"))?;
    }
    mount_new("cgroup2", CGROUPS, quiet, "").doing(AgentFault::Machine, || format!("mount {CGROUPS}"))
}

fn bring_up_loopback() -> io::Result<()> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    sys::set_interface_flags(socket.as_fd(), "lo", libc::IFF_UP)
}

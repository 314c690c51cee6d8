//! What surrounds the agent, made in the process that becomes it: namespaces and mounts.
//!
//! Everything here is in a mount namespace of the pod's own, so nothing needs to be undone: the kernel
//! takes it away with the pod's last process.

use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use hull_errors::Doing;
use hull_pod::Flavour;
use hull_pod::volumes::{self, Backing};
use hull_stage1::volumes::HostVolume;
use hull_stage1::{Kind, Pod};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{chdir, pivot_root};

use crate::Error;
use crate::image::mount_image;

/// Where the world is assembled, in the pod directory. Empty for everybody but the pod.
const WORLD: &str = "world";

/// Where the agent finds the image of app number n, relative to its base.
pub(crate) fn image(index: usize) -> String {
    format!("images/{index}")
}

/// The same of volume number n.
pub(crate) fn volume(index: usize) -> String {
    format!("volumes/{index}")
}

/// What the agent is told about the world it starts in.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) agent: PathBuf,
    pub(crate) base: PathBuf,
    pub(crate) cgroup: Option<PathBuf>,
}

/// Leaves the host behind. Call it in a process of the pod's own, in the pod's cgroup and network.
pub(crate) fn enter(pod: &Pod, cgroup: Option<&Path>) -> Result<World, Error> {
    let flavour = pod.contract.flavour;
    unshare(namespaces(pod, cgroup.is_some()))
        .doing(Kind::Host, || format!("make the namespaces of a pod of {}", flavour.as_str()))?;
    // From now on the host's mounts come in and none of ours goes out.
    let slave = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    mount(None::<&str>, "/", None::<&str>, slave, None::<&str>)
        .doing(Kind::Host, || "keep the pod's mounts from the host".into())?;
    let base = pod.path.join(WORLD);
    furnish(pod, &base)?;
    match flavour {
        Flavour::Nspawn => {
            move_in(&base, cgroup.is_some()).doing(Kind::Host, || "make the pod's root".into())?;
            let cgroup = cgroup.map(|_| PathBuf::from(CGROUP));
            Ok(World { agent: AGENT.into(), base: "/".into(), cgroup })
        }
        Flavour::Fly | Flavour::Kvm => {
            let agent = base.join(AGENT.trim_start_matches('/'));
            Ok(World { agent, base, cgroup: cgroup.map(Path::to_owned) })
        }
    }
}

const AGENT: &str = "/hull-agent";
const CGROUP: &str = "/sys/fs/cgroup";

fn namespaces(pod: &Pod, cgroup: bool) -> CloneFlags {
    let ipc = if pod.contract.parents_ipc { CloneFlags::empty() } else { CloneFlags::CLONE_NEWIPC };
    let own = match pod.contract.flavour {
        Flavour::Nspawn => ipc | CloneFlags::CLONE_NEWUTS,
        Flavour::Fly | Flavour::Kvm => return CloneFlags::CLONE_NEWNS,
    };
    let cgroup = if cgroup { CloneFlags::CLONE_NEWCGROUP } else { CloneFlags::empty() };
    own | cgroup | CloneFlags::CLONE_NEWNS
}

/// A small tmpfs with the agent and the images.
fn furnish(pod: &Pod, base: &Path) -> Result<(), Error> {
    let contract = &pod.contract;
    let make = || -> io::Result<()> {
        make_dir(base)?;
        mount_new("tmpfs", base, MsFlags::MS_NODEV | MsFlags::MS_NOSUID, "mode=755")?;
        make_dir(&base.join("images"))?;
        make_dir(&base.join("volumes"))?;
        let agent = base.join(AGENT.trim_start_matches('/'));
        fs::OpenOptions::new().write(true).create_new(true).mode(0o755).open(&agent)?;
        bind_read_only(&contract.agent, &agent)
    };
    make().doing(Kind::Host, || {
        format!("furnish {} with the agent {}", base.display(), contract.agent.display())
    })?;
    for (index, root) in contract.roots.iter().enumerate() {
        let target = base.join(image(index));
        make_dir(&target)
            .and_then(|()| mount_image(root, &target))
            .doing(Kind::Host, || format!("mount image {}", root.display()))?;
    }
    mount_volumes(pod, base)
}

/// Brings the volumes of the host's in; the agent makes the others.
fn mount_volumes(pod: &Pod, base: &Path) -> Result<(), Error> {
    let flavour = pod.contract.flavour;
    let volumes = volumes::resolve(&pod.manifest, flavour)
        .doing(Kind::Contract, || "find out which volumes the pod has".into())?;
    for (index, used) in volumes.used.iter().enumerate() {
        if let Backing::Host(source) = &used.kind {
            HostVolume::open(&used.name, source)?.mount(&base.join(volume(index)), flavour)?;
        }
    }
    Ok(())
}

/// The agent runs from the host's own file; not even through `/proc/PID/exe` shall a pod write to it.
fn bind_read_only(source: &Path, target: &Path) -> io::Result<()> {
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    let flags =
        MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | MsFlags::MS_NODEV | MsFlags::MS_NOSUID;
    Ok(mount(None::<&str>, target, None::<&str>, flags, None::<&str>)?)
}

/// Mounts what the agent needs of the kernel, makes `base` the root and lets go of the host's.
fn move_in(base: &Path, cgroup: bool) -> io::Result<()> {
    chdir(base)?;
    for name in ["proc", "sys", "dev"] {
        make_dir(Path::new(name))?;
    }
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount_new("proc", Path::new("proc"), quiet, "")?;
    mount_new("sysfs", Path::new("sys"), quiet | MsFlags::MS_RDONLY, "")?;
    if cgroup {
        mount_new("cgroup2", Path::new(CGROUP.trim_start_matches('/')), quiet, "")?;
    }
    // All that the agent opens itself; it gives each app a `/dev` of its own.
    mount_new("tmpfs", Path::new("dev"), MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC, "mode=755,size=4k")?;
    mknod("dev/null", SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(1, 3))?;
    // The old root ends up on top of the new one, where it is unmounted: pivot_root(2), NOTES.
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    Ok(chdir("/")?)
}

fn mount_new(kind: &str, target: &Path, flags: MsFlags, options: &str) -> io::Result<()> {
    Ok(mount(Some(kind), target, Some(kind), flags, Some(options))?)
}

fn make_dir(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(why) if why.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

//! Volumes: made or found once for the pod ([`make_all`]), mounted in every app that wants them ([`mount_all`]).

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use hull_agent_protocol::message::AgentFault;
use hull_agent_protocol::{AppSpec, MountSpec, VolumeSource, VolumeSpec};
use hull_errors::Doing;
use hull_mounts::{Extent, Restrictions, Tree};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, fstat};

use crate::inside::{Root, is_directory};
use crate::root::mount_new;
use crate::{Error, copy_up};

/// Holds the pod's volumes, in the agent's working directory.
pub(crate) const HERE: &str = "volumes";

/// Where volume number `index` is once it has been made.
fn place(index: usize, volume: &VolumeSpec) -> String {
    match &volume.source {
        VolumeSource::Mounted { path } | VolumeSource::Device { path, .. } => path.clone(),
        VolumeSource::Shared { file: Some(file), .. } => format!("{HERE}/{index}/{file}"),
        VolumeSource::Empty { .. } | VolumeSource::Shared { file: None, .. } => format!("{HERE}/{index}"),
    }
}

/// Makes and mounts what stage1 has not mounted already.
pub(crate) fn make_all(volumes: &[VolumeSpec]) -> Result<(), Error> {
    for (index, volume) in volumes.iter().enumerate() {
        let place = format!("{HERE}/{index}");
        let made = match &volume.source {
            VolumeSource::Mounted { .. } | VolumeSource::Device { .. } => Ok(()),
            VolumeSource::Empty { mode, uid, gid, size_bytes } => {
                let size = size_bytes.map_or_else(String::new, |bytes| format!("size={bytes}"));
                make_empty(&place, &size, Mode::from_bits_truncate(*mode), (*uid, *gid))
            }
            VolumeSource::Shared { tag, read_only, .. } => share(&place, tag, *read_only),
        };
        made.doing(AgentFault::Machine, || format!("make volume {}", volume.name))?;
    }
    Ok(())
}

fn make_empty(place: &str, options: &str, mode: Mode, (uid, gid): (u32, u32)) -> io::Result<()> {
    fs::create_dir(place)?;
    mount_new("tmpfs", place, MsFlags::MS_NODEV, options)?;
    chown(place, Some(uid), Some(gid))?;
    // After the owner, whose change would clear bits.
    fs::set_permissions(place, fs::Permissions::from_mode(mode.bits()))
}

/// Mounts a directory that the machine's other side serves.
fn share(place: &str, tag: &str, read_only: bool) -> io::Result<()> {
    fs::create_dir(place)?;
    let read_only = if read_only { MsFlags::MS_RDONLY } else { MsFlags::empty() };
    Ok(mount(Some(tag), place, Some("virtiofs"), read_only | MsFlags::MS_NODEV, None::<&str>)?)
}

/// Mounts the volumes of an app in its root. Call it in the app's mount namespace, before anything of the app's
/// runs there.
pub(crate) fn mount_all(root: &Root, app: &AppSpec, volumes: &[VolumeSpec]) -> Result<(), Error> {
    for mount in &app.mounts {
        let doing = || format!("mount volume {} at {} in app {}", mount.volume, mount.target, app.name);
        let mut all = volumes.iter().enumerate();
        let found = all.find(|(_, volume)| volume.name == mount.volume);
        let (index, volume) =
            found.ok_or_else(|| Error::new(AgentFault::Pod, format!("{}: there is none", doing())))?;
        let source = look(&place(index, volume)).doing(AgentFault::Machine, doing)?;
        let is_dir = fstat(&source).is_ok_and(|stat| is_directory(&stat));
        let target = match is_dir {
            true => root.make_directories(&mount.target),
            false => root.make_file(&mount.target),
        };
        let target = target.map_err(|why| explain(why, doing(), is_dir))?;
        check_target(root, target.as_fd()).doing(AgentFault::Pod, doing)?;
        if mount.copy_up && is_dir {
            copy_up::begin_with(source.as_fd(), target.as_fd())
                .doing(AgentFault::Pod, || format!("{}: begin it with what the image has there", doing()))?;
        }
        attach(mount, source.as_fd(), target.as_fd()).doing(AgentFault::Machine, doing)?;
    }
    Ok(())
}

fn look(path: &str) -> nix::Result<OwnedFd> {
    open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
}

fn attach(mount: &MountSpec, source: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    let extent = if mount.recursive { Extent::All } else { Extent::One };
    let tree = Tree::clone_of(source, extent)?;
    tree.restrict(Restrictions { read_only: mount.read_only, no_devices: false })?;
    tree.attach(target)
}

/// Nothing covers what keeps the app in, or what we ask ourselves later.
fn check_target(root: &Root, target: BorrowedFd<'_>) -> io::Result<()> {
    let (root, target) = (path_of(root.as_fd())?, path_of(target)?);
    let inside = target.strip_prefix(&root).map_err(io::Error::other)?;
    let is_kernels = inside.starts_with("proc") || inside.starts_with("sys");
    match is_kernels || inside == Path::new("") || inside == Path::new("dev") {
        true => Err(io::Error::other(format!(
            "the path leads to /{}, which is the same in every app and no place for a volume",
            inside.display()
        ))),
        false => Ok(()),
    }
}

/// Where the kernel says that it is.
fn path_of(fd: BorrowedFd<'_>) -> io::Result<PathBuf> {
    fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

fn explain(why: Errno, doing: String, is_dir: bool) -> Error {
    let text = match why {
        Errno::ENOTDIR if is_dir => "what is there is no directory, and the volume is one",
        Errno::EISDIR => "what is there is a directory, and the volume is none",
        Errno::EEXIST | Errno::ELOOP => "a symbolic link on the way leads nowhere, or to the kernel's own",
        Errno::EROFS => "the path does not exist, and the volume that it is in is read-only",
        why => return Error::because(AgentFault::Pod, doing, why),
    };
    Error::new(AgentFault::Pod, format!("{doing}: {text}"))
}

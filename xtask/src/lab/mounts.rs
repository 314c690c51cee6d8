//! What is where on the emulated host: its boot archive's folders, and the mounts that make it
//! look like this machine.
use std::fs;
use std::path::{Path, PathBuf};

use hull_errors::Doing;
use nix::mount::{MsFlags, mount};

use super::qemu::{EXCHANGE_TAG, ROOT_TAG};
use crate::error::{Kind, Result};

/// Folders of the boot archive. `lower` is this machine's root, `upper` takes the changes, `root`
/// is both, `whole` is `root` before anything covers parts of it.
pub(crate) const FOLDERS: [&str; 7] = ["dev", "proc", "sys", "lower", "upper", "root", "whole"];

/// 9p in the version that Linux means by it; the size of a message is worth a factor of three.
const NINE_P: &str = "trans=virtio,version=9p2000.L,msize=524288";

/// Empty and writable on every start. /var/lib/hull is among them because an overlay cannot be
/// another's upper layer.
const SCRATCH: [&str; 4] = ["run", "tmp", "var/tmp", "var/lib/hull"];

/// Whether a scratch folder hides this path.
pub(crate) fn covered(path: &Path) -> bool {
    SCRATCH.iter().any(|folder| path.starts_with(Path::new("/").join(folder)))
}

/// The first mounts, those without which there is no device to talk over.
pub(crate) fn devices() -> Result<()> {
    mount_new("devtmpfs", "dev", "/dev", MsFlags::empty(), "mode=755")?;
    mount_new("proc", "proc", "/proc", MsFlags::empty(), "")?;
    mount_new("sysfs", "sys", "/sys", MsFlags::empty(), "")
}

/// This machine's root under a layer of memory, as `/root`.
pub(crate) fn root() -> Result<()> {
    let options = format!("{NINE_P},cache=loose");
    mount_new("9p", ROOT_TAG, "/lower", MsFlags::MS_RDONLY, &options)?;
    mount_new("tmpfs", "upper", "/upper", MsFlags::empty(), "mode=755")?;
    create("/upper/changes".as_ref())?;
    create("/upper/work".as_ref())?;
    let layers = "lowerdir=/lower,upperdir=/upper/changes,workdir=/upper/work,xino=off";
    mount_new("overlay", "root", "/root", MsFlags::empty(), layers)?;
    attach("/root".as_ref(), "/whole".as_ref(), MsFlags::MS_BIND)
}

/// Everything else a host has, below `/root`; `shares` reappear where scratch covers them.
pub(crate) fn host(exchange: &Path, shares: &[PathBuf]) -> Result<()> {
    for folder in ["dev", "proc", "sys"] {
        attach(&Path::new("/").join(folder), &below("/root", Path::new(folder)), MsFlags::MS_MOVE)?;
    }
    for folder in SCRATCH {
        mount_new("tmpfs", "scratch", &format!("/root/{folder}"), MsFlags::empty(), "mode=1777")?;
    }
    mount_new("tmpfs", "shm", "/root/dev/shm", MsFlags::empty(), "mode=1777")?;
    mount_new("devpts", "devpts", "/root/dev/pts", MsFlags::empty(), "ptmxmode=666,mode=620,gid=5")?;
    mount_new("mqueue", "mqueue", "/root/dev/mqueue", MsFlags::empty(), "")?;
    mount_new("cgroup2", "cgroup2", "/root/sys/fs/cgroup", MsFlags::empty(), "nsdelegate")?;
    mount_new("tracefs", "tracefs", "/root/sys/kernel/tracing", MsFlags::empty(), "")?;
    for share in shares {
        reappear(share)?;
    }
    let exchange = below("/root", exchange);
    mount_new(
        "9p",
        EXCHANGE_TAG,
        &exchange.to_string_lossy(),
        MsFlags::empty(),
        &format!("{NINE_P},cache=none"),
    )
}

/// Makes `/root` the root; what is mounted on it comes along. Shared, as systemd has it.
pub(crate) fn enter() -> Result<()> {
    let doing = || "enter the new root".to_owned();
    std::env::set_current_dir("/root").doing(Kind::Lab, doing)?;
    attach(".".as_ref(), "/".as_ref(), MsFlags::MS_MOVE)?;
    nix::unistd::chroot(".").doing(Kind::Lab, doing)?;
    std::env::set_current_dir("/").doing(Kind::Lab, doing)?;
    let shared = MsFlags::MS_SHARED | MsFlags::MS_REC;
    mount(None::<&str>, "/", None::<&str>, shared, None::<&str>).doing(Kind::Lab, || "share /".into())
}

fn reappear(share: &Path) -> Result<()> {
    let (from, to) = (below("/whole", share), below("/root", share));
    if from.is_dir() {
        create(&to)?;
    } else {
        if let Some(parent) = to.parent() {
            create(parent)?;
        }
        fs::write(&to, []).doing(Kind::Lab, || format!("create {}", share.display()))?;
    }
    attach(&from, &to, MsFlags::MS_BIND)
}

/// `path`, absolute or not, seen from `root`.
fn below(root: &str, path: &Path) -> PathBuf {
    Path::new(root).join(path.strip_prefix("/").unwrap_or(path))
}

/// A file system of its own; creates the folder it goes to.
fn mount_new(kind: &str, source: &str, to: &str, flags: MsFlags, options: &str) -> Result<()> {
    create(to.as_ref())?;
    let mounted = mount(Some(source), to, Some(kind), flags, Some(options));
    mounted.doing(Kind::Lab, || format!("mount {kind} on {to} ({options})"))
}

/// A bind or a move.
fn attach(from: &Path, to: &Path, flags: MsFlags) -> Result<()> {
    let attached = mount(Some(from), to, None::<&str>, flags, None::<&str>);
    attached.doing(Kind::Lab, || format!("mount {} on {}", from.display(), to.display()))
}

fn create(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).doing(Kind::Lab, || format!("create {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scratch_covers_what_is_below_it() {
        let check = |path: &str, want| assert_eq!(covered(Path::new(path)), want, "{path}");
        check("/tmp/t-x/debug", true);
        check("/var/lib/hull", true);
        check("/tmpfoo", false);
        check("/root/.cache/hull", false);
    }
}

//! A root directory with nothing in it, not even room for something.

use hull_errors::Doing;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{chdir, chroot, pivot_root};

use crate::Error;

/// Where the new root is mounted for a moment: a directory that every host has.
const PLACE: &str = "/proc";

const NONE: Option<&str> = None;

/// Replaces the root of a mount namespace that is the process's own.
pub(crate) fn empty() -> Result<(), Error> {
    let doing = || "make an empty root directory".to_owned();
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(NONE, "/", NONE, MsFlags::MS_PRIVATE | MsFlags::MS_REC, NONE).doing((), doing)?;
    mount(Some("jail"), PLACE, Some("tmpfs"), flags, Some("size=4k,nr_inodes=1,mode=0")).doing((), doing)?;
    chdir(PLACE).doing((), doing)?;
    match pivot_root(".", ".") {
        Ok(()) => umount2(".", MntFlags::MNT_DETACH).doing((), doing)?,
        // The root that the kernel unpacked at boot cannot be put away, only covered.
        Err(Errno::EINVAL) => {
            mount(Some("."), "/", NONE, MsFlags::MS_MOVE, NONE).doing((), doing)?;
            chroot(".").doing((), doing)?;
        }
        Err(e) => return Err(Error::because((), doing(), e)),
    }
    chdir("/").doing((), doing)?;
    mount(NONE, "/", NONE, flags | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, NONE).doing((), doing)
}

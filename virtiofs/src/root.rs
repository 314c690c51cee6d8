//! The process's root: the volume, and nothing else of the host's.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use hull_errors::Doing;
use hull_mounts::{Tree, table};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;
use nix::unistd::{chdir, chroot, pivot_root};

use crate::Error;

/// Where the new root is mounted for a moment: a directory that every host has.
const PLACE: &str = "/proc";

/// What the root holds where the volume is a file.
pub(crate) const FILE: &str = "file";

const NONE: Option<&str> = None;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// The volume is the root.
    Directory,
    /// The root is an empty directory with the volume in it, as [`FILE`].
    File,
}

/// Makes the tree this process's root, in a mount namespace of its own.
pub(crate) fn enter(tree: Tree, shape: Shape) -> Result<(), Error> {
    let slave = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    mount(NONE, "/", NONE, slave, NONE).doing((), || "keep mounts from the host".into())?;
    // Opened now, read when only the volume is left.
    let own = look(Path::new("/proc/self")).doing((), || "open /proc/self".into())?;
    place(tree, shape).doing((), || "mount the volume".into())?;
    move_in().doing((), || "make the volume the root".into())?;
    let table = openat(own, "mountinfo", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty());
    let table = table.map_err(io::Error::from).and_then(|fd| io::read_to_string(File::from(fd)));
    let table = table.doing((), || "look at the volume's mounts".into())?;
    match table::kernels_own(&table, Path::new("/")) {
        None => Ok(()),
        Some(bad) => Err(Error::new((), bad.objection(Path::new("/")))),
    }
}

fn look(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path)
}

fn place(tree: Tree, shape: Shape) -> io::Result<()> {
    let place = Path::new(PLACE);
    if shape == Shape::Directory {
        return tree.attach(look(place)?.as_fd());
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("volume"), place, Some("tmpfs"), flags, Some("size=4k,nr_inodes=2,mode=755"))?;
    fs::write(place.join(FILE), "")?;
    tree.attach(look(&place.join(FILE))?.as_fd())?;
    Ok(mount(NONE, place, NONE, flags | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, NONE)?)
}

fn move_in() -> nix::Result<()> {
    chdir(PLACE)?;
    match pivot_root(".", ".") {
        Ok(()) => umount2(".", MntFlags::MNT_DETACH)?,
        // The root that the kernel unpacked at boot cannot be put away, only covered.
        Err(Errno::EINVAL) => {
            mount(Some("."), "/", NONE, MsFlags::MS_MOVE, NONE)?;
            chroot(".")?;
        }
        Err(why) => return Err(why),
    }
    chdir("/")
}

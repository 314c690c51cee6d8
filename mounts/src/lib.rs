//! Trees of files: cloned from where somebody looked at them, restricted while nobody else can see them, and
//! attached to what somebody else has looked at. Every step goes by descriptor, so that whoever renames or links
//! in between changes nothing.
//!
//! ```text
//! source, open ──clone_of──▶ Tree ──restrict──▶ Tree ──attach──▶ target, open
//! ```

mod sys;
pub mod table;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// How much of a tree is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// One mount. What is mounted below is left out, and stays out whenever it comes.
    One,
    /// What is mounted below comes along; what is mounted there later, too, where the source is shared
    /// (mount_namespaces(7)).
    All,
}

/// What is taken away from a tree, all the way down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restrictions {
    /// Nothing can be written.
    pub read_only: bool,
    /// Device nodes are no doors.
    pub no_devices: bool,
}

/// A tree that is nowhere yet. Dropping it lets go of it.
#[derive(Debug)]
pub struct Tree {
    fd: OwnedFd,
}

/// For another process to attach.
impl From<Tree> for OwnedFd {
    fn from(tree: Tree) -> Self {
        tree.fd
    }
}

/// The caller says that it is one.
impl From<OwnedFd> for Tree {
    fn from(fd: OwnedFd) -> Self {
        Self { fd }
    }
}

impl Tree {
    /// Clones what `source`, a file, directory or node, shows now. Needs `CAP_SYS_ADMIN`; the source's mount must
    /// be in this process's mount namespace.
    ///
    /// # Errors
    /// The kernel's.
    pub fn clone_of(source: BorrowedFd<'_>, extent: Extent) -> io::Result<Self> {
        let fd = sys::clone_tree(source, extent == Extent::All)?;
        // Of one mount alone, what is mounted at the source later would come along after all; and in any case
        // nothing goes from the clone to the source.
        let (propagation, all) = match extent {
            Extent::One => (libc::MS_PRIVATE, false),
            Extent::All => (libc::MS_SLAVE, true),
        };
        sys::set_attributes(fd.as_fd(), 0, propagation, all)?;
        Ok(Self { fd })
    }

    /// Takes rights away. What is mounted below the source later, and comes along, is not restricted: its own
    /// mount says what it allows.
    ///
    /// # Errors
    /// The kernel's.
    pub fn restrict(&self, with: Restrictions) -> io::Result<()> {
        let read_only = if with.read_only { libc::MOUNT_ATTR_RDONLY } else { 0 };
        let no_devices = if with.no_devices { libc::MOUNT_ATTR_NODEV } else { 0 };
        match read_only | no_devices {
            0 => Ok(()),
            set => sys::set_attributes(self.fd.as_fd(), set, 0, true),
        }
    }

    /// Mounts the tree on `target`: a directory for a directory, a file for anything else.
    ///
    /// # Errors
    /// The kernel's; `EINVAL` where one is a directory and the other is not.
    pub fn attach(self, target: BorrowedFd<'_>) -> io::Result<()> {
        sys::attach_tree(self.fd.as_fd(), target)
    }
}

#[cfg(test)]
mod tests;

//! The crate's only `unsafe`: the kernel's calls for mounts by descriptor.
#![expect(
    unsafe_code,
    reason = "nix 0.31 has none of them, and rustix 1.1 lacks mount_setattr(2), without which nothing is restricted"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// The descriptor itself is meant, not a path from it.
const HERE: *const libc::c_char = c"".as_ptr();

/// linux/mount.h.
const OPEN_TREE_CLONE: libc::c_uint = 1;
const OPEN_TREE_CLOEXEC: libc::c_uint = libc::O_CLOEXEC as libc::c_uint;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 0x04;
const MOVE_MOUNT_T_EMPTY_PATH: libc::c_uint = 0x40;

const EMPTY_PATH: libc::c_uint = libc::AT_EMPTY_PATH as libc::c_uint;
const RECURSIVE: libc::c_uint = libc::AT_RECURSIVE as libc::c_uint;

fn check(rc: libc::c_long) -> io::Result<libc::c_long> {
    match rc {
        -1 => Err(io::Error::last_os_error()),
        other => Ok(other),
    }
}

/// open_tree(2), Linux 5.2.
pub(crate) fn clone_tree(source: BorrowedFd<'_>, recursive: bool) -> io::Result<OwnedFd> {
    let recursive = if recursive { RECURSIVE } else { 0 };
    let flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | EMPTY_PATH | recursive;
    // SAFETY: open_tree reads one string that ends with NUL and lives for ever; the rest are integers.
    let fd = check(unsafe { libc::syscall(libc::SYS_open_tree, source.as_raw_fd(), HERE, flags) })?;
    let fd = RawFd::try_from(fd).expect("the kernel's descriptors are ints");
    // SAFETY: The kernel has just opened this descriptor for us; nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// mount_setattr(2), Linux 5.12. `propagation` 0 leaves it.
pub(crate) fn set_attributes(
    tree: BorrowedFd<'_>,
    set: u64,
    propagation: libc::c_ulong,
    recursive: bool,
) -> io::Result<()> {
    let attributes = libc::mount_attr { attr_set: set, attr_clr: 0, propagation, userns_fd: 0 };
    let flags = EMPTY_PATH | if recursive { RECURSIVE } else { 0 };
    // SAFETY: mount_setattr reads one string that ends with NUL and as many bytes of attributes as it is told;
    // both outlive the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            HERE,
            flags,
            &raw const attributes,
            size_of_val(&attributes),
        )
    })?;
    Ok(())
}

/// move_mount(2), Linux 5.2.
pub(crate) fn attach_tree(tree: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    let flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
    // SAFETY: move_mount reads two strings that end with NUL and live for ever; the rest are integers.
    check(unsafe {
        libc::syscall(libc::SYS_move_mount, tree.as_raw_fd(), HERE, target.as_raw_fd(), HERE, flags)
    })?;
    Ok(())
}

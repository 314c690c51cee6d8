//! The crate's only `unsafe`: system calls that nix 0.31 does not have, or not in a safe form.
#![expect(
    unsafe_code,
    reason = "fork, close_range, pidfd_open and loop devices have no safe form in nix 0.31"
)]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::unistd::Pid;

/// `struct loop_info64` of linux/loop.h.
#[repr(C)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    names_and_key: [u8; 160],
    init: [u64; 2],
}

/// `struct loop_config` of linux/loop.h.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

const _: () = assert!(size_of::<LoopInfo>() == 232 && size_of::<LoopConfig>() == 304);

/// linux/loop.h.
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4c82;
const LOOP_CONFIGURE: libc::Ioctl = 0x4c0a;
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;

fn check(rc: i64) -> io::Result<i64> {
    match rc {
        -1 => Err(io::Error::last_os_error()),
        other => Ok(other),
    }
}

/// Forks. `None` in the child.
pub(crate) fn fork() -> io::Result<Option<Pid>> {
    // SAFETY: This program never makes a thread, so the child is a whole copy: no lock is held by a
    // thread that is not there, and everything that is safe in the parent is safe in the child.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        pid => Ok(Some(Pid::from_raw(pid))),
    }
}

/// Marks every descriptor from `first` up close-on-exec. Closes nothing now. Linux 5.11.
pub(crate) fn cloexec_from(first: u32) -> io::Result<()> {
    // SAFETY: `close_range` with CLOEXEC takes three integers, touches no memory of ours and closes
    // no descriptor: no owner in this process is left dangling.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) })?;
    Ok(())
}

/// A descriptor that becomes readable when the child has ended. Linux 5.3.
pub(crate) fn open_child(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })?;
    let fd = RawFd::try_from(fd).expect("the kernel's descriptors are ints");
    // SAFETY: The kernel has just opened this descriptor for us; nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The number of a loop device that nobody uses now.
pub(crate) fn free_loop_device(control: &File) -> io::Result<i64> {
    // SAFETY: LOOP_CTL_GET_FREE takes no argument.
    check(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) }.into())
}

/// Makes `device` show `backing`, read-only, until its last user is gone. Linux 5.8.
pub(crate) fn configure_loop_device(device: &File, backing: &File) -> io::Result<()> {
    let info = LoopInfo {
        device: 0,
        inode: 0,
        rdevice: 0,
        offset: 0,
        size_limit: 0,
        number: 0,
        encrypt_type: 0,
        encrypt_key_size: 0,
        flags: LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR,
        names_and_key: [0; 160],
        init: [0; 2],
    };
    let fd = u32::try_from(backing.as_raw_fd()).expect("an open descriptor is not negative");
    let config = LoopConfig { fd, block_size: 0, info, reserved: [0; 8] };
    // SAFETY: LOOP_CONFIGURE reads one `struct loop_config`; ours is `repr(C)` with its layout and
    // size, initialised, and outlives the call. The kernel takes its own reference to the file.
    check(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) }.into())?;
    Ok(())
}

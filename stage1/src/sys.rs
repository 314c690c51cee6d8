//! The crate's only `unsafe`: adopting a descriptor by its number, and the size of a terminal.
#![expect(
    unsafe_code,
    reason = "a descriptor inherited across execve is a bare number; nix has no TIOCGWINSZ"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

static ADOPTED: AtomicBool = AtomicBool::new(false);

/// Adopts the lock descriptor that stage0 left open under `number`, and keeps it from the programs
/// that this process executes. Works once in a process.
///
/// # Errors
/// The number is a standard stream, or not open, or it was adopted before.
pub(crate) fn adopt_lock(number: RawFd) -> io::Result<OwnedFd> {
    if number <= libc::STDERR_FILENO || ADOPTED.swap(true, Ordering::Relaxed) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: F_SETFD takes integers only and fails cleanly on a number that is not open.
    let rc = unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    if rc == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: The descriptor is open (fcntl said so). Nothing in this process owns it: it was open
    // before main, no library opens descriptors before main, and `ADOPTED` lets nobody come twice.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Takes a descriptor that the kernel has just given to this process, by accept(2) or recvmsg(2).
///
/// # Errors
/// The number is none of a descriptor.
pub(crate) fn adopt_new(number: RawFd) -> io::Result<OwnedFd> {
    if number <= libc::STDERR_FILENO {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: The callers in `control` pass each number that a system call returned once, and keep none: the
    // descriptor is open and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// The window size of the terminal `fd`; `None` if it is no terminal (tty_ioctl(4), TIOCGWINSZ).
pub(crate) fn window_size(fd: BorrowedFd<'_>) -> Option<libc::winsize> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes one `struct winsize` to its argument, which is valid and ours.
    let rc = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    (rc == 0).then_some(size)
}

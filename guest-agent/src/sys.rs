//! The crate's only `unsafe`: system calls that nix 0.31 does not have, or not in a safe form.
#![expect(
    unsafe_code,
    reason = "C's main, fork, close_range, capabilities, terminals, keyrings, ioperm and real-time signals have no \
              safe form in nix 0.31"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use hull_agent_protocol::Outcome;
use hull_agent_protocol::TerminalSize;
use nix::unistd::Pid;

/// `struct __user_cap_header_struct` of linux/capability.h.
#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: libc::c_int,
}

/// `struct __user_cap_data_struct` of linux/capability.h.
#[repr(C)]
#[derive(Clone, Copy)]
struct CapabilityData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `_LINUX_CAPABILITY_VERSION_3` of linux/capability.h: two data words.
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

/// `KEYCTL_JOIN_SESSION_KEYRING` of linux/keyctl.h.
const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;

/// The parts of `struct ifreq` that SIOCSIFFLAGS reads (netdevice(7)), padded to its 40 bytes.
#[repr(C)]
struct InterfaceFlags {
    name: [u8; libc::IFNAMSIZ],
    flags: libc::c_short,
    rest: [u8; 22],
}

const _: () = assert!(size_of::<InterfaceFlags>() == size_of::<libc::ifreq>());

fn check(rc: impl Into<i64>) -> io::Result<()> {
    match rc.into() {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Where libc enters the program.
// SAFETY: No other symbol of this program is called so, and libc calls this one as C's main.
#[cfg(not(test))]
#[unsafe(no_mangle)]
extern "C" fn main(_count: libc::c_int, _arguments: *const *const libc::c_char) -> libc::c_int {
    crate::start()
}

/// Forks. `None` in the child.
pub(crate) fn fork() -> io::Result<Option<Pid>> {
    // SAFETY: The agent never makes a thread, so the child is a whole copy: no lock is held by a
    // thread that is not there, and everything that is safe in the parent is safe in the child.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        pid => Ok(Some(Pid::from_raw(pid))),
    }
}

/// Sends any signal, real-time ones included. `pid` as in kill(2).
pub(crate) fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: kill(2) takes two integers and touches no memory of ours.
    check(unsafe { libc::kill(pid, signal) })
}

/// Reaps one child that has ended; `None` if none has. nix does not know real-time signals.
///
/// # Errors
/// `ECHILD`: there is no child.
pub(crate) fn reap() -> io::Result<Option<(Pid, Outcome)>> {
    wait_for_child(libc::WNOHANG)
}

/// Waits until a child ends, and reaps it.
///
/// # Errors
/// `ECHILD`: there is no child.
pub(crate) fn wait() -> io::Result<()> {
    match wait_for_child(0) {
        Err(why) if why.kind() != io::ErrorKind::Interrupted => Err(why),
        _ => Ok(()),
    }
}

fn wait_for_child(flags: libc::c_int) -> io::Result<Option<(Pid, Outcome)>> {
    let mut status = 0;
    // SAFETY: waitpid writes one int, which outlives the call.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, flags) };
    check(pid)?;
    // The kernel keeps eight bits of a code and seven of a signal.
    let outcome = match libc::WIFSIGNALED(status) {
        true => Outcome::Signal(libc::WTERMSIG(status) as u8),
        false => Outcome::Code(libc::WEXITSTATUS(status) as u8),
    };
    Ok((pid != 0).then(|| (Pid::from_raw(pid), outcome)))
}

/// Marks every descriptor from `first` up close-on-exec. Closes nothing now. Linux 5.11.
pub(crate) fn cloexec_from(first: u32) -> io::Result<()> {
    // SAFETY: `close_range` with CLOEXEC takes three integers, touches no memory of ours and closes
    // no descriptor: no owner in this process is left dangling.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) })
}

/// `struct sigaction` of the kernel for x86-64 (arch/x86/include/uapi/asm/signal.h).
#[repr(C)]
struct Disposition {
    handler: usize,
    flags: u64,
    restorer: usize,
    mask: u64,
}

/// Gives every signal its default disposition, also those that libc keeps for itself.
pub(crate) fn default_signals() {
    let default = Disposition { handler: libc::SIG_DFL, flags: 0, restorer: 0, mask: 0 };
    let none = std::ptr::null_mut::<Disposition>();
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: rt_sigaction reads one disposition in the kernel's layout, which outlives the call,
        // and writes none to a null pointer. SIG_DFL is no function of ours, so nothing can be called
        // that must not be. SIGKILL and SIGSTOP refuse; they have the default disposition always.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, &raw const default, none, size_of::<u64>()) };
    }
}

/// Takes every capability but those in `keep` out of the bounding set.
pub(crate) fn bound_capabilities(keep: u64) -> io::Result<()> {
    for capability in 0..u64::BITS {
        // SAFETY: PR_CAPBSET_READ takes integers only.
        let has = unsafe { libc::prctl(libc::PR_CAPBSET_READ, libc::c_ulong::from(capability), 0, 0, 0) };
        if has == -1 {
            return Ok(()); // Past the last capability that this kernel knows.
        }
        if has == 1 && keep & (1 << capability) == 0 {
            // SAFETY: PR_CAPBSET_DROP takes integers only.
            check(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability), 0, 0, 0) })?;
        }
    }
    Ok(())
}

/// Sets the permitted and effective sets to `keep`, the inheritable and ambient sets to nothing.
pub(crate) fn set_capabilities(keep: u64) -> io::Result<()> {
    let word = |bits: u64| {
        let bits = bits as u32;
        CapabilityData { effective: bits, permitted: bits, inheritable: 0 }
    };
    let mut header = CapabilityHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let data = [word(keep), word(keep >> 32)];
    // SAFETY: version 3 reads one header, and writes it if it knows another version, and reads two
    // data words; both are `repr(C)`, initialised, and outlive the call.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) })?;
    // SAFETY: PR_CAP_AMBIENT_CLEAR_ALL takes integers only.
    check(unsafe {
        libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong, 0, 0, 0)
    })
}

/// Filters the system calls of this process and its children from now on (seccomp(2)); each instruction
/// is a `struct sock_filter`, little endian.
pub(crate) fn filter_calls(program: &[u64]) -> io::Result<()> {
    let instruction = |word: &u64| {
        let [c0, c1, jt, jf, a, b, c, d] = word.to_le_bytes();
        let (code, k) = (u16::from_le_bytes([c0, c1]), u32::from_le_bytes([a, b, c, d]));
        libc::sock_filter { code, jt, jf, k }
    };
    let mut filter: Vec<_> = program.iter().map(instruction).collect();
    let len = u16::try_from(filter.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = libc::sock_fprog { len, filter: filter.as_mut_ptr() };
    // SAFETY: PR_SET_SECCOMP reads one `sock_fprog` and `len` instructions, which the kernel copies and
    // checks; both outlive the call.
    check(unsafe {
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER as libc::c_ulong, &raw const program)
    })
}

/// Gives this process an empty session keyring of its own (keyrings(7)): it would share its parent's.
pub(crate) fn join_own_session_keyring() -> io::Result<()> {
    let name = std::ptr::null::<libc::c_char>();
    // SAFETY: a null name asks for an anonymous keyring; no memory of ours is touched.
    check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name) })
}

/// Makes the terminal the controlling terminal of this session leader (tty_ioctl(4), TIOCSCTTY).
pub(crate) fn make_controlling(terminal: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: TIOCSCTTY takes an integer.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) })
}

/// Sets the window size of a terminal (tty_ioctl(4), TIOCSWINSZ).
pub(crate) fn set_window(terminal: BorrowedFd<'_>, size: TerminalSize) -> io::Result<()> {
    let size = libc::winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads one `struct winsize`, which outlives the call.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) })
}

/// Lets the other end of a new pseudo-terminal be opened (tty_ioctl(4), TIOCSPTLCK).
pub(crate) fn unlock_terminal(master: BorrowedFd<'_>) -> io::Result<()> {
    let locked: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int, which outlives the call.
    check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const locked) })
}

/// The number of a pseudo-terminal in its directory (tty_ioctl(4), TIOCGPTN).
pub(crate) fn terminal_number(master: BorrowedFd<'_>) -> io::Result<u32> {
    let mut number: libc::c_uint = 0;
    // SAFETY: TIOCGPTN writes one unsigned int, which outlives the call.
    check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTN, &raw mut number) })?;
    Ok(number)
}

/// Sets an interface's flags (netdevice(7), SIOCSIFFLAGS) through any internet socket.
pub(crate) fn set_interface_flags(socket: BorrowedFd<'_>, name: &str, flags: i32) -> io::Result<()> {
    let mut request = InterfaceFlags { name: [0; libc::IFNAMSIZ], flags: 0, rest: [0; 22] };
    if name.len() >= libc::IFNAMSIZ {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    request.flags = libc::c_short::try_from(flags).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: SIOCSIFFLAGS reads one `struct ifreq`; ours has its size and the layout of the fields
    // that this request reads, is initialised to the last byte and outlives the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) })
}

/// Writes one byte to an I/O port.
pub(crate) fn write_port(port: u16, byte: u8) -> io::Result<()> {
    // SAFETY: ioperm(2) takes three integers; it lets this process execute the next line.
    check(unsafe { libc::ioperm(libc::c_ulong::from(port), 1, 1) })?;
    // SAFETY: ioperm allowed the port, so the instruction does not fault; it touches no memory and
    // no register but its operands.
    unsafe {
        std::arch::asm!("out dx, al", in("dx") port, in("al") byte, options(nomem, nostack, preserves_flags));
    }
    Ok(())
}

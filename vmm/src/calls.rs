//! The system calls of each thread of a sealed machine; any other kills the process. `docs/threat-model.md` has them as
//! a table.
#![forbid(unsafe_code)]

use std::os::fd::RawFd;

use hull_jail::Argument::{Has, Is, Lacks};
use hull_jail::Calls;
use kvm_bindings::{kvm_msi, kvm_regs};

/// The number of a request of KVM's (include/uapi/linux/kvm.h, `_IOC` of include/uapi/asm-generic/ioctl.h).
const fn kvm(direction: u32, number: u32, size: usize) -> u32 {
    // No structure of KVM's is near the 14 bits that there are.
    (direction << 30) | ((size as u32) << 16) | (0xae << 8) | number
}

const WRITE: u32 = 1;
const READ: u32 = 2;
const KVM_RUN: u32 = kvm(0, 0x80, 0);
const KVM_GET_REGS: u32 = kvm(READ, 0x81, size_of::<kvm_regs>());
const KVM_SIGNAL_MSI: u32 = kvm(WRITE, 0xa5, size_of::<kvm_msi>());

const _: () = assert!(KVM_GET_REGS == 0x8090_ae81 && KVM_SIGNAL_MSI == 0x4020_aea5);

/// What threads have open that their lists name.
#[derive(Clone, Copy, Debug)]
pub struct Files {
    /// Wakes the event thread.
    pub wake: RawFd,
    pub console: Option<RawFd>,
    /// Where a thread that panics, and the machine's end, are reported: a connected socket.
    pub report: RawFd,
    /// Whether queues are handed to servers of file systems, with messages that carry descriptors.
    pub servers: bool,
}

/// The threads of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Runs guest code and serves registers.
    Vcpu,
    /// Serves devices.
    Events,
    /// Waits for the machine's end, takes vCPUs out of KVM, reports, ends the process.
    Main,
}

impl Role {
    /// The thread's list.
    pub fn calls(self, files: Files) -> Calls {
        match self {
            Self::Vcpu => vcpu(files),
            Self::Events => events(files),
            Self::Main => main(files),
        }
    }
}

fn vcpu(files: Files) -> Calls {
    let calls = common(files)
        .allow_if(libc::SYS_ioctl, &[Is(1, KVM_RUN)])
        .allow_if(libc::SYS_ioctl, &[Is(1, KVM_SIGNAL_MSI)])
        // Where the guest stands, for the report of a fault.
        .allow_if(libc::SYS_ioctl, &[Is(1, KVM_GET_REGS)])
        .allow_if(libc::SYS_write, &[Is(0, number(files.wake))]);
    match files.console {
        Some(console) => calls.allow_if(libc::SYS_write, &[Is(0, number(console))]),
        None => calls,
    }
}

fn events(files: Files) -> Calls {
    let calls = if files.servers { &[libc::SYS_recvmsg, libc::SYS_sendmsg][..] } else { &[] };
    common(files)
        .allow(calls)
        .allow(&[
            libc::SYS_close,
            libc::SYS_epoll_ctl,
            libc::SYS_epoll_wait,
            libc::SYS_fallocate,
            libc::SYS_fdatasync,
            libc::SYS_madvise,
            libc::SYS_mremap,
            libc::SYS_preadv,
            libc::SYS_pwritev,
            libc::SYS_read,
            libc::SYS_shutdown,
            libc::SYS_write,
            libc::SYS_writev,
        ])
        .allow_if(libc::SYS_ioctl, &[Is(1, KVM_SIGNAL_MSI)])
        // The last words of a machine may wait for their reader.
        .allow_if(libc::SYS_ioctl, &[Is(1, libc::FIONBIO as u32)])
        .allow_if(
            libc::SYS_setsockopt,
            &[Is(1, libc::SOL_SOCKET.unsigned_abs()), Is(2, libc::SO_SNDTIMEO.unsigned_abs())],
        )
        // What the standard library asks before it closes, in builds with debug assertions.
        .allow_if(libc::SYS_fcntl, &[Is(1, libc::F_GETFD.unsigned_abs())])
}

fn main(files: Files) -> Calls {
    common(files).allow_if(libc::SYS_write, &[Is(0, number(files.wake))]).allow(&[
        libc::SYS_exit_group,
        libc::SYS_getpid,
        libc::SYS_madvise,
        libc::SYS_mremap,
        libc::SYS_restart_syscall,
        libc::SYS_rt_sigprocmask,
        libc::SYS_sigaltstack,
        libc::SYS_tgkill,
    ])
}

/// Memory of its own, waiting for each other, signal handlers, time, a report.
fn common(files: Files) -> Calls {
    let executable = libc::PROT_EXEC.unsigned_abs().into();
    let anonymous = libc::MAP_ANONYMOUS.unsigned_abs().into();
    // None of those that pass locks on, or inherit priorities.
    let futex = [
        libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
        libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG,
        libc::FUTEX_WAIT_BITSET | libc::FUTEX_PRIVATE_FLAG,
    ];
    let calls = Calls::new()
        .allow(&[libc::SYS_brk, libc::SYS_clock_gettime, libc::SYS_munmap, libc::SYS_rt_sigreturn])
        .allow_if(libc::SYS_mmap, &[Lacks(2, executable), Has(3, anonymous)])
        // Without an address: a socket that is connected sends to its other end only.
        .allow_if(libc::SYS_sendto, &[Is(0, number(files.report)), Lacks(4, u64::MAX)]);
    futex.into_iter().fold(calls, |calls, op| calls.allow_if(libc::SYS_futex, &[Is(1, op.unsigned_abs())]))
}

fn number(fd: RawFd) -> u32 {
    fd.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_short() {
        for (console, servers) in [(None, false), (Some(2), true)] {
            let files = Files { wake: 5, console, report: 0, servers };
            for (role, most) in [(Role::Vcpu, 10), (Role::Events, 25), (Role::Main, 25)] {
                let count = role.calls(files).count();
                assert!(count <= most, "{role:?}: {count}");
            }
        }
    }
}

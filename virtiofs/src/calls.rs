//! The system calls of a process that serves: what the guest's requests become, on descriptors of the volume.

use hull_jail::Argument::{Has, Is, Lacks};
use hull_jail::Calls;

/// Any other kills the process.
pub(crate) fn serving() -> Calls {
    let executable = libc::PROT_EXEC.unsigned_abs().into();
    let shared = libc::MAP_SHARED.unsigned_abs().into();
    let anonymous = libc::MAP_ANONYMOUS.unsigned_abs().into();
    Calls::new()
        .allow(&FILES)
        .allow(&WAITING)
        .allow(&IDENTITY)
        .allow(&OWN)
        // The guest's RAM, and its own.
        .allow_if(libc::SYS_mmap, &[Lacks(2, executable), Has(3, shared)])
        .allow_if(libc::SYS_mmap, &[Lacks(2, executable), Has(3, anonymous)])
        .allow_if(libc::SYS_mprotect, &[Lacks(2, executable)])
        // A thread that was started just now.
        .allow_if(libc::SYS_prctl, &[Is(0, libc::PR_SET_NAME.unsigned_abs())])
}

/// On files and directories.
const FILES: [libc::c_long; 53] = [
    libc::SYS_close,
    libc::SYS_copy_file_range,
    libc::SYS_dup,
    libc::SYS_fallocate,
    libc::SYS_fchdir,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchownat,
    libc::SYS_fcntl,
    libc::SYS_fdatasync,
    libc::SYS_fgetxattr,
    libc::SYS_flistxattr,
    libc::SYS_flock,
    libc::SYS_fremovexattr,
    libc::SYS_fsetxattr,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_getdents64,
    libc::SYS_getxattr,
    libc::SYS_linkat,
    libc::SYS_listxattr,
    libc::SYS_lseek,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_read,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_removexattr,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_setxattr,
    libc::SYS_statx,
    libc::SYS_symlinkat,
    libc::SYS_syncfs,
    libc::SYS_umask,
    libc::SYS_unlinkat,
    libc::SYS_utimensat,
    libc::SYS_write,
    libc::SYS_writev,
    // The conversation with the VMM, on sockets that are there.
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
];

/// On rings of the guest's.
const WAITING: [libc::c_long; 3] = [libc::SYS_epoll_ctl, libc::SYS_epoll_pwait, libc::SYS_epoll_wait];

/// A request is carried out as who makes it.
const IDENTITY: [libc::c_long; 7] = [
    libc::SYS_capget,
    libc::SYS_capset,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_setgroups,
    libc::SYS_setresgid,
    libc::SYS_setresuid,
];

/// What touches nothing but the process itself.
const OWN: [libc::c_long; 19] = [
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_sigaltstack,
];

//! The sets of system calls that have a name: rkt's wildcards, with the calls that Linux has got since.

/// The members of a set of more than one call; `None`: there is none of this name. Some narrow what a
/// call's arguments may be, see [`super::rules`].
pub(super) fn members(name: &str) -> Option<&'static str> {
    match name {
        "@docker/default-whitelist" | "@rkt/default-whitelist" => Some(WHITELIST),
        "@docker/default-blacklist" | "@rkt/default-blacklist" => Some(BLACKLIST),
        "@systemd/clock" => Some(CLOCK),
        "@systemd/default-whitelist" => Some(ALWAYS),
        "@systemd/mount" => Some(MOUNT),
        "@systemd/network-io" => Some(NETWORK_IO),
        "@systemd/obsolete" => Some(OBSOLETE),
        "@systemd/privileged" => Some(PRIVILEGED),
        "@systemd/process" => Some(PROCESS),
        "@systemd/raw-io" => Some(RAW_IO),
        _ => None,
    }
}

/// What comes with a capability (capabilities(7)), where a filter is not asked for but the default.
pub(super) const OF_CAPABILITIES: [(&str, &str); 14] = [
    ("CAP_BPF", "bpf"),
    ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    ("CAP_PERFMON", "perf_event_open"),
    (
        "CAP_SYS_ADMIN",
        "bpf clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr lsm_list_modules \
         lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open pivot_root quotactl quotactl_fd \
         setdomainname sethostname setns syslog umount2 unshare",
    ),
    ("CAP_SYS_BOOT", "reboot"),
    ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_SYS_MODULE", "delete_module finit_module init_module"),
    ("CAP_SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("CAP_SYS_PACCT", "acct"),
    ("CAP_SYS_PTRACE", "kcmp pidfd_getfd process_madvise"),
    ("CAP_SYS_RAWIO", "ioperm iopl"),
    ("CAP_SYS_TIME", "clock_settime settimeofday"),
    ("CAP_SYS_TTY_CONFIG", "vhangup"),
    ("CAP_SYSLOG", "syslog"),
];

/// Docker's default profile (moby/profiles, seccomp/default.json of 2026) without what comes with capabilities. `io_uring` is not in it: it has been
/// the way out of too many containers.
const WHITELIST: &str = "\
    accept accept4 access adjtimex alarm arch_prctl bind brk cachestat capget capset chdir chmod \
    chown clock_adjtime clock_getres clock_gettime clock_nanosleep clone close close_range connect \
    copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old \
    epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit \
    exit_group faccessat faccessat2 fadvise64 fallocate fanotify_mark fchdir fchmod fchmodat \
    fchmodat2 fchown fchownat fcntl fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr \
    fstat fstatfs fsync ftruncate futex futex_requeue futex_wait futex_waitv futex_wake futimesat \
    get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid geteuid getgid \
    getgroups getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid \
    getresuid getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday getuid getxattr \
    inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents \
    io_pgetevents io_setup io_submit ioctl ioprio_get ioprio_set kill landlock_add_rule \
    landlock_create_ruleset landlock_restrict_self lchown lgetxattr link linkat listen listmount listxattr \
    llistxattr lremovexattr lseek lsetxattr lstat madvise map_shadow_stack membarrier memfd_create \
    memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap modify_ldt mprotect \
    mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink mremap mseal msgctl \
    msgget msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat open \
    openat openat2 pause personality pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free \
    pkey_mprotect poll ppoll prctl pread64 preadv preadv2 prlimit64 process_mrelease process_vm_readv process_vm_writev pselect6 ptrace \
    pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recvfrom recvmmsg recvmsg \
    remap_file_pages removexattr rename renameat renameat2 restart_syscall rmdir rseq rt_sigaction \
    rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait \
    rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr \
    sched_getparam sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr \
    sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop \
    sendfile sendmmsg sendmsg sendto set_robust_list set_thread_area set_tid_address setfsgid \
    setfsuid setgid setgroups setitimer setpgid setpriority setregid setresgid setresuid setreuid \
    setrlimit setsid setsockopt setuid setxattr shmat shmctl shmdt shmget shutdown sigaltstack \
    signalfd signalfd4 socket socketpair splice stat statfs statmount statx symlink symlinkat sync \
    sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun \
    timer_gettime timer_settime timerfd_create timerfd_gettime timerfd_settime times tkill truncate \
    umask uname unlink unlinkat uretprobe utime utimensat utimes vfork vmsplice wait4 waitid write \
    writev";

/// What Docker's documentation lists as blocked.
const BLACKLIST: &str = "\
    _sysctl acct add_key bpf clock_adjtime clock_settime create_module delete_module finit_module \
    get_kernel_syms get_mempolicy init_module ioperm iopl kcmp kexec_file_load kexec_load keyctl \
    lookup_dcookie mbind mount move_pages name_to_handle_at nfsservctl open_by_handle_at \
    perf_event_open personality pivot_root process_vm_readv process_vm_writev ptrace query_module \
    quotactl reboot request_key set_mempolicy setns settimeofday stime swapoff swapon sysfs umount \
    umount2 unshare uselib userfaultfd ustat vm86 vm86old";

const CLOCK: &str = "\
    adjtimex clock_adjtime clock_adjtime64 clock_settime clock_settime64 settimeofday stime";

/// What no program can do without.
pub(super) const ALWAYS: &str = "\
    clock_getres clock_gettime clock_nanosleep execve exit exit_group getrlimit gettimeofday \
    nanosleep pause restart_syscall rt_sigreturn sigreturn time";

const MOUNT: &str = "\
    chroot fsconfig fsmount fsopen fspick mount mount_setattr move_mount open_tree pivot_root umount \
    umount2";

const NETWORK_IO: &str = "\
    accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg \
    recvmmsg_time64 recvmsg send sendmmsg sendmsg sendto setsockopt shutdown socket socketcall \
    socketpair";

const OBSOLETE: &str = "\
    _sysctl afs_syscall bdflush break create_module ftime get_kernel_syms getpmsg gtty idle lock mpx \
    prof profil putpmsg query_module security sgetmask ssetmask stime stty sysfs tuxcall ulimit \
    uselib ustat vserver";

const PRIVILEGED: &str = "\
    _sysctl acct adjtimex bdflush bpf capset chown chown32 chroot clock_adjtime clock_settime \
    delete_module fchown fchown32 fchownat finit_module init_module ioperm iopl kexec_file_load \
    kexec_load lchown lchown32 nfsservctl open_by_handle_at pivot_root quotactl quotactl_fd reboot \
    setdomainname setfsuid setfsuid32 setgroups setgroups32 sethostname setresuid setresuid32 \
    setreuid setreuid32 settimeofday setuid setuid32 stime swapoff swapon sysctl vhangup";

const PROCESS: &str = "\
    arch_prctl clone clone3 execve execveat fork kill pidfd_open pidfd_send_signal prctl \
    rt_sigqueueinfo rt_tgsigqueueinfo setns tgkill tkill unshare vfork";

const RAW_IO: &str = "\
    ioperm iopl pciconfig_iobase pciconfig_read pciconfig_write";

//! Deeds that nobody in a jail may do, for the prisoners of the crates whose processes are jailed. The process keeps
//! standard input and standard output; the deeds are its own, or its parent's to suffer.
#![expect(unsafe_code, reason = "forbidden system calls have no safe form, and most no form in libc at all")]

use std::process::Command;
use std::{fs, io, net, ptr, thread};

/// Does it; `None` if it is none of these.
pub(crate) fn attempt(deed: &str) -> Option<io::Result<()>> {
    let parent = || i64::from(std::os::unix::process::parent_id());
    let here = c"/".as_ptr() as i64;
    Some(match deed {
        "nothing" => Ok(()),
        "wait" => loop {
            thread::park();
        },
        "memory" => {
            // Touched, so that it is really there.
            let bytes = vec![1_u8; 1 << 20];
            assert_eq!(std::hint::black_box(bytes).len(), 1 << 20);
            Ok(())
        }
        "too-much-memory" => call(libc::SYS_mmap, [0, 2 << 30, 3, 0x22, -1, 0]),
        "executable-memory" => call(libc::SYS_mmap, [0, 4096, 5, 0x22, -1, 0]),
        "make-executable" => {
            let page = [0_u8; 8192];
            call(libc::SYS_mprotect, [(page.as_ptr() as i64 + 4095) & !4095, 4096, 7, 0, 0, 0])
        }
        "read-root" => fs::read_dir("/").map(drop),
        "open-file" => fs::read("/etc/passwd").map(drop),
        "open-up" => fs::read("../../../../etc/passwd").map(drop),
        "open-proc" => fs::read("/proc/self/status").map(drop),
        "create" => fs::write("/new", b"x"),
        "make-directory" => fs::create_dir("/new"),
        "socket-inet" => {
            net::UdpSocket::bind("127.0.0.1:0").and_then(|s| s.send_to(b"x", "127.0.0.1:9")).map(drop)
        }
        "socket-unix-abstract" => call(libc::SYS_socket, [1, 1, 0, 0, 0, 0]),
        "socket-netlink" => call(libc::SYS_socket, [16, 3, 0, 0, 0, 0]),
        "socket-packet" => call(libc::SYS_socket, [17, 3, 0x300, 0, 0, 0]),
        "fork" => call(libc::SYS_fork, [0; 6]),
        "clone-newuser" => call(libc::SYS_unshare, [0x1000_0000, 0, 0, 0, 0, 0]),
        "thread" => thread::Builder::new().spawn(|| ()).map(drop),
        "exec" => Command::new("/bin/true").status().map(drop),
        "execveat-self" => call(libc::SYS_execveat, [1, c"".as_ptr() as i64, 0, 0, 0x1000, 0]),
        "ptrace-parent" => call(libc::SYS_ptrace, [16, parent(), 0, 0, 0, 0]),
        "read-parent" => {
            let mut byte = [0_u8; 1];
            let local = [byte.as_mut_ptr() as i64, 1];
            let remote = [4096_i64 * 1024, 1];
            call(
                libc::SYS_process_vm_readv,
                [parent(), local.as_ptr() as i64, 1, remote.as_ptr() as i64, 1, 0],
            )
        }
        "kill-parent" => call(libc::SYS_kill, [parent(), 0, 0, 0, 0, 0]),
        "pidfd-parent" => call(libc::SYS_pidfd_open, [parent(), 0, 0, 0, 0, 0]),
        "renice-parent" => call(libc::SYS_setpriority, [0, parent(), 5, 0, 0, 0]),
        "limit-parent" => {
            let limit = [1_u64, 1];
            call(libc::SYS_prlimit64, [parent(), 7, limit.as_ptr() as i64, 0, 0, 0])
        }
        "mount" => call(libc::SYS_mount, [c"x".as_ptr() as i64, here, c"tmpfs".as_ptr() as i64, 0, 0, 0]),
        "umount" => call(libc::SYS_umount2, [here, 2, 0, 0, 0, 0]),
        "remount-writable" => call(libc::SYS_mount, [0, here, 0, 32, 0, 0]),
        "chroot" => call(libc::SYS_chroot, [here, 0, 0, 0, 0, 0]),
        "mknod" => call(libc::SYS_mknod, [c"/x".as_ptr() as i64, 0o020_600, 0x103, 0, 0, 0]),
        "setuid" => call(libc::SYS_setuid, [0; 6]),
        "setgid" => call(libc::SYS_setgid, [0; 6]),
        "setgroups" => call(libc::SYS_setgroups, [0; 6]),
        "capset" => {
            let (header, all) = ([0x2008_0522_u32, 0], [u32::MAX; 6]);
            call(libc::SYS_capset, [header.as_ptr() as i64, all.as_ptr() as i64, 0, 0, 0, 0])
        }
        "more-files" => call(libc::SYS_prlimit64, [0, 7, [4096_u64, 4096].as_ptr() as i64, 0, 0, 0]),
        "duplicate" => call(libc::SYS_dup, [1, 0, 0, 0, 0, 0]),
        "pipe" => call(libc::SYS_pipe2, [[0_i32; 2].as_mut_ptr() as i64, 0, 0, 0, 0, 0]),
        "bpf" => call(libc::SYS_bpf, [0, [0_u8; 128].as_ptr() as i64, 128, 0, 0, 0]),
        "io-uring" => call(libc::SYS_io_uring_setup, [1, [0_u8; 256].as_mut_ptr() as i64, 0, 0, 0, 0]),
        "userfaultfd" => call(libc::SYS_userfaultfd, [0; 6]),
        "perf" => call(libc::SYS_perf_event_open, [[0_u8; 256].as_ptr() as i64, 0, -1, -1, 0, 0]),
        "keyctl" => call(libc::SYS_keyctl, [0, -3, 1, 0, 0, 0]),
        "add-key" => {
            let (kind, name) = (c"user".as_ptr() as i64, c"x".as_ptr() as i64);
            call(libc::SYS_add_key, [kind, name, name, 1, -3, 0])
        }
        "module" => call(libc::SYS_init_module, [0, 0, c"".as_ptr() as i64, 0, 0, 0]),
        "reboot" => call(libc::SYS_reboot, [0; 6]),
        "syslog" => call(libc::SYS_syslog, [4, 0, 0, 0, 0, 0]),
        "set-time" => call(libc::SYS_clock_settime, [0, [1_i64, 0].as_ptr() as i64, 0, 0, 0, 0]),
        "host-name" => call(libc::SYS_sethostname, [c"x".as_ptr() as i64, 1, 0, 0, 0, 0]),
        "set-namespace" => call(libc::SYS_setns, [1, 0, 0, 0, 0, 0]),
        "handle" => call(libc::SYS_open_by_handle_at, [1, [0_u8; 64].as_ptr() as i64, 0, 0, 0, 0]),
        "ioctl" => call(libc::SYS_ioctl, [1, 0x5412, c"x".as_ptr() as i64, 0, 0, 0]),
        "foreign-machine" => {
            // `getpid` by number as a 64-bit process with 32-bit pointers would ask for it.
            call(0x4000_0000 | libc::SYS_getpid, [0; 6])
        }
        "segfault" => {
            // SAFETY: it is not: this process is to be killed for it.
            unsafe { ptr::null_mut::<u8>().write_volatile(1) };
            Ok(())
        }
        _ => return None,
    })
}

/// A system call by its number.
pub(crate) fn call(number: libc::c_long, a: [i64; 6]) -> io::Result<()> {
    // SAFETY: the arguments are numbers, or lead to memory that lives longer than the call; what the calls
    // would change is what the process is not allowed to.
    match unsafe { libc::syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

//! Goes into the jail of `hull-converter` and tries to do what is forbidden there: `prisoner STEP DEED`.
//!
//! STEP is `entered` (every system call is still there), `sealed`, or `threads` (there are two). The files of the job are standard input
//! (the socket) and standard output. Exits with 0 if the deed was done, with 100 + errno if it was refused.
#![expect(unsafe_code, reason = "forbidden system calls have no safe form, and most no form in libc at all")]

use std::os::fd::AsFd;
use std::process::{Command, ExitCode};
use std::{env, fs, io, net, ptr, thread};

use hull_converter::{calls, enter};
use hull_converter_protocol::{Algorithm, Digest, ImageId, Request};

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [step, deed] = &*arguments else { return ExitCode::from(2) };
    let (stdin, stdout) = (io::stdin(), io::stdout());
    let (socket, output) = (stdin.as_fd(), stdout.as_fd());
    let id = ImageId::from(&Digest::of(Algorithm::Sha256, b""));
    let request = Request::Convert { id, layers: Vec::new() };
    if step == "threads" {
        thread::spawn(thread::park);
    }
    let Ok(entered) = enter(&[socket, output]) else { return ExitCode::from(3) };
    if step == "sealed" {
        entered.seal(&calls(&request, socket, &[output])).expect("a door");
    }
    match attempt(deed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => ExitCode::from(100 + u8::try_from(e.raw_os_error().unwrap_or(99)).unwrap_or(99)),
    }
}

fn attempt(deed: &str) -> io::Result<()> {
    let parent = || i64::from(std::os::unix::process::parent_id());
    let here = c"/".as_ptr() as i64;
    match deed {
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
        "map-file" => call(libc::SYS_mmap, [0, 4096, 1, 2, 1, 0]),
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
        "chmod-output" => call(libc::SYS_fchmod, [1, 0o777, 0, 0, 0, 0]),
        "chown-output" => call(libc::SYS_fchown, [1, 0, 0, 0, 0, 0]),
        "write-output" => call(libc::SYS_pwrite64, [1, c"x".as_ptr() as i64, 1, 0, 0, 0]),
        "write-far-output" => call(libc::SYS_pwrite64, [1, c"x".as_ptr() as i64, 1, 97 << 30, 0, 0]),
        "grow-output" => call(libc::SYS_ftruncate, [1, 97 << 30, 0, 0, 0, 0]),
        "write-other" => call(libc::SYS_pwrite64, [0, c"x".as_ptr() as i64, 1, 0, 0, 0]),
        "allocate-output" => call(libc::SYS_fallocate, [1, 0, 0, 1 << 20, 0, 0]),
        "send-elsewhere" => {
            let address = [1_u8, 0, 0, b'x'];
            call(libc::SYS_sendto, [0, address.as_ptr() as i64, 1, 0x4000, address.as_ptr() as i64, 4])
        }
        "receive" => call(libc::SYS_recvfrom, [0, [0_u8; 1].as_mut_ptr() as i64, 1, 0x40, 0, 0]),
        "foreign-machine" => {
            // `getpid` by number as a 64-bit process with 32-bit pointers would ask for it.
            call(0x4000_0000 | libc::SYS_getpid, [0; 6])
        }
        "segfault" => {
            // SAFETY: it is not: this process is to be killed for it.
            unsafe { ptr::null_mut::<u8>().write_volatile(1) };
            Ok(())
        }
        other => panic!("no deed {other}"),
    }
}

fn call(number: libc::c_long, a: [i64; 6]) -> io::Result<()> {
    // SAFETY: the arguments are numbers, or lead to memory that lives longer than the call; what the calls
    // would change is what the process is not allowed to.
    match unsafe { libc::syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

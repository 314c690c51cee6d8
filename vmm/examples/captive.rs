//! A VMM that obeys commands: goes into the jail of a machine and tries to do what is forbidden there, or runs a guest.
//!
//! `captive ID STEP DEED`: STEP is `entered` (every system call is still there), `main`, `events` or `vcpu` (the lists
//! of these threads). Exits with 0 if the deed was done, with 100 + errno if it was refused.
//!
//! `captive ID guest KERNEL [VCPUS [DISK]]`: runs a kernel with a vsock whose port 1024 is standard input, and a
//! console on standard output if there is no disk. Exits with the guest's code; 99 for another end.
//!
//! `RAM_MIB` in the environment is the machine's RAM (32 without it).
//!
//! ID is the user it becomes; 0 keeps the caller's. Standard input is the supervisor.

#[path = "../../jail/tests/deeds/mod.rs"]
mod deeds;

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::process::ExitCode;
use std::{env, io};

use deeds::call;
use hull_jail::{Entered, Ids};
use hull_vmm::{Asked, Disk, Files, Halt, HostFiles, Machine, Role, VmConfig, Vsock, VsockPort};

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let [id, words @ ..] = &*words else { return ExitCode::from(2) };
    let ids = match id.parse() {
        Ok(0) => Ids::Kept,
        Ok(id) => Ids::Given(id),
        Err(_) => return ExitCode::from(2),
    };
    match words {
        ["guest", kernel, rest @ ..] => ExitCode::from(guest(ids, kernel, rest).expect("a guest")),
        [step, deed] => commit(ids, step, deed),
        _ => ExitCode::from(2),
    }
}

fn commit(ids: Ids, step: &str, deed: &str) -> ExitCode {
    let asked = asked("/proc/self/exe").expect("the files of a machine");
    let kvm = asked.host.kvm.as_raw_fd();
    let entered = enter(&asked, ids).expect("a jail");
    let role = match step {
        "main" => Some(Role::Main),
        "events" => Some(Role::Events),
        "vcpu" => Some(Role::Vcpu),
        _ => None,
    };
    if let Some(role) = role {
        let filter = role
            .calls(Files { wake: 77, console: None, report: 0, servers: false })
            .compile()
            .expect("a list");
        entered.seal_last(&filter).expect("a door");
    }
    match deeds::attempt(deed).unwrap_or_else(|| attempt(deed, kvm.into())) {
        // Without what a program does at its end.
        Ok(()) => end(0),
        Err(e) => end(100 + e.raw_os_error().unwrap_or(99)),
    }
}

/// Every thread may say so in one way at least: by a report, whose first byte is the code. A vCPU's process ends by
/// another's hand.
fn end(code: i32) -> ExitCode {
    let byte = [u8::try_from(code).unwrap_or(199)];
    let _ = call(libc::SYS_sendto, [0, byte.as_ptr() as i64, 1, 0x4000, 0, 0]); // Nobody may listen.
    loop {
        std::thread::park();
    }
}

/// What is about machines.
fn attempt(deed: &str, kvm: i64) -> io::Result<()> {
    match deed {
        "map-file" => call(libc::SYS_mmap, [0, 4096, 1, 2, kvm + 2, 0]),
        "create-vm" => call(libc::SYS_ioctl, [kvm, 0xae01, 0, 0, 0, 0]),
        "inject-key" => call(libc::SYS_ioctl, [1, 0x5412, c"x".as_ptr() as i64, 0, 0, 0]),
        "lock-by-priority" => call(libc::SYS_futex, [[0_u32; 1].as_mut_ptr() as i64, 6 | 128, 0, 0, 0, 0]),
        "open-device" => File::options().write(true).open("/dev/kvm").map(drop),
        "read-entropy" => call(libc::SYS_read, [kvm + 1, [0_u8; 1].as_mut_ptr() as i64, 1, 0, 0, 0]),
        "write-console" => call(libc::SYS_write, [1, c"x".as_ptr() as i64, 1, 0, 0, 0]),
        "send-elsewhere" => {
            let address = [1_u8, 0, 0, b'x'];
            call(libc::SYS_sendto, [0, address.as_ptr() as i64, 1, 0x4000, address.as_ptr() as i64, 4])
        }
        "pass-file" => {
            // `struct msghdr` without anything in it.
            call(libc::SYS_sendmsg, [0, [0_u64; 7].as_ptr() as i64, 0x4000, 0, 0, 0])
        }
        "receive" => call(libc::SYS_recvfrom, [0, [0_u8; 1].as_mut_ptr() as i64, 1, 0x40, 0, 0]),
        "wait-for-files" => call(libc::SYS_poll, [0, 0, 0, 0, 0, 0]),
        "kill-all" => call(libc::SYS_kill, [-1, 9, 0, 0, 0, 0]),
        "kill-guess" => call(libc::SYS_kill, [2, 0, 0, 0, 0, 0]),
        "sleep" => call(libc::SYS_nanosleep, [[0_u64; 2].as_ptr() as i64, 0, 0, 0, 0, 0]),
        other => panic!("no deed {other}"),
    }
}

fn guest(ids: Ids, kernel: &str, rest: &[&str]) -> Fallible<u8> {
    let vcpus = rest.first().map_or(Ok(1), |count| count.parse())?;
    let stream = io::stdin().as_fd().try_clone_to_owned()?.into();
    let mut asked = Asked {
        vcpus,
        vsock: Some(Vsock { ports: vec![VsockPort { port: 1024, stream }] }),
        rng: true,
        ..asked(kernel)?
    };
    match rest.get(1) {
        Some(disk) => {
            let file = File::options().read(true).write(true).open(disk)?;
            asked.disks.push(Disk { file, read_only: false });
        }
        None => asked.console = Some(io::stdout().as_fd().try_clone_to_owned()?.into()),
    }
    let entered = enter(&asked, ids)?;
    let machine = Machine::new(VmConfig::try_from(asked)?)?.load()?;
    let (machine, _sealed) = machine.boot_sealed(entered, io::stdin().as_fd())?;
    Ok(match machine.wait() {
        Halt::PowerOff { code } => code,
        _ => 99,
    })
}

fn enter(asked: &Asked, ids: Ids) -> Fallible<Entered> {
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    Ok(hull_vmm::enter(asked, &[stdin.as_fd(), stdout.as_fd(), stderr.as_fd()], ids)?)
}

fn asked(kernel: &str) -> Fallible<Asked> {
    Ok(Asked {
        host: HostFiles::open()?,
        vcpus: 1,
        ram_mib: env::var("RAM_MIB").map_or(Ok(32), |mib| mib.parse())?,
        kernel: File::open(kernel)?,
        initramfs: vec![],
        cmdline: String::new(),
        disks: vec![],
        vsock: None,
        rng: false,
        net: vec![],
        console: None,
    })
}

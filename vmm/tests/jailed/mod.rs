//! Guests whose machine is jailed as in a pod, and a VMM that tries what its jail forbids (`examples/captive.rs`).

use std::io::{Read, Seek};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use super::assembler::{Code, Guest};
use super::{BUFFER, NEXT, RINGS, USED_INDEX, WRITE, kvm, packet, virtio};

const SIGSYS: i32 = 31;

/// How a deed must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    Done,
    /// With one of these error numbers.
    Refused(&'static [i32]),
    Killed(i32),
}

use Want::{Done, Killed, Refused};

const EPERM: i32 = 1;
const ENOENT: i32 = 2;
const ESRCH: i32 = 3;
const EAGAIN: i32 = 11;
const ENOMEM: i32 = 12;
const EACCES: i32 = 13;
const EINVAL: i32 = 22;
const ENOTTY: i32 = 25;
const EROFS: i32 = 30;
const ENOSYS: i32 = 38;
const EISCONN: i32 = 106;

const KILLED: Want = Killed(SIGSYS);

/// Where a thread's list lets a call through, what becomes of it then; all others kill.
type Let = &'static [(&'static str, Want)];

/// Each deed, what becomes of it while all system calls are still there, and for which threads it does not kill in the end.
const DEEDS: &[(&str, Want, Let)] = &[
    ("nothing", Done, &[("main", Done), ("events", Done), ("vcpu", Done)]),
    ("memory", Done, &[("main", Done), ("events", Done), ("vcpu", Done)]),
    (
        "too-much-memory",
        Refused(&[ENOMEM]),
        &[("main", Refused(&[ENOMEM])), ("events", Refused(&[ENOMEM])), ("vcpu", Refused(&[ENOMEM]))],
    ),
    ("executable-memory", Done, &[]),
    ("make-executable", Done, &[]),
    ("map-file", Done, &[]),
    ("read-root", Refused(&[EACCES]), &[]),
    ("open-file", Refused(&[EACCES, ENOENT]), &[]),
    ("open-up", Refused(&[EACCES, ENOENT]), &[]),
    ("open-proc", Refused(&[EACCES, ENOENT]), &[]),
    ("open-device", Refused(&[EACCES, ENOENT]), &[]),
    ("create", Refused(&[EACCES, EROFS]), &[]),
    ("make-directory", Refused(&[EACCES, EROFS]), &[]),
    ("socket-unix-abstract", Done, &[]),
    ("socket-netlink", Done, &[]),
    ("socket-packet", Refused(&[EPERM]), &[]),
    ("fork", Done, &[]),
    ("clone-newuser", Done, &[]),
    ("thread", Done, &[]),
    ("exec", Refused(&[ENOENT, EACCES]), &[]),
    ("execveat-self", Refused(&[EACCES]), &[]),
    ("ptrace-parent", Refused(&[EPERM, ESRCH]), &[]),
    ("read-parent", Refused(&[EPERM, ESRCH]), &[]),
    ("pidfd-parent", Refused(&[EINVAL, ESRCH]), &[]),
    ("kill-all", Refused(&[EPERM, ESRCH]), &[]),
    ("kill-guess", Refused(&[EPERM, ESRCH]), &[]),
    ("mount", Refused(&[EPERM]), &[]),
    ("umount", Refused(&[EPERM]), &[]),
    ("remount-writable", Refused(&[EPERM]), &[]),
    ("chroot", Refused(&[EPERM, EACCES]), &[]),
    ("mknod", Refused(&[EPERM, EACCES, EROFS]), &[]),
    ("setuid", Refused(&[EPERM]), &[]),
    ("setgid", Refused(&[EPERM]), &[]),
    ("setgroups", Refused(&[EPERM]), &[]),
    ("capset", Refused(&[EPERM]), &[]),
    ("more-files", Refused(&[EPERM]), &[]),
    ("duplicate", Done, &[]),
    ("pipe", Done, &[]),
    ("bpf", Refused(&[EPERM, EINVAL]), &[]),
    ("io-uring", Done, &[]),
    ("userfaultfd", Refused(&[EPERM, ENOSYS]), &[]),
    ("perf", Refused(&[EACCES, EPERM, EINVAL, ENOSYS, ENOENT]), &[]),
    ("module", Refused(&[EPERM, ENOSYS]), &[]),
    ("reboot", Refused(&[EPERM]), &[]),
    ("syslog", Refused(&[EPERM]), &[]),
    ("set-time", Refused(&[EPERM]), &[]),
    ("host-name", Refused(&[EPERM]), &[]),
    ("set-namespace", Refused(&[EINVAL, EPERM]), &[]),
    ("handle", Refused(&[EPERM, EINVAL]), &[]),
    ("foreign-machine", Refused(&[ENOSYS]), &[]),
    ("keyctl", Done, &[]),
    ("create-vm", Done, &[]),
    ("inject-key", Refused(&[ENOTTY]), &[]),
    ("lock-by-priority", Done, &[]),
    ("read-entropy", Done, &[("events", Done)]),
    ("write-console", Done, &[("events", Done)]),
    ("send-elsewhere", Refused(&[EISCONN, EINVAL]), &[]),
    ("pass-file", Done, &[]),
    ("receive", Refused(&[EAGAIN]), &[]),
    ("wait-for-files", Done, &[]),
    ("sleep", Done, &[]),
    (
        "segfault",
        Killed(11),
        &[("main", Want::Killed(0)), ("events", Want::Killed(0)), ("vcpu", Want::Killed(0))],
    ),
];

#[test]
fn forbidden_deeds_fail_in_every_thread() {
    if !kvm() {
        return;
    }
    let mut wrong = Vec::new();
    for (deed, entered, sealed) in DEEDS {
        let steps = ["main", "events", "vcpu"].map(|role| {
            let exception = sealed.iter().find(|(name, _)| *name == role);
            (role, exception.map_or(KILLED, |(_, want)| *want))
        });
        for (step, want) in [("entered", *entered)].into_iter().chain(steps) {
            let outcome = Prisoner::start(&[step, deed], Stdio::null()).outcome();
            let right = match want {
                Done => outcome == Ok(0),
                Refused(errors) => outcome.is_ok_and(|code| errors.iter().any(|errno| code == 100 + errno)),
                // By whatever comes first.
                Killed(0) => outcome.is_err_and(|status| status.signal().is_some()),
                Killed(signal) => outcome.is_err_and(|status| status.signal() == Some(signal)),
            };
            if !right {
                wrong.push(format!("{step} {deed}: {outcome:?}, wanted {want:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_jailed_guest_ends_with_its_code() {
    check(&Guest::new(Code::new().power_off(42)), &[], 42);
}

#[test]
fn a_jailed_machine_of_several_vcpus_ends_as_one() {
    check(&Guest::new(Code::new().power_off(42)), &["5"], 42);
}

#[test]
fn jailed_machines_of_every_size_run() {
    for vcpus in ["1", "2", "31", "32"] {
        check(&Guest::new(Code::new().power_off(42)), &[vcpus], 42);
    }
    // Below and above the gap for devices below 4 GiB, and across it.
    for ram_mib in ["64", "3071", "4096", "262144"] {
        check_sized(&Guest::new(Code::new().power_off(42)), ram_mib);
    }
}

#[test]
fn a_jailed_guest_reads_and_writes_its_disk() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    std::fs::write(&disk, [[0_u8; 512], [0x5a; 512]].concat()).unwrap();
    let code = virtio(0, RINGS)
        .ring(0)
        .expect(USED_INDEX, 2 << 16)
        .expect(BUFFER + 0x200, 0x5a5a_5a5a)
        .expect(BUFFER + 0x600, 0)
        .power_off(42);
    let mut guest = Guest::new(code);
    // Reads sector 1, writes what it has read to sector 0.
    for (request, (kind, sector)) in [(BUFFER, (0_u64, 1_u64)), (BUFFER + 0x100, (1, 0))] {
        guest.data(request, &[kind.to_le_bytes(), sector.to_le_bytes()].concat());
    }
    guest.data(BUFFER + 0x600, &[0xff; 2]);
    guest.descriptor(RINGS, 0, (BUFFER, 16, NEXT, 1));
    guest.descriptor(RINGS, 1, (BUFFER + 0x200, 512, NEXT | WRITE, 2));
    guest.descriptor(RINGS, 2, (BUFFER + 0x600, 1, WRITE, 0));
    guest.descriptor(RINGS, 3, (BUFFER + 0x100, 16, NEXT, 4));
    guest.descriptor(RINGS, 4, (BUFFER + 0x200, 512, NEXT, 5));
    guest.descriptor(RINGS, 5, (BUFFER + 0x601, 1, WRITE, 0));
    guest.available(RINGS, &[0, 3]);
    check(&guest, &["1", disk.to_str().unwrap()], 42);
    assert_eq!(std::fs::read(&disk).unwrap(), [0x5a; 1024]);
}

#[test]
fn a_jailed_guest_speaks_and_its_last_words_arrive() {
    let code = virtio(1, RINGS).store(super::NOTIFY, 1).power_off(42);
    let mut guest = Guest::new(code);
    let packets = [packet(1, b""), packet(5, b"goodbye")];
    for (index, packet) in (0_u16..).zip(&packets) {
        let at = BUFFER + u32::from(index) * 0x100;
        guest.data(at, packet);
        guest.descriptor(RINGS, index, (at, u32::try_from(packet.len()).unwrap(), 0, 0));
    }
    guest.available(RINGS, &[0, 1]);
    assert_eq!(check(&guest, &[], 42), "goodbye");
}

#[test]
fn a_jailed_guest_writes_to_its_console() {
    if !kvm() {
        return;
    }
    let code = Code::new().expect_port(0x3fd, 0x60).out(0x3f8, b'h').out(0x3f8, b'i').power_off(42);
    let (kernel, words) = kernel(&Guest::new(code), &[]);
    let mut prisoner = Prisoner::start(&words, Stdio::piped());
    let mut text = String::new();
    prisoner.child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(prisoner.ended().code(), Some(42));
    // What devices have to say comes behind it.
    assert!(text.starts_with("hi"), "{text}");
    drop(kernel);
}

/// Runs a guest in a jail; returns what it said.
#[track_caller]
fn check(guest: &Guest, more: &[&str], want: i32) -> String {
    if !kvm() {
        return "goodbye".to_owned();
    }
    let (kernel, words) = kernel(guest, more);
    let mut prisoner = Prisoner::start(&words, Stdio::null());
    let mut heard = String::new();
    prisoner.socket.read_to_string(&mut heard).unwrap();
    let status = prisoner.ended();
    assert_eq!(status.code(), Some(want), "{status}");
    drop(kernel);
    heard
}

/// Runs a guest with so much RAM.
#[track_caller]
fn check_sized(guest: &Guest, ram_mib: &str) {
    if !kvm() {
        return;
    }
    let (kernel, words) = kernel(guest, &[]);
    let status = Prisoner::start_with(&words, Stdio::null(), &[("RAM_MIB", ram_mib)]).ended();
    assert_eq!(status.code(), Some(42), "{ram_mib} MiB: {status}");
    drop(kernel);
}

fn kernel(guest: &Guest, more: &[&str]) -> (tempfile::NamedTempFile, Vec<String>) {
    let mut kernel = tempfile::NamedTempFile::new().unwrap();
    let mut file = guest.file();
    file.rewind().unwrap();
    std::io::copy(&mut file, &mut kernel).unwrap();
    let path = kernel.path().to_str().unwrap().to_owned();
    let words = ["guest".to_owned(), path].into_iter().chain(more.iter().map(|word| (*word).to_owned()));
    let words = words.collect();
    (kernel, words)
}

/// A process in the jail, which goes with its owner.
struct Prisoner {
    child: Child,
    socket: UnixStream,
}

/// A pid namespace is made for the next child of a thread; nobody else shall be born meanwhile.
static BIRTH: Mutex<()> = Mutex::new(());

impl Prisoner {
    fn start(words: &[impl AsRef<str>], stdout: Stdio) -> Self {
        Self::start_with(words, stdout, &[])
    }

    fn start_with(words: &[impl AsRef<str>], stdout: Stdio, variables: &[(&str, &str)]) -> Self {
        let (socket, theirs) = UnixStream::pair().unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut command = Command::new(example("captive"));
        // Without root nobody may choose.
        let root = rustix::process::geteuid().is_root();
        command.arg(if root { "1895000000" } else { "0" }).args(words.iter().map(AsRef::as_ref));
        command.env("GLIBC_TUNABLES", "glibc.malloc.arena_max=1").envs(variables.iter().copied());
        command.stdin(OwnedFd::from(theirs)).stdout(stdout).stderr(Stdio::null());
        let guard = BIRTH.lock().unwrap();
        let child = hull_jail::spawn_alone(&mut command).unwrap();
        drop(guard);
        Self { child, socket }
    }

    /// The code that it reports, or how it was ended instead.
    fn outcome(mut self) -> Result<i32, ExitStatus> {
        let mut byte = [0];
        match self.socket.read(&mut byte).unwrap() {
            0 => Err(self.child.wait().unwrap()),
            _ => Ok(byte[0].into()),
        }
    }

    fn ended(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Prisoner {
    fn drop(&mut self) {
        let _ = self.child.kill(); // It may have ended long ago.
        let _ = self.child.wait();
    }
}

/// An example of this crate, which Cargo builds beside its tests.
fn example(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let folder: &Path = tests.parent().unwrap().parent().unwrap();
    folder.join("examples").join(name)
}

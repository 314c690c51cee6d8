//! What a process in the jail can do, and what it looks like from outside.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

const SIGSYS: i32 = 31;
const SIGXFSZ: i32 = 25;

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
const EAGAIN: i32 = 11;
const ENOMEM: i32 = 12;
const EACCES: i32 = 13;
const EINVAL: i32 = 22;
const EMFILE: i32 = 24;
const EROFS: i32 = 30;
const ENOSYS: i32 = 38;

const KILLED: Want = Killed(SIGSYS);

/// Each deed, what becomes of it while all system calls are still there, and what in the end.
const DEEDS: &[(&str, Want, Want)] = &[
    ("nothing", Done, Done),
    ("memory", Done, Done),
    ("too-much-memory", Refused(&[ENOMEM]), Refused(&[ENOMEM])),
    ("executable-memory", Done, KILLED),
    ("make-executable", Done, KILLED),
    ("map-file", Done, KILLED),
    ("read-root", Refused(&[EACCES, EMFILE]), KILLED),
    ("open-file", Refused(&[EACCES, ENOENT, EMFILE]), KILLED),
    ("open-up", Refused(&[EACCES, ENOENT, EMFILE]), KILLED),
    ("open-proc", Refused(&[EACCES, ENOENT, EMFILE]), KILLED),
    ("create", Refused(&[EACCES, EROFS, EMFILE]), KILLED),
    ("make-directory", Refused(&[EACCES, EROFS]), KILLED),
    ("socket-inet", Refused(&[EMFILE]), KILLED),
    ("socket-unix-abstract", Refused(&[EMFILE]), KILLED),
    ("socket-netlink", Refused(&[EMFILE]), KILLED),
    ("socket-packet", Refused(&[EPERM]), KILLED),
    ("fork", Done, KILLED),
    ("clone-newuser", Done, KILLED),
    ("thread", Done, KILLED),
    ("exec", Refused(&[EMFILE, ENOENT, EACCES]), KILLED),
    ("execveat-self", Refused(&[EACCES]), KILLED),
    ("ptrace-parent", Refused(&[EPERM]), KILLED),
    ("read-parent", Refused(&[EPERM]), KILLED),
    ("kill-parent", Refused(&[EPERM]), KILLED),
    ("pidfd-parent", Refused(&[EMFILE]), KILLED),
    ("renice-parent", Refused(&[EPERM]), KILLED),
    ("limit-parent", Refused(&[EPERM]), KILLED),
    ("mount", Refused(&[EPERM]), KILLED),
    ("umount", Refused(&[EPERM]), KILLED),
    ("remount-writable", Refused(&[EPERM]), KILLED),
    ("chroot", Refused(&[EPERM, EACCES]), KILLED),
    ("mknod", Refused(&[EPERM, EACCES, EROFS]), KILLED),
    ("setuid", Refused(&[EPERM]), KILLED),
    ("setgid", Refused(&[EPERM]), KILLED),
    ("setgroups", Refused(&[EPERM]), KILLED),
    ("capset", Refused(&[EPERM]), KILLED),
    ("more-files", Refused(&[EPERM]), KILLED),
    ("duplicate", Refused(&[EMFILE]), KILLED),
    ("pipe", Refused(&[EMFILE]), KILLED),
    ("bpf", Refused(&[EPERM, EINVAL]), KILLED),
    ("io-uring", Refused(&[EMFILE, EPERM, ENOSYS, ENOMEM]), KILLED),
    ("userfaultfd", Refused(&[EMFILE, EPERM, ENOSYS]), KILLED),
    ("perf", Refused(&[EACCES, EPERM, EMFILE, EINVAL, ENOSYS]), KILLED),
    ("module", Refused(&[EPERM, ENOSYS]), KILLED),
    ("reboot", Refused(&[EPERM]), KILLED),
    ("syslog", Refused(&[EPERM]), KILLED),
    ("set-time", Refused(&[EPERM]), KILLED),
    ("host-name", Refused(&[EPERM]), KILLED),
    ("set-namespace", Refused(&[EINVAL, EPERM]), KILLED),
    ("handle", Refused(&[EPERM, EINVAL]), KILLED),
    ("chmod-output", Refused(&[EPERM]), KILLED),
    ("chown-output", Refused(&[EPERM]), KILLED),
    ("write-output", Done, Done),
    ("write-far-output", Killed(SIGXFSZ), Killed(SIGXFSZ)),
    ("grow-output", Killed(SIGXFSZ), Killed(SIGXFSZ)),
    ("write-other", Refused(&[29]), KILLED),
    ("allocate-output", Done, KILLED),
    ("send-elsewhere", Refused(&[106, EINVAL]), KILLED),
    ("receive", Refused(&[EAGAIN]), KILLED),
    ("foreign-machine", Refused(&[ENOSYS]), KILLED),
    ("keyctl", Done, KILLED),
    // The standard library looks into it first, by a call that is not on the list.
    ("segfault", Killed(11), KILLED),
];

#[test]
fn forbidden_deeds_fail_twice() {
    let mut wrong = Vec::new();
    for (deed, entered, sealed) in DEEDS {
        for (step, want) in [("entered", entered), ("sealed", sealed)] {
            let status = Prisoner::start(step, deed).ended();
            let right = match want {
                Done => status.success(),
                Refused(errors) => errors.iter().any(|errno| status.code() == Some(100 + errno)),
                Killed(signal) => status.signal() == Some(*signal),
            };
            if !right {
                wrong.push(format!("{step} {deed}: {status}, wanted {want:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A process in the jail, which goes with its owner.
struct Prisoner {
    child: Child,
    _socket: UnixStream,
}

impl Prisoner {
    fn start(step: &str, deed: &str) -> Self {
        let mut command = Command::new(example("prisoner"));
        command.args([step, deed]);
        Self::start_as(command)
    }

    fn start_as(mut command: Command) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let output = tempfile::tempfile().unwrap();
        command.stdin(OwnedFd::from(theirs)).stdout(output).stderr(Stdio::null());
        Self { child: command.spawn().unwrap(), _socket: ours }
    }

    fn ended(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// Waits until the last wall stands.
    fn sealed(&self) -> PathBuf {
        let process = Path::new("/proc").join(self.child.id().to_string());
        let deadline = Instant::now() + Duration::from_secs(20);
        while field(&process, "Seccomp").as_deref() != Some("2") {
            assert!(Instant::now() < deadline, "the process seals its jail");
            std::thread::yield_now();
        }
        process
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
    tests.parent().unwrap().parent().unwrap().join("examples").join(name)
}

fn field(process: &Path, name: &str) -> Option<String> {
    let status = fs::read_to_string(process.join("status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    Some(line?.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn links(folder: &Path) -> BTreeMap<String, String> {
    let link = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry.unwrap();
        let target = fs::read_link(entry.path()).unwrap().to_string_lossy().into_owned();
        (entry.file_name().to_string_lossy().into_owned(), target)
    };
    fs::read_dir(folder).unwrap().map(link).collect()
}

/// The table of `docs/threat-model.md`, line by line.
#[test]
fn the_jail_is_what_the_threat_model_says() {
    let prisoner = Prisoner::start("sealed", "wait");
    let process = prisoner.sealed();
    let pid = prisoner.child.id();
    // Descriptors.
    let files = links(&process.join("fd"));
    assert_eq!(files.keys().collect::<Vec<_>>(), ["0", "1"], "{files:?}");
    assert!(files["0"].starts_with("socket:") && files["1"].contains("(deleted)"), "{files:?}");
    // Ids.
    let id = (0x7000_0000 + pid % (1 << 22)).to_string();
    let ids = Some([&*id; 4].join(" "));
    assert_eq!((field(&process, "Uid"), field(&process, "Gid")), (ids.clone(), ids));
    assert_eq!(field(&process, "Groups").as_deref(), Some(""));
    // Namespaces: own ones but for those that the process cannot leave, or that are about children.
    let (ours, theirs) = (links(Path::new("/proc/self/ns")), links(&process.join("ns")));
    let shared: Vec<_> =
        ours.iter().filter(|(name, id)| theirs[*name] == **id).map(|(name, _)| &**name).collect();
    assert_eq!(shared, ["pid", "pid_for_children", "time", "time_for_children", "user"]);
    // Capabilities, and the way to more of them.
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(&process, set).as_deref(), Some("0000000000000000"), "{set}");
    }
    assert_eq!(field(&process, "NoNewPrivs").as_deref(), Some("1"));
    // Mounts: one, and nothing in it.
    let mounts = fs::read_to_string(process.join("mountinfo")).unwrap();
    assert_eq!(mounts.lines().count(), 1, "{mounts}");
    assert!(mounts.contains(" / / ro,nosuid,nodev,noexec") && mounts.contains(" tmpfs "), "{mounts}");
    assert_eq!(fs::read_dir(process.join("root")).unwrap().count(), 0);
    assert_eq!(fs::read_link(process.join("cwd")).unwrap(), Path::new("/"));
    // System calls.
    assert_eq!(field(&process, "Seccomp").as_deref(), Some("2"));
    assert_eq!(field(&process, "Seccomp_filters").as_deref(), Some("1"));
    // Limits.
    let limits = fs::read_to_string(process.join("limits")).unwrap();
    let limit = |name: &str| {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
        line[name.len()..].split_whitespace().take(2).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(limit("Max open files"), "2 2");
    assert_eq!(limit("Max processes"), "0 0");
    assert_eq!(limit("Max core file size"), "0 0");
    assert_eq!(limit("Max locked memory"), "0 0");
    assert_eq!(limit("Max file size"), format!("{0} {0}", 96_u64 << 30));
    assert_ne!(limit("Max data size").split(' ').next(), Some("unlimited"));
    assert_ne!(limit("Max cpu time").split(' ').next(), Some("unlimited"));
}

/// Without root, in a user namespace where the kernel gives one: everything but ids of its own.
#[test]
fn an_unprivileged_user_is_jailed_too() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("prisoner");
    // By a process of its own: a child that another test forks now must not inherit a file that is still written,
    // or the copy would be busy.
    let copied = Command::new("cp").arg(example("prisoner")).arg(&program).status().unwrap();
    assert!(copied.success());
    std::os::unix::fs::chown(folder.path(), Some(65_534), Some(65_534)).unwrap();
    let mut command = Command::new(program);
    command.args(["sealed", "wait"]).uid(65_534).gid(65_534);
    let prisoner = Prisoner::start_as(command);
    let process = prisoner.sealed();
    assert_eq!(field(&process, "Uid").as_deref(), Some("65534 65534 65534 65534"));
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(field(&process, set).as_deref(), Some("0000000000000000"), "{set}");
    }
    assert_eq!(field(&process, "NoNewPrivs").as_deref(), Some("1"));
    assert_eq!(links(&process.join("fd")).len(), 2);
    let unprivileged_namespaces =
        fs::read_to_string("/proc/sys/user/max_user_namespaces").unwrap().trim() != "0";
    if unprivileged_namespaces {
        assert_eq!(fs::read_to_string(process.join("mountinfo")).unwrap().lines().count(), 1);
        assert_eq!(fs::read_dir(process.join("root")).unwrap().count(), 0);
    }
}

#[test]
fn who_has_threads_is_not_let_in() {
    let status = Prisoner::start("threads", "nothing").ended();
    assert_eq!(status.code(), Some(3));
}

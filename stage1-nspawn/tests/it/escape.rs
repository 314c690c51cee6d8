//! What a pod must not reach.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use hull_pod::Flavour;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use crate::rig::{FLAVOURS, Rig, stdout};

/// Runs a script whose output must be `want`.
#[track_caller]
fn check(flavours: &[Flavour], script: &str, want: &str) {
    for flavour in flavours {
        let output = Rig::new(*flavour, &[script]).run();
        assert_eq!(stdout(&output), want, "{flavour:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn no_descriptor_of_the_host_leaks() {
    // A careless caller's.
    let careless = File::open("/").unwrap();
    fcntl(&careless, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    assert!(careless.as_raw_fd() > 2);
    check(&FLAVOURS, "exec ls /proc/self/fd", "0\n1\n2\n3\n");
    // Nor into the agent: streams, link, signals, and two for this app. It keeps the app's root, too.
    let rig = &mut Rig::new(Flavour::Nspawn, &["echo ready; exec sleep 1000"]);
    let _started = rig.start("ready");
    let fds = std::fs::read_dir(format!("/proc/{}/fd", rig.read("pid"))).unwrap();
    let of_a_path = |fd: &PathBuf| {
        let link = std::fs::read_link(fd).unwrap();
        link.starts_with("/") && !link.starts_with("/dev/")
    };
    let own = |fd: PathBuf| {
        (std::fs::read_link(&fd).unwrap(), fd.join("bin/busybox").exists(), fd.join("apps").exists())
    };
    let dirs: Vec<_> = fds.map(|fd| fd.unwrap().path()).filter(of_a_path).map(own).collect();
    assert!(dirs.iter().all(|dir| *dir == ("/".into(), true, false)) && dirs.len() <= 1, "{dirs:?}");
    let host = std::fs::metadata("/").unwrap();
    let fds = std::fs::read_dir(format!("/proc/{}/fd", rig.read("pid"))).unwrap();
    for fd in fds.filter_map(|fd| std::fs::metadata(fd.unwrap().path()).ok()) {
        assert_ne!((fd.dev(), fd.ino()), (host.dev(), host.ino()));
    }
}

#[test]
fn the_hosts_kernel_cannot_be_set() {
    let files = "/proc/sys/kernel/core_pattern /proc/sys/kernel/hostname /proc/sys/vm/drop_caches /proc/sysrq-trigger";
    let script = format!("for f in {files}; do (echo x > $f) 2>/dev/null && echo wrote $f; done; echo done");
    check(&FLAVOURS, &script, "done\n");
}

#[test]
fn the_agents_world_is_out_of_reach_and_small() {
    check(&[Flavour::Nspawn], "ls /proc/1/root/ 2>/dev/null || echo denied", "denied\n");
    let rig = &mut Rig::new(Flavour::Nspawn, &["echo ready; exec sleep 1000"]);
    let _started = rig.start("ready");
    let root = std::fs::read_dir(format!("/proc/{}/root", rig.read("pid"))).unwrap();
    let mut names: Vec<_> = root.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["apps", "dev", "hull-agent", "images", "proc", "shm", "sys", "volumes"]);
    let mounts = std::fs::read_to_string(format!("/proc/{}/mountinfo", rig.read("pid"))).unwrap();
    assert!(!mounts.contains(rig.data.path().to_str().unwrap()), "{mounts}");
}

#[test]
fn the_agents_program_cannot_be_written() {
    // Whoever gets at it through procfs finds a read-only mount.
    let rig = &mut Rig::new(Flavour::Nspawn, &["echo ready; exec sleep 1000"]);
    let _started = rig.start("ready");
    let program = format!("/proc/{}/root/hull-agent", rig.read("pid"));
    // Writing is refused while it runs anyway; changing its mode is not.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    let why = std::fs::set_permissions(program, mode).unwrap_err();
    assert_eq!(why.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
}

#[test]
fn an_nspawn_pod_has_namespaces_of_its_own() {
    let own = |name: &str| std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
    for name in ["cgroup", "ipc", "mnt", "net", "pid", "uts"] {
        let script = format!("readlink /proc/self/ns/{name}");
        let theirs = |flavour| stdout(&Rig::new(flavour, &[&script]).run()).trim().to_owned();
        assert_ne!(theirs(Flavour::Nspawn), own(name).to_str().unwrap(), "{name}");
        // A chroot shares all but what hides the host's files.
        let shared = theirs(Flavour::Fly) == own(name).to_str().unwrap();
        assert_eq!(shared, !matches!(name, "mnt" | "cgroup"), "{name}");
    }
    check(&[Flavour::Nspawn], "cat /proc/net/dev | grep -c :", "1\n");
}

#[test]
fn only_the_pods_processes_are_seen() {
    // The agent and the shell.
    let script = "n=0; for d in /proc/[0-9]*; do n=$((n+1)); done; echo $n; cat /proc/1/comm";
    check(&[Flavour::Nspawn], script, "2\nhull-agent\n");
}

//! The processes that serve the host's files to VMs: what they have of the world, and their end.

mod kvm {
    use std::fs;
    use std::path::{Path, PathBuf};

    use hull_tests::hull::{Started, until};
    use hull_tests::{Flavour, Hull, Image};
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    /// A pod with `dir` at `/data`, which has said `ready`.
    fn start(hull: &Hull, dir: &Path, script: &str) -> Started {
        let volume = format!("--volume=v,kind=host,source={}", dir.display());
        let image = Image::standard().reference();
        let script = format!("echo ready; {script}");
        let words = ["--mount=volume=v,target=/data", &image, "--", "/bin/sh", "-c", &script];
        let mut command = hull.command(["run", Flavour::Kvm.option(), &volume]);
        command.args(words);
        let mut pod = hull.spawn_command(command);
        pod.await_output("ready\n");
        pod
    }

    /// The pod's server, by its process.
    fn server(pod: &Started) -> Pid {
        let children = format!("/proc/{0}/task/{0}/children", pod.pid());
        let children = fs::read_to_string(children).expect("the pod runs");
        let is_server = |pid: &&str| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            name.trim() == "hull-virtiofs"
        };
        let found = children.split_whitespace().find(is_server).expect("a server of the volume");
        Pid::from_raw(found.parse().expect("a process id"))
    }

    #[test]
    fn a_file_server_has_its_volume_and_nothing_else() {
        let hull = Hull::new();
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("only"), "").unwrap();
        let pod = start(&hull, dir.path(), "exec sleep 1000");
        let server = server(&pod);
        let of = |name: &str| PathBuf::from(format!("/proc/{server}/{name}"));
        let status = fs::read_to_string(of("status")).unwrap();
        let value = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(":\t"));
            line.unwrap_or_else(|| panic!("{key} in {status}")).to_owned()
        };
        // CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SETGID, SETUID, MKNOD, SETFCAP, by their numbers in capabilities(7).
        let few = [0, 1, 3, 4, 6, 7, 27, 31].iter().fold(0_u64, |set, bit| set | 1 << bit);
        for (set, want) in [("CapInh", 0), ("CapPrm", few), ("CapEff", few), ("CapBnd", few), ("CapAmb", 0)] {
            assert_eq!(value(set), format!("{want:016x}"), "{set}");
        }
        assert_eq!((value("NoNewPrivs").as_str(), value("Seccomp").as_str()), ("1", "2"));
        for thread in fs::read_dir(of("task")).unwrap() {
            let status = fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
            assert!(status.contains("Seccomp:\t2"), "{status}");
        }
        for namespace in ["mnt", "net", "ipc", "uts", "cgroup"] {
            let own = fs::read_link(format!("/proc/self/ns/{namespace}")).unwrap();
            assert_ne!(fs::read_link(of("ns").join(namespace)).unwrap(), own, "{namespace}");
        }
        let root: Vec<_> =
            fs::read_dir(of("root")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(root, ["only"]);
        let mounts = fs::read_to_string(of("mountinfo")).unwrap();
        assert_eq!(mounts.lines().count(), 1, "{mounts}");
        for fd in fs::read_dir(of("fd")).unwrap() {
            let target = fs::read_link(fd.unwrap().path()).unwrap().display().to_string();
            let known = ["socket:", "pipe:", "anon_inode:", "/memfd:hull-ram", "/dev/null"];
            let own = target == "/" || target.starts_with("/only") || target.ends_with("/fd");
            assert!(own || known.iter().any(|start| target.starts_with(start)), "{target}");
        }
        drop(pod);
    }

    #[test]
    fn the_end_of_a_file_server_is_the_pods() {
        let hull = Hull::new();
        let dir = tempfile::tempdir().unwrap();
        let pod = start(&hull, dir.path(), "while :; do echo x > /data/file; done");
        kill(server(&pod), Signal::SIGKILL).unwrap();
        let ended = pod.wait();
        assert_eq!(ended.code, 254, "{}", ended.stderr());
        assert!(ended.stderr().contains("file server"), "{}", ended.stderr());
    }

    #[test]
    fn file_servers_end_with_their_pod() {
        let hull = Hull::new();
        let dir = tempfile::tempdir().unwrap();
        let pod = start(&hull, dir.path(), "exec sleep 1000");
        let server = server(&pod);
        pod.signal(Signal::SIGKILL);
        until("the server has ended", || kill(server, None).is_err());
        drop(pod);
    }
}

//! The VMM of a running pod, seen from the host.

mod kvm {
    use std::collections::{BTreeMap, BTreeSet};
    use std::fs;
    use std::path::{Path, PathBuf};

    use hull_tests::hull::{Started, until};
    use hull_tests::{Flavour, Hull, traces};
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    const PAGE: &str = include_str!("../../docs/threat-model.md");
    const HEADING: &str = "## The jail of the VMM";

    /// What the page says of one thing: the words of the first backquotes of its row, and the others.
    fn page(of: &str) -> (Vec<String>, Vec<String>) {
        let table = PAGE.split_once(HEADING).expect("the page has the section").1;
        let row = format!("| {of} | ");
        let row = table.lines().find_map(|line| line.strip_prefix(&row)).expect(of);
        let mut quoted = row.split('`').skip(1).step_by(2);
        let first = quoted.next().expect("something in backquotes").split_whitespace();
        (first.map(str::to_owned).collect(), quoted.map(str::to_owned).collect())
    }

    /// A pod of one app that runs until it is ended.
    fn pod(hull: &Hull) -> (Started, String) {
        let mut pod = hull.start(Flavour::Kvm, "echo ready; exec sleep 1000");
        pod.await_output("ready\n");
        let id = hull.pods().remove(0);
        (pod, id)
    }

    fn vmm(hull: &Hull, id: &str) -> Pid {
        let text = fs::read_to_string(hull.dir().join("pods/run").join(id).join("pid")).expect("a pid");
        Pid::from_raw(text.trim().parse().expect("a number"))
    }

    fn process(pid: Pid) -> PathBuf {
        Path::new("/proc").join(pid.to_string())
    }

    fn field(process: &Path, name: &str) -> String {
        let status = fs::read_to_string(process.join("status")).expect("the process lives");
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.expect(name).split_whitespace().collect::<Vec<_>>().join(" ")
    }

    fn links(folder: &Path) -> BTreeMap<String, String> {
        let entries = fs::read_dir(folder).expect("a folder of /proc").flatten();
        entries
            .map(|entry| {
                let target = fs::read_link(entry.path()).unwrap_or_default();
                (entry.file_name().to_string_lossy().into_owned(), target.to_string_lossy().into_owned())
            })
            .collect()
    }

    /// `anon_inode:kvm-vcpu:0` is a `kvm-vcpu`, `socket:[77]` a `socket`, a file is called by its name.
    fn kind(link: &str) -> String {
        let link = link.strip_prefix("anon_inode:").unwrap_or(link);
        let name = link.rsplit('/').next().unwrap_or(link).trim_start_matches('[');
        let name = name.split([':', ']']).next().unwrap_or(name);
        if link.starts_with('/') && !link.starts_with("/dev/") { "image".into() } else { name.into() }
    }

    #[test]
    fn the_vmms_jail_is_what_the_threat_model_says() {
        let hull = Hull::new();
        let (pod, id) = pod(&hull);
        let vmm = vmm(&hull, &id);
        let vmm = process(vmm);
        let mut files: Vec<_> = links(&vmm.join("fd")).values().map(|link| kind(link)).collect();
        files.sort();
        assert_eq!(files, page("descriptors").0, "{:?}", links(&vmm.join("fd")));
        // Ids: one, not the caller's, for all four kinds.
        let uid = field(&vmm, "Uid");
        let ids: BTreeSet<u32> = uid.split(' ').map(|id| id.parse().unwrap()).collect();
        let (first, others) = page("ids");
        let (first, count) = (parse(&first[0]), parse(&others[0]));
        assert!(ids.len() == 1 && ids.iter().all(|id| (first..first + count).contains(id)), "{uid}");
        assert_eq!(field(&vmm, "Gid"), uid);
        assert_eq!(field(&vmm, "Groups"), "");
        let (ours, theirs) = (links(Path::new("/proc/self/ns")), links(&vmm.join("ns")));
        let own: Vec<_> =
            theirs.iter().filter(|(name, id)| ours[*name] != **id).map(|(name, _)| name).collect();
        assert_eq!(own, page("namespaces").0.iter().collect::<Vec<_>>());
        assert!(field(&vmm, "NSpid").ends_with(" 1"), "{}", field(&vmm, "NSpid"));
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(field(&vmm, set), "0000000000000000", "{set}");
        }
        assert_eq!(field(&vmm, "NoNewPrivs"), "1");
        let mounts = fs::read_to_string(vmm.join("mountinfo")).unwrap();
        assert_eq!(mounts.lines().count(), 1, "{mounts}");
        assert!(mounts.contains(" / / ro,nosuid,nodev,noexec") && mounts.contains(" tmpfs "), "{mounts}");
        assert_eq!(fs::read_dir(vmm.join("root")).unwrap().count(), 0);
        let net = fs::read_to_string(vmm.join("net/dev")).unwrap();
        assert_eq!(net.lines().count(), 3, "a loopback device below two lines of heading: {net}");
        // Not dumpable: its files belong to root.
        assert_eq!(std::os::unix::fs::MetadataExt::uid(&fs::metadata(vmm.join("mem")).unwrap()), 0);
        let mut threads = Vec::new();
        for thread in fs::read_dir(vmm.join("task")).unwrap().flatten() {
            let name = fs::read_to_string(thread.path().join("comm")).unwrap();
            // KVM's own, where it has one here: it runs nothing of the process's.
            if name.starts_with("kvm-nx-lpage-re") {
                continue;
            }
            threads.push(name.trim().to_owned());
            assert_eq!(field(&thread.path(), "Seccomp"), "2", "{name}");
            assert_eq!(field(&thread.path(), "Seccomp_filters"), "1", "{name}");
        }
        threads.sort();
        assert_eq!(threads, page("threads").0);
        let limits = fs::read_to_string(vmm.join("limits")).unwrap();
        for name in ["Max open files", "Max processes", "Max core file size"] {
            let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
            assert_eq!(
                line[name.len()..].split_whitespace().take(2).collect::<Vec<_>>(),
                ["0", "0"],
                "{name}"
            );
        }
        // Its command line names the pod, its environment nothing of the caller's.
        let command = fs::read_to_string(vmm.join("cmdline")).unwrap();
        assert!(command.starts_with("hull-vmm\0") && command.contains(&id), "{command:?}");
        let environment = fs::read_to_string(vmm.join("environ")).unwrap();
        assert_eq!(environment.matches('\0').count(), 1, "{environment:?}");
        drop(pod);
    }

    fn parse(number: &str) -> u32 {
        match number.strip_prefix("0x") {
            Some(digits) => u32::from_str_radix(digits, 16).expect("digits"),
            None => number.parse().expect("digits"),
        }
    }

    #[test]
    fn the_machine_is_limited_and_charged_in_the_pods_cgroup() {
        let hull = Hull::new();
        let (pod, id) = pod(&hull);
        let vmm = vmm(&hull, &id);
        let text = fs::read_to_string(hull.dir().join("pods/run").join(&id).join("subcgroup")).unwrap();
        let cgroup = Path::new(&text);
        let value = |name: &str| fs::read_to_string(cgroup.join(name)).unwrap().trim().to_owned();
        assert_eq!(value("cgroup.procs"), vmm.to_string());
        assert_eq!(value("memory.max").parse::<u64>().unwrap(), (256 + 2 + 3) << 20);
        assert_eq!(value("memory.oom.group"), "1");
        assert_eq!(value("cpu.max"), "100000 100000");
        assert_eq!(value("pids.max"), "17");
        assert_eq!(
            value("memory.events").lines().find(|line| line.starts_with("oom_kill ")),
            Some("oom_kill 0")
        );
        pod.signal(Signal::SIGTERM);
        assert_eq!(pod.wait().code, 128 + 15);
        assert!(!cgroup.exists());
    }

    #[test]
    fn a_vmm_that_is_killed_ends_its_pod_with_the_reason() {
        let hull = Hull::new();
        let (pod, id) = pod(&hull);
        kill(vmm(&hull, &id), Signal::SIGKILL).unwrap();
        pod.wait().failure(&["killed by signal 9"]);
        let status = hull.hull(&["status", &id]).success();
        assert!(status.contains("state=exited") && status.contains("killed by signal 9"), "{status}");
        until("nothing of the pod is left", || traces::of(hull.dir(), &id) == BTreeSet::new());
    }

    /// As soon as it is known: no two are hit at the same step.
    #[test]
    fn a_vmm_that_is_killed_while_it_boots_ends_its_pod() {
        let hull = Hull::new();
        hull.shell(Flavour::Kvm, "true").success();
        hull.collect().success();
        for _ in 0..4 {
            let pod = hull.start(Flavour::Kvm, "exec sleep 1000");
            let run = hull.dir().join("pods/run");
            let pid = || {
                let pod = fs::read_dir(&run).ok()?.flatten().next()?.path();
                fs::read_to_string(pod.join("pid")).ok()?.trim().parse().ok()
            };
            until("the VMM is there", || pid().is_some());
            kill(Pid::from_raw(pid().unwrap()), Signal::SIGKILL).unwrap();
            pod.wait().failure(&["virtual machine"]);
            let id = hull.pods().remove(0);
            until("nothing of the pod is left", || traces::of(hull.dir(), &id) == BTreeSet::new());
            hull.collect().success();
        }
    }

    #[test]
    fn a_vmm_dies_with_its_supervisor() {
        let hull = Hull::new();
        let (pod, id) = pod(&hull);
        let vmm = process(vmm(&hull, &id));
        pod.signal(Signal::SIGKILL);
        assert_eq!(pod.wait().code, -9);
        let state = || fs::read_to_string(vmm.join("stat")).unwrap_or_default();
        until("the VMM has ended", || state().is_empty() || state().contains(") Z "));
    }

    #[test]
    fn live_pods_have_ids_of_their_own_from_the_range_that_the_settings_name() {
        let hull = Hull::new();
        let folder = hull.settings().join("ids.d");
        fs::create_dir_all(&folder).unwrap();
        let ids = |first: u32, count: u32| {
            let text =
                format!(r#"{{"hullKind": "ids", "hullVersion": "v1", "first": {first}, "count": {count}}}"#);
            fs::write(folder.join("ids.json"), text).unwrap();
        };
        ids(1_700_000_000, 1);
        let (pod, id) = pod(&hull);
        let uid = field(&process(vmm(&hull, &id)), "Uid");
        assert_eq!(uid, ["1700000000"; 4].join(" "));
        hull.shell(Flavour::Kvm, "true").failure(&["all are taken", "ids.d"]);
        // Given back by death.
        pod.signal(Signal::SIGKILL);
        assert_eq!(pod.wait().code, -9);
        hull.shell(Flavour::Kvm, "true").success();
        ids(0, 5);
        hull.shell(Flavour::Kvm, "true").failure(&["ids.json", "root"]);
    }
}

//! What only a VM can get wrong. The module's name keeps these tests where KVM is.

mod kvm {
    use std::fs;

    use hull_tests::hull::finish;
    use hull_tests::{Flavour, Hull, Image};

    fn run_with(hull: &Hull, option: &str) -> hull_tests::Ended {
        let reference = Image::standard().reference();
        hull.hull(&[
            "run",
            "--stage1=kvm",
            option,
            &reference,
            "--",
            "/bin/sh",
            "-c",
            "cat /proc/meminfo; ls /sys/devices/system/cpu",
        ])
    }

    #[test]
    fn a_kernel_that_is_no_kernel_is_refused() {
        let hull = Hull::new();
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            fs::write(&path, bytes).unwrap();
            format!("--kernel={}", path.display())
        };
        run_with(&hull, "--kernel=/nowhere/vmlinux").failure(&["/nowhere/vmlinux"]);
        run_with(&hull, &file("empty", b"")).failure(&["empty", "kernel"]);
        run_with(&hull, &file("text", b"this is no kernel at all, however long it may be"))
            .failure(&["text", "ELF"]);
        let busybox = fs::read("/bin/busybox").unwrap();
        run_with(&hull, &file("program", &busybox)).failure(&["program", "kernel"]);
        run_with(&hull, &file("truncated", &busybox[..100])).failure(&["truncated"]);
    }

    #[test]
    fn the_machine_has_the_size_that_was_asked_for() {
        let hull = Hull::new();
        let total = |ended: hull_tests::Ended| -> u64 {
            let text = ended.success();
            text.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        let small = total(run_with(&hull, "--vm-memory=128"));
        let large = total(run_with(&hull, "--vm-memory=512"));
        assert!((90_000..131_072).contains(&small), "{small} KiB");
        assert!((470_000..524_288).contains(&large), "{large} KiB");
        let cpus = run_with(&hull, "--vm-cpus=3").success();
        assert!(cpus.contains("cpu2") && !cpus.contains("cpu3"), "{cpus}");
    }

    #[test]
    fn the_machine_is_as_large_as_its_apps() {
        let hull = Hull::new();
        let reference = Image::standard().reference();
        let run = |more: &[&str], script: &str| {
            let mut command = hull.command(["run", "--stage1=kvm"]);
            command.args(more).args([&reference, "--", "/bin/sh", "-c", script]);
            finish(command)
        };
        // What an app may use is there to be used, the smallest machine included.
        for (limit, mib) in [("8Mi", 6), ("24Mi", 20), ("200Mi", 180)] {
            let script = format!("dd if=/dev/zero of=/dev/null bs={mib}M count=1 && echo used");
            assert_eq!(run(&[&format!("--memory={limit}")], &script).success(), "used\n", "{limit}");
        }
        let cpus = run(&["--cpu=1500m"], "ls /sys/devices/system/cpu").success();
        let host = std::thread::available_parallelism().unwrap().get();
        assert_eq!(cpus.contains("cpu1"), host > 1, "{cpus}");
        run(&["--memory=200Gi"], "true").failure(&["MiB of memory", "this host has", "--vm-memory"]);
    }

    #[test]
    fn debug_shows_the_kernels_messages_and_nothing_else_does() {
        let hull = Hull::new();
        let quiet = hull.shell(Flavour::Kvm, "echo out; echo err >&2");
        assert_eq!((quiet.stdout().as_str(), quiet.stderr().as_str()), ("out\n", "err\n"));
        let reference = Image::standard().reference();
        let loud =
            finish(hull.command(["run", "--debug", "--stage1=kvm", &reference, "--", "/bin/echo", "out"]));
        assert!(loud.stderr().contains("Linux version"), "{}", loud.stderr());
        assert_eq!(loud.success(), "out\n");
    }
}

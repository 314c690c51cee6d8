//! What a pod does, whatever its machine.

use hull_tests::hull::{finish, finish_with_input, until};
use hull_tests::image::{Builder, hex};
use hull_tests::{Flavour, Hull, Image};
use nix::sys::signal::Signal;
use serde_json::json;

pub(crate) fn exit_codes_come_back(flavour: Flavour) {
    let hull = Hull::new();
    for code in [0, 1, 7, 255] {
        assert_eq!(hull.shell(flavour, &format!("exit {code}")).code, code);
    }
}

pub(crate) fn an_app_that_a_signal_kills_gives_128_and_the_signal(flavour: Flavour) {
    let hull = Hull::new();
    assert_eq!(hull.shell(flavour, "kill -9 $$").code, 128 + 9);
    assert_eq!(hull.status("app-busybox").as_deref(), Some("137"));
}

pub(crate) fn the_streams_are_complete_and_unmixed(flavour: Flavour) {
    let hull = Hull::new();
    let script = "n=0; while [ $n -lt 2000 ]; do echo out $n; echo err $n >&2; n=$((n+1)); done; exit 3";
    let ended = hull.shell(flavour, script);
    let lines = |word: &str| (0..2000).map(|n| format!("{word} {n}\n")).collect::<String>();
    assert_eq!(ended.code, 3);
    assert_eq!(ended.stdout(), lines("out"));
    assert_eq!(ended.stderr(), lines("err"));
}

pub(crate) fn what_goes_in_comes_out(flavour: Flavour) {
    let hull = Hull::new();
    // Several windows long, and every byte value.
    let input: Vec<u8> = (0..1_500_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let ended =
        finish_with_input(hull.run_command(flavour, &Image::standard(), &["/bin/cat"]), input.clone());
    assert_eq!((ended.code, ended.stdout.len()), (0, input.len()), "{}", ended.stderr());
    assert_eq!(hex(&ended.stdout), hex(&input));
}

pub(crate) fn the_image_decides_what_the_command_line_leaves_open(flavour: Flavour) {
    let hull = Hull::new();
    let image = Builder::standard()
        .config(json!({
            "Entrypoint": ["/bin/sh", "-c"],
            "Cmd": ["echo $GREETING $USER_SET from $PWD as $(id -u):$(id -g)"],
            "Env": ["GREETING=hello", "USER_SET=image"],
            "User": "app", "WorkingDir": "/home/new",
        }))
        .oci();
    let run = |more: &[&str]| {
        let mut args = vec!["run".to_owned(), flavour.option().into(), image.reference()];
        args.extend(more.iter().map(ToString::to_string));
        finish(hull.command(args)).success()
    };
    assert_eq!(run(&[]), "hello image from /home/new as 1000:1000\n");
    assert_eq!(run(&["--set-env=USER_SET=mine", "--user=0"]), "hello mine from /home/new as 0:0\n");
    assert_eq!(run(&["--working-dir=/tmp", "--", "pwd"]), "/tmp\n");
    assert_eq!(run(&["--exec=/bin/echo", "--", "a", "b c"]), "a b c\n");
}

pub(crate) fn the_user_and_the_groups_are_the_images(flavour: Flavour) {
    let hull = Hull::new();
    let run = |user: &[&str]| {
        let mut args = vec!["run", flavour.option()];
        args.extend(user);
        let reference = Image::standard().reference();
        args.extend([reference.as_str(), "--", "/bin/id"]);
        hull.hull(&args).success()
    };
    assert_eq!(run(&["--user=app"]), "uid=1000(app) gid=1000(app) groups=1000(app),2000(extra)\n");
    assert_eq!(run(&["--user=1000", "--group=extra"]).split(' ').nth(1), Some("gid=2000(extra)"));
    assert!(run(&["--user=4711", "--group=4712"]).starts_with("uid=4711 gid=4712"));
    assert!(run(&["--user=/bin/busybox"]).starts_with("uid=0(root) gid=0(root)"));
}

pub(crate) fn a_user_who_is_not_in_the_image_is_named(flavour: Flavour) {
    let hull = Hull::new();
    let reference = Image::standard().reference();
    let ended = hull.hull(&["run", flavour.option(), "--user=nobody-here", &reference, "--", "/bin/true"]);
    ended.failure(&["nobody-here", "/etc/passwd", "--user"]);
    let ended = hull.hull(&["run", flavour.option(), "--group=no-group", &reference, "--", "/bin/true"]);
    ended.failure(&["no-group", "/etc/group"]);
}

pub(crate) fn a_command_that_cannot_run_is_named(flavour: Flavour) {
    let hull = Hull::new();
    let run = |program: &str| finish(hull.run_command(flavour, &Image::standard(), &[program]));
    run("/bin/nope").failure(&["/bin/nope", "not in the image"]);
    run("nope").failure(&["nope", "not in the image"]);
    run("/etc/not-a-program").failure(&["/etc/not-a-program", "not executable"]);
    run("/etc").failure(&["/etc"]);
    run("/bin/no-interpreter").failure(&["/bin/no-interpreter", "/bin/nope"]);
    run("/bin/garbage").failure(&["/bin/garbage"]);
}

pub(crate) fn interrupted_apps_end_in_order(flavour: Flavour) {
    let hull = Hull::new();
    let mut pod =
        hull.start(flavour, "trap 'echo last words; exit 5' TERM; echo ready; while :; do sleep 1; done");
    pod.await_output("ready\n");
    pod.signal(Signal::SIGTERM);
    let ended = pod.wait();
    assert_eq!((ended.code, ended.stdout().as_str()), (5, "last words\n"), "{}", ended.stderr());
}

pub(crate) fn ctrl_c_reaches_the_app(flavour: Flavour) {
    let hull = Hull::new();
    let mut pod = hull.start(flavour, "echo ready; exec sleep 1000");
    pod.await_output("ready\n");
    pod.signal(Signal::SIGINT);
    assert_eq!(pod.wait().code, 128 + 2);
}

pub(crate) fn a_stubborn_app_dies_at_the_second_signal(flavour: Flavour) {
    let hull = Hull::new();
    let mut pod = hull.start(flavour, "trap 'echo no' TERM; echo ready; while :; do sleep 1000 & wait; done");
    pod.await_output("ready\n");
    pod.signal(Signal::SIGTERM);
    pod.await_output("no\n");
    pod.signal(Signal::SIGTERM);
    assert_eq!(pod.wait().code, 128 + 9);
}

pub(crate) fn other_signals_are_forwarded(flavour: Flavour) {
    let hull = Hull::new();
    let mut pod = hull.start(
        flavour,
        "trap 'echo one' USR1; trap 'echo hup; exit 0' HUP; echo ready; while :; do sleep 1000 & wait; done",
    );
    pod.await_output("ready\n");
    pod.signal(Signal::SIGUSR1);
    pod.await_output("one\n");
    pod.signal(Signal::SIGHUP);
    let ended = pod.wait();
    assert_eq!((ended.code, ended.stdout().as_str()), (0, "hup\n"));
}

pub(crate) fn a_background_child_does_not_hold_the_pod(flavour: Flavour) {
    let hull = Hull::new();
    let ended = hull.shell(flavour, "sleep 1000 & nohup sh -c 'sleep 1000' >&2 & echo done; exit 4");
    assert_eq!((ended.code, ended.stdout().as_str()), (4, "done\n"));
}

pub(crate) fn orphans_are_reaped(flavour: Flavour) {
    let hull = Hull::new();
    let script = "for n in 1 2 3 4 5; do (sh -c 'exit 1' &) ; done; \
                  until [ $(grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l) = 0 ]; do :; done; echo clean";
    // On the host's process table (fly) other programs have zombies of their own.
    if flavour != Flavour::Fly {
        assert_eq!(hull.shell(flavour, script).success(), "clean\n");
    }
}

pub(crate) fn a_reader_that_leaves_ends_the_writer(flavour: Flavour) {
    let hull = Hull::new();
    let mut pod = hull.start(flavour, "yes");
    pod.await_output("y\n");
    pod.close_output();
    let ended = pod.wait();
    assert_eq!(ended.code, 128 + 13, "{}", ended.stderr());
}

pub(crate) fn the_root_is_writable_and_forgotten(flavour: Flavour) {
    let hull = Hull::new();
    let script = "cat /home/x 2>/dev/null; echo mine > /home/x && cat /home/x && rm -f /bin/none; \
                  echo changed > /etc/group && touch /new && ls /new";
    assert_eq!(hull.shell(flavour, script).success(), "mine\n/new\n");
    assert_eq!(hull.shell(flavour, script).success(), "mine\n/new\n");
}

pub(crate) fn the_standard_file_systems_are_there(flavour: Flavour) {
    let hull = Hull::new();
    let script = "set -e; [ -r /proc/self/status ]; [ -d /sys/class ]; echo x > /dev/null; \
                  [ $(head -c 4 /dev/zero | wc -c) = 4 ]; [ $(head -c 8 /dev/urandom | wc -c) = 8 ]; \
                  touch /dev/shm/x; [ -c /dev/ptmx ]; [ -d /dev/mqueue ]; [ -L /dev/fd ]; cat /etc/hosts; hostname";
    let said = hull.shell(flavour, script).success();
    assert!(said.contains("127.0.0.1") && said.contains("localhost"), "{said}");
    if flavour != Flavour::Fly {
        assert!(said.lines().last().is_some_and(|name| name.starts_with("hull-")), "{said}");
    }
}

pub(crate) fn root_has_the_default_capabilities_only(flavour: Flavour) {
    let hull = Hull::new();
    let said = hull.shell(flavour, "grep -E 'Cap(Eff|Bnd|Prm|Inh|Amb)' /proc/self/status").success();
    // AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL NET_BIND_SERVICE NET_RAW SETFCAP SETGID SETPCAP
    // SETUID SYS_CHROOT, by their numbers in capabilities(7).
    let bits = [29, 0, 1, 3, 4, 5, 10, 13, 31, 6, 8, 7, 18].iter().fold(0u64, |set, bit| set | 1 << bit);
    // And MKNOD, where every device is the pod's own.
    let bits = if flavour == Flavour::Kvm { bits | 1 << 27 } else { bits };
    for line in said.lines() {
        let (name, value) = line.split_once(":\t").expect("proc_pid_status(5)");
        let want = if matches!(name, "CapInh" | "CapAmb") { 0 } else { bits };
        assert_eq!(u64::from_str_radix(value, 16), Ok(want), "{said}");
    }
    let reference = Image::standard().reference();
    let said = hull
        .hull(&[
            "run",
            flavour.option(),
            "--user=app",
            &reference,
            "--",
            "/bin/grep",
            "CapEff",
            "/proc/self/status",
        ])
        .success();
    assert_eq!(said, "CapEff:\t0000000000000000\n");
}

pub(crate) fn the_kernels_files_are_protected(flavour: Flavour) {
    let hull = Hull::new();
    let script = "for f in /proc/sysrq-trigger /proc/sys/kernel/core_pattern /proc/sys/vm/panic_on_oom; do \
                  (echo x > $f) 2>/dev/null && echo wrote $f; done; \
                  (echo 1 > /sys/kernel/profiling) 2>/dev/null && echo wrote sys; \
                  [ -s /proc/kcore ] && echo kcore; [ \"$(head -c 1 /proc/kallsyms)\" ] && echo kallsyms; \
                  mount -t tmpfs none /tmp 2>/dev/null && echo mounted; \
                  mknod /tmp/disk b 8 0 2>/dev/null && echo made a disk; \
                  head -c 1 /tmp/disk 2>/dev/null && echo read a disk; true";
    // A machine of its own has no disk to make but its own, and not that way.
    let made = if flavour == Flavour::Kvm { "made a disk\n" } else { "" };
    assert_eq!(hull.shell(flavour, script).success(), made);
}

pub(crate) fn chroot_does_not_lead_out(flavour: Flavour) {
    let hull = Hull::new();
    // The classic escape: leave a directory open across chroot, then climb.
    let script = "mkdir /tmp/jail; touch /i-am-the-root; \
                  chroot /tmp/../ /bin/sh -c 'cd ../../../../..; ls i-am-the-root; ls | grep -c hull-agent'";
    let ended = hull.shell(flavour, script);
    assert_eq!(ended.stdout(), "i-am-the-root\n0\n", "{}", ended.stderr());
}

pub(crate) fn no_descriptor_of_the_host_is_inherited(flavour: Flavour) {
    let hull = Hull::new();
    // 3 is the directory that ls reads.
    assert_eq!(hull.shell(flavour, "exec ls /proc/self/fd").success(), "0\n1\n2\n3\n");
}

pub(crate) fn the_pod_is_listed_while_it_runs_and_after(flavour: Flavour) {
    let hull = Hull::new();
    let mut pod = hull.start(flavour, "echo ready; exec sleep 1000");
    pod.await_output("ready\n");
    assert_eq!(hull.status("state").as_deref(), Some("running"));
    assert_eq!(hull.status("stage1").as_deref(), flavour.option().split('=').nth(1));
    assert_eq!(hull.status("exited").as_deref(), Some("false"));
    let id = hull.pods().remove(0);
    hull.hull(&["rm", &id]).failure(&["currently running"]);
    assert_eq!(hull.collect().success(), "");
    pod.signal(Signal::SIGTERM);
    assert_eq!(pod.wait().code, 128 + 15);
    assert_eq!(hull.status("state").as_deref(), Some("exited"));
    assert_eq!(hull.status("app-busybox").as_deref(), Some("143"));
    let json: serde_json::Value =
        serde_json::from_str(&hull.hull(&["list", "--format=json"]).success()).expect("list prints JSON");
    assert_eq!(json[0]["name"], id.as_str());
    assert_eq!(json[0]["apps"][0]["exit_code"], 143);
    assert_eq!(hull.hull(&["rm", &id[..8]]).success(), format!("\"{id}\"\n"));
    until("the pod is gone", || hull.pods().is_empty());
}

//! What "run this app" means, on every flavour.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use hull_agent_protocol::message::AgentFault;
use hull_agent_protocol::{AppSpec, ImageSource, Outcome, StandardStreams, ToAgent};

use crate::rig::{FLAVOURS, Flavour, Image, Rig, app, pod, shell, wait_until};

/// Runs one app everywhere; `want` is its standard output.
#[track_caller]
fn check(app: &AppSpec, want: &str) {
    let image = Image::new();
    for flavour in FLAVOURS {
        check_on(flavour, &image, app, want);
    }
}

#[track_caller]
fn check_on(flavour: Flavour, image: &Image, app: &AppSpec, want: &str) {
    let ran = Rig::start(flavour, image, pod(vec![app.clone()])).finish();
    assert_eq!(ran.failed, [], "{flavour:?}");
    assert_eq!(ran.text(2), want, "{flavour:?}; stderr: {}", ran.text(3));
    assert_eq!(ran.exited.get(&0), Some(&Outcome::Code(0)), "{flavour:?}; stderr: {}", ran.text(3));
    assert!(ran.finished, "{flavour:?}");
    assert_eq!(ran.code, Some(0), "{flavour:?}");
}

/// Tries to run one app everywhere; `want` is part of the reason why it cannot be.
#[track_caller]
fn check_fails(image: &Image, app: &AppSpec, want: &str) {
    for flavour in FLAVOURS {
        let ran = Rig::start(flavour, image, pod(vec![app.clone()])).finish();
        let [(Some(0), AgentFault::Pod, text)] = &ran.failed[..] else { panic!("{flavour:?}: {ran:?}") };
        assert!(text.contains(want), "{flavour:?}: {text}");
        assert!(ran.finished && ran.exited.is_empty(), "{flavour:?}: {ran:?}");
    }
}

#[test]
fn the_exit_is_the_programs() {
    let image = Image::new();
    let outcome = |script: &str, flavour| {
        let ran = Rig::start(flavour, &image, pod(vec![shell(script)])).finish();
        ran.exited[&0]
    };
    for flavour in FLAVOURS {
        assert_eq!(outcome("exit 0", flavour), Outcome::Code(0));
        assert_eq!(outcome("exit 255", flavour), Outcome::Code(255));
        assert_eq!(outcome("kill -9 $$", flavour), Outcome::Signal(9));
        assert_eq!(outcome("kill -34 $$", flavour), Outcome::Signal(34));
    }
}

#[test]
fn the_environment_is_whole() {
    let mut spec = app(&["env"]);
    spec.environment = vec![("A".into(), "b c".into()), ("PATH".into(), "/bin".into())];
    check(&spec, "A=b c\nPATH=/bin\nHOME=/root\nUSER=root\nLOGNAME=root\nSHELL=/bin/sh\nAC_APP_NAME=app\n");
}

#[test]
fn users_and_groups_are_the_images() {
    let mut spec = app(&["id"]);
    spec.user = "web".into();
    spec.supplementary_gids = vec![1000];
    check(&spec, "uid=33(web) gid=34(www) groups=26(tape),34(www),1000\n");
    let mut spec = shell("grep -E 'Cap(Inh|Prm|Eff|Amb)' /proc/self/status | cut -f2; umask; id -u");
    spec.user = "500".into();
    check(&spec, &format!("{}0022\n500\n", "0000000000000000\n".repeat(4)));
}

#[test]
fn a_non_root_user_can_open_its_streams_by_name() {
    let mut spec = shell("echo out > /dev/stdout; echo err > /dev/stderr");
    spec.user = "web".into();
    check(&spec, "out\n");
}

#[test]
fn capabilities_are_those_asked_for() {
    let mut spec = shell("grep -E 'Cap|NoNewPrivs' /proc/self/status | cut -f2");
    spec.capabilities = vec!["CAP_CHOWN".into(), "CAP_SYSLOG".into()];
    let (none, some) = ("0000000000000000\n", "0000000400000001\n");
    check(&spec, &format!("{none}{some}{some}{some}{none}0\n"));
    spec.no_new_privileges = true;
    spec.capabilities = vec![];
    check(&spec, &format!("{}1\n", none.repeat(5)));
}

#[test]
fn an_unknown_capability_is_refused() {
    let mut spec = app(&["true"]);
    spec.capabilities = vec!["CAP_NOPE".into()];
    check_fails(&Image::new(), &spec, "capability \"CAP_NOPE\" is unknown");
}

#[test]
fn signals_and_limits_are_the_default_ones() {
    let script = "grep -E 'Sig(Blk|Ign|Cgt)' /proc/self/status | cut -f2; ulimit -n; ulimit -c";
    check(&shell(script), &format!("{}1024\n0\n", "0000000000000000\n".repeat(3)));
}

#[test]
fn the_working_directory_is_made() {
    let mut spec = shell("pwd; stat -c '%a %u' .");
    spec.working_directory = "/srv/data/deep".into();
    check(&spec, "/srv/data/deep\n755 0\n");
}

#[test]
fn devices_work_and_there_are_no_others() {
    check(
        &shell("ls /dev; head -c 3 /dev/zero | wc -c; echo x > /dev/null; head -c 4 /dev/urandom | wc -c"),
        "fd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n3\n4\n",
    );
}

#[test]
fn names_are_written_where_the_image_has_none() {
    let image = Image::new();
    let script = shell("cat /etc/hosts; cat /etc/hostname 2>/dev/null || true");
    let named = "127.0.0.1\tlocalhost pod-name\n::1\tlocalhost pod-name\npod-name\n";
    check_on(Flavour::Nspawn, &image, &script, named);
    check_on(Flavour::Fly, &image, &script, "127.0.0.1\tlocalhost\n::1\tlocalhost\n");
    image.write("etc/hosts", "own\n");
    check_on(Flavour::Nspawn, &image, &script, "own\npod-name\n");
    assert_eq!(fs::read_to_string(image.path("etc/hosts")).unwrap(), "own\n", "the image was written to");
}

#[test]
fn the_pod_has_its_own_name_and_a_loopback() {
    let script =
        shell("cat /proc/sys/kernel/hostname; grep -c lo: /proc/net/dev; cat /sys/class/net/lo/flags");
    check_on(Flavour::Nspawn, &Image::new(), &script, "pod-name\n1\n0x9\n");
}

#[test]
fn what_an_app_writes_stays_out_of_the_image_and_within_its_size() {
    let image = Image::new();
    let mut spec =
        shell("echo x > /new && rm /etc/group && dd if=/dev/zero of=/big bs=1M count=3 2>&1 | tail -1");
    spec.exec = [
        "/bin/sh",
        "-c",
        "echo x > /new; rm /etc/group; ! dd if=/dev/zero of=/big bs=1M count=3 2>/dev/null",
    ]
    .map(String::from)
    .to_vec();
    spec.upper_size_bytes = Some(2 << 20);
    for flavour in FLAVOURS {
        check_on(flavour, &image, &spec, "");
    }
    assert!(!image.path("new").exists() && image.path("etc/group").exists());
}

#[test]
fn shared_memory_is_the_pods_and_files_are_the_apps() {
    let image = Image::new();
    let mut writer = shell("echo hello > /dev/shm/word; touch /tmp/mine; cat > /dev/null");
    writer.name = "writer".into();
    let mut reader = shell("until [ -s /dev/shm/word ]; do :; done; cat /dev/shm/word; ls /tmp");
    reader.streams = StandardStreams::Pipes { stdin: None, stdout: 5, stderr: 6 };
    for flavour in FLAVOURS {
        let mut rig = Rig::start(flavour, &image, pod(vec![writer.clone(), reader.clone()]));
        rig.wait_for(5, "hello\n");
        rig.send(1, b"");
        let ran = rig.finish();
        assert_eq!(ran.exited.len(), 2, "{flavour:?}: {ran:?}");
        assert_eq!(ran.text(5), "", "{flavour:?}");
    }
}

#[test]
fn a_missing_command_is_named() {
    let image = Image::new();
    check_fails(&image, &app(&["/bin/nope"]), "command \"/bin/nope\" is not in the image");
    check_fails(&image, &app(&["nope"]), "command \"nope\" is not in the image; PATH is /usr/local/sbin");
    check_fails(&image, &app(&["/etc"]), "command \"/etc\" is a directory");
    check_fails(&image, &app(&["/etc/passwd"]), "command \"/etc/passwd\" is not executable");
    check_fails(&image, &app(&["/proc/self/exe"]), "command \"/proc/self/exe\" is a link");
}

#[test]
fn a_command_that_cannot_be_executed_says_why() {
    let image = Image::new();
    let put = |name: &str, bytes: &[u8]| {
        fs::write(image.path(name), bytes).unwrap();
        fs::set_permissions(image.path(name), fs::Permissions::from_mode(0o755)).unwrap();
    };
    put("script", b"#!/usr/bin/python3\nprint()\n");
    check_fails(
        &image,
        &app(&["/script"]),
        "command \"/script\" needs \"/usr/bin/python3\", which is not in the image",
    );
    put("text", b"echo hello\n");
    check_fails(&image, &app(&["/text"]), "neither an ELF program nor a script");
    // A dynamic program of this host: its linker is not in the image.
    let dynamic = fs::read("/usr/bin/env").unwrap();
    put("dynamic", &dynamic);
    check_fails(
        &image,
        &app(&["/dynamic"]),
        "needs \"/lib64/ld-linux-x86-64.so.2\", which is not in the image",
    );
    let mut foreign = dynamic;
    foreign[18] = 183;
    put("foreign", &foreign);
    check_fails(&image, &app(&["/foreign"]), "it was built for aarch64, this machine is x86-64");
}

#[test]
fn an_unknown_user_is_named() {
    let mut spec = app(&["true"]);
    spec.user = "foo".into();
    let want = "user \"foo\" is not in the image's /etc/passwd; use a numeric id or --user";
    check_fails(&Image::new(), &spec, want);
}

#[test]
fn one_app_that_cannot_start_ends_the_pod() {
    let image = Image::new();
    let mut bad = app(&["/bin/nope"]);
    bad.name = "bad".into();
    bad.streams = StandardStreams::Pipes { stdin: None, stdout: 5, stderr: 6 };
    for flavour in FLAVOURS {
        let ran = Rig::start(flavour, &image, pod(vec![app(&["cat"]), bad.clone()])).finish();
        assert_eq!(ran.exited.get(&0), Some(&Outcome::Signal(9)), "{flavour:?}");
        assert_eq!(ran.failed.len(), 1, "{flavour:?}");
        assert!(ran.finished, "{flavour:?}");
    }
}

#[test]
fn stop_asks_and_then_kills() {
    let image = Image::new();
    let mut polite = shell("trap 'echo bye; exit 7' QUIT; echo ready; while :; do sleep 0.01; done");
    polite.stop_signal = 3;
    let deaf = shell("trap '' TERM; echo ready; cat; while :; do sleep 1; done");
    for flavour in FLAVOURS {
        let mut rig = Rig::start(flavour, &image, pod(vec![polite.clone()]));
        rig.wait_for(2, "ready");
        rig.say(&ToAgent::Stop { signal: None, grace_ms: 20_000 });
        let ran = rig.finish();
        assert_eq!((ran.text(2).trim(), ran.exited[&0]), ("bye", Outcome::Code(7)), "{flavour:?}");

        let mut rig = Rig::start(flavour, &image, pod(vec![deaf.clone()]));
        rig.wait_for(2, "ready");
        rig.say(&ToAgent::Stop { signal: None, grace_ms: 60_000 });
        rig.say(&ToAgent::Stop { signal: None, grace_ms: 50 });
        assert_eq!(rig.finish().exited[&0], Outcome::Signal(9), "{flavour:?}");
    }
}

#[test]
fn signals_reach_the_main_process_only() {
    let image = Image::new();
    let script = "trap 'echo got; exit 3' USR1; (trap 'echo wrong' USR1; echo ready; while :; do sleep 0.01; done) & wait";
    for flavour in FLAVOURS {
        let mut rig = Rig::start(flavour, &image, pod(vec![shell(script)]));
        rig.wait_for(2, "ready");
        rig.say(&ToAgent::Signal { signal: 10 });
        let ran = rig.finish();
        assert_eq!((ran.text(2).as_str(), ran.exited[&0]), ("got\n", Outcome::Code(3)), "{flavour:?}");
    }
}

#[test]
fn a_daemon_left_behind_does_not_hold_the_pod() {
    let image = Image::new();
    let script =
        "setsid sh -c 'echo daemon; exec sleep 1000' & until [ -e /proc/$!/stat ]; do :; done; echo main";
    for flavour in FLAVOURS {
        let ran = Rig::start(flavour, &image, pod(vec![shell(script)])).finish();
        assert_eq!(ran.exited[&0], Outcome::Code(0), "{flavour:?}");
        assert!(ran.text(2).contains("main"), "{flavour:?}");
    }
}

#[test]
fn another_apps_good_end_leaves_an_app_alone() {
    let image = Image::new();
    let mut short = shell("setsid sleep 1000 & exit 0");
    short.name = "short".into();
    let mut long = app(&["cat"]);
    long.name = "long".into();
    short.streams = StandardStreams::Pipes { stdin: None, stdout: 5, stderr: 6 };
    for flavour in FLAVOURS {
        let mut rig = Rig::start(flavour, &image, pod(vec![long.clone(), short.clone()]));
        loop {
            match rig.next().expect("the pod goes on") {
                hull_agent_protocol::host::Event::Exited { app: 1, outcome } => {
                    assert_eq!(outcome, Outcome::Code(0));
                    break;
                }
                hull_agent_protocol::host::Event::Exited { app, .. } => panic!("app {app} ended"),
                _ => (),
            }
        }
        rig.send(1, b"still here");
        rig.wait_for(2, "still here");
        rig.send(1, b"");
        assert_eq!(rig.finish().exited[&0], Outcome::Code(0), "{flavour:?}");
    }
}

#[test]
fn the_end_of_the_link_ends_everything() {
    let image = Image::new();
    for flavour in FLAVOURS {
        let script = "setsid sh -c 'echo $$ daemon; exec sleep 98765' & cat";
        let mut rig = Rig::start(flavour, &image, pod(vec![shell(script)]));
        rig.wait_for(2, "daemon");
        rig.link.shutdown(std::net::Shutdown::Both).unwrap();
        assert_eq!(rig.child.wait().unwrap().code(), Some(1), "{flavour:?}");
        assert_eq!(sleepers("98765"), 0, "{flavour:?}");
    }
}

#[test]
fn an_agent_that_is_killed_takes_its_apps_along() {
    let image = Image::new();
    let mut rig = Rig::start(Flavour::Fly, &image, pod(vec![shell("echo ready; exec sleep 87654")]));
    rig.wait_for(2, "ready");
    rig.child.kill().unwrap();
    rig.child.wait().unwrap();
    wait_until("the app is gone", || sleepers("87654") == 0);
}

/// How many `sleep NUMBER` there are on this host.
fn sleepers(number: &str) -> usize {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let line = |entry: fs::DirEntry| fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
    all.map(line).filter(|line| line == &format!("sleep\0{number}\0")).count()
}

#[test]
fn a_machine_that_cannot_be_prepared_is_reported() {
    let image = Image::new();
    let mut spec = app(&["true"]);
    spec.image = ImageSource::Mounted { path: "images/nope".into() };
    let ran = Rig::start(Flavour::Nspawn, &image, pod(vec![spec])).finish();
    let [(Some(0), AgentFault::Machine, text)] = &ran.failed[..] else { panic!("{ran:?}") };
    assert!(text.contains("assemble the root of app app") && text.contains("No such file"), "{text}");
}

#[test]
fn a_command_found_through_a_link_runs_under_its_own_name() {
    let image = Image::new();
    symlink("/bin/echo", image.path("say")).unwrap();
    // busybox goes by argument 0, so the link is run as what it is called here.
    let mut spec = app(&["echo", "hello"]);
    spec.environment = vec![("PATH".into(), "/nope:/bin".into())];
    check_on(Flavour::Nspawn, &image, &spec, "hello\n");
}

/// Runs one pod everywhere; `want` is what its app says.
#[track_caller]
fn check_pod(spec: &hull_agent_protocol::PodSpec, want: &str) {
    let image = Image::new();
    for flavour in FLAVOURS {
        let ran = Rig::start(flavour, &image, spec.clone()).finish();
        assert_eq!(ran.text(2), want, "{flavour:?}: {:?}; stderr: {}", ran.failed, ran.text(3));
    }
}

#[test]
fn a_root_may_be_read_only() {
    let mut spec = shell("touch /x 2>/dev/null || echo no; touch /dev/shm/x && pwd");
    spec.read_only_root = true;
    spec.working_directory = "/made/for/it".into();
    check(&spec, "no\n/made/for/it\n");
}

#[test]
fn names_and_resolvers_are_the_pods() {
    let image = Image::new();
    symlink("../run/resolv.conf", image.path("etc/resolv.conf")).unwrap();
    let mut spec =
        pod(vec![shell("cat /etc/hosts /etc/resolv.conf; [ -L /etc/resolv.conf ] && echo link; true")]);
    spec.hosts = Some("192.0.2.1 one\n".into());
    spec.resolver = Some("nameserver 192.0.2.2\n".into());
    check_pod(&spec, "192.0.2.1 one\nnameserver 192.0.2.2\n");
    for flavour in FLAVOURS {
        let ran = Rig::start(flavour, &image, spec.clone()).finish();
        assert_eq!(ran.text(2), "192.0.2.1 one\nnameserver 192.0.2.2\n", "{flavour:?}");
    }
}

#[test]
fn commands_before_the_app_are_roots_and_can_fail_it() {
    let command = |script: &str| vec!["/bin/sh".to_owned(), "-c".into(), script.into()];
    let mut spec = shell("cat /tmp/made; id -u");
    spec.user = "web".into();
    spec.pre_start = vec![command("id -u > /tmp/made"), command("echo two >> /tmp/made")];
    check(&spec, "0\ntwo\n33\n");
    spec.pre_start.push(command("exit 3"));
    check_fails(&Image::new(), &spec, "pre-start command \"/bin/sh\": it ended with code 3");
}

#[test]
fn sysctls_are_set_where_they_are_the_pods_own() {
    let mut spec = pod(vec![shell("cat /proc/sys/kernel/msgmax")]);
    spec.sysctls = vec![("kernel.msgmax".into(), "9001".into())];
    let image = Image::new();
    for flavour in FLAVOURS {
        let ran = Rig::start(flavour, &image, spec.clone()).finish();
        match flavour {
            Flavour::Fly => assert!(ran.failed[0].2.contains("kernel.msgmax is the host's"), "{ran:?}"),
            _ => assert_eq!(ran.text(2), "9001\n", "{flavour:?}: {ran:?}"),
        }
    }
    spec.sysctls = vec![("kernel.core_pattern".into(), "x".into())];
    for flavour in FLAVOURS {
        let ran = Rig::start(flavour, &image, spec.clone()).finish();
        assert!(ran.failed[0].2.contains("kernel.core_pattern is the host's"), "{flavour:?}: {ran:?}");
    }
}

#[test]
fn a_filter_is_the_last_thing_before_the_program() {
    // BPF: load nr; return ALLOW for all but mkdir (83), for which EPERM.
    let instruction = |code: u64, jt: u64, jf: u64, k: u64| code | jt << 16 | jf << 24 | k << 32;
    let program = vec![
        instruction(0x20, 0, 0, 0),
        instruction(0x15, 0, 1, 83),
        instruction(0x06, 0, 0, 0x0005_0001),
        instruction(0x06, 0, 0, 0x7fff_0000),
    ];
    let mut app = shell("mkdir /tmp/x 2>/dev/null || echo no; grep CapEff /proc/self/status | cut -f2");
    app.capabilities = vec!["CAP_KILL".into()];
    app.seccomp = Some(0);
    let mut spec = pod(vec![app]);
    spec.seccomp = vec![program];
    check_pod(&spec, "no\n0000000000000020\n");
    spec.apps[0].seccomp = Some(1);
    let ran = Rig::start(Flavour::Nspawn, &Image::new(), spec).finish();
    assert!(ran.failed[0].2.contains("no system call filter 1"), "{ran:?}");
}

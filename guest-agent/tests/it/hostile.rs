//! Images and apps that want out, and a stage1 that talks nonsense.

use std::fs;
use std::os::unix::fs::symlink;

use hull_agent_protocol::message::AgentFault;
use hull_agent_protocol::{AppSpec, Outcome, StandardStreams, ToAgent};

use crate::rig::{FLAVOURS, Flavour, Image, Ran, Rig, app, pod, shell};

fn run(flavour: Flavour, image: &Image, app: AppSpec) -> Ran {
    Rig::start(flavour, image, pod(vec![app])).finish()
}

/// Every line of output begins with `ok`, and there are `count` of them.
#[track_caller]
fn check_ok(script: &str, count: usize) {
    let image = Image::new();
    for flavour in FLAVOURS {
        let ran = run(flavour, &image, shell(script));
        let text = ran.text(2);
        assert_eq!(ran.failed, [], "{flavour:?}");
        assert!(text.lines().all(|line| line.starts_with("ok")), "{flavour:?}:\n{text}{}", ran.text(3));
        assert_eq!(text.lines().count(), count, "{flavour:?}:\n{text}{}", ran.text(3));
    }
}

#[test]
fn no_descriptor_leaks() {
    let image = Image::new();
    for flavour in FLAVOURS {
        // 3 is the directory that ls reads.
        let ran = run(flavour, &image, app(&["ls", "/proc/self/fd"]));
        assert_eq!(ran.text(2), "0\n1\n2\n3\n", "{flavour:?}");
    }
}

#[test]
fn the_kernels_files_cannot_be_written() {
    check_ok(
        "for f in /proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe /proc/sys/vm/panic_on_oom \
         /proc/sys/kernel/hostname /proc/sysrq-trigger /sys/class/net/lo/mtu /sys/kernel/uevent_helper \
         /proc/irq/default_smp_affinity; do \
         [ ! -e $f ] || (echo 1 > $f) 2>/dev/null && [ -e $f ] && echo wrote $f || echo ok; done",
        8,
    );
}

#[test]
fn hidden_files_are_empty() {
    check_ok(
        "for f in config.gz kallsyms kcore keys timer_list sched_debug mem; do \
         [ ! -s /proc/$f ] && [ -z \"$(head -c 1 /proc/$f 2>/dev/null)\" ] && echo ok || echo seen $f; done; \
         for d in /sys/firmware /sys/module /sys/power /proc/scsi /proc/acpi; do \
         [ -z \"$(ls $d 2>/dev/null)\" ] && echo ok || echo seen $d; done; \
         [ -z \"$(ls /sys/fs | grep -v cgroup)\" ] && echo ok || ls /sys/fs",
        13,
    );
}

#[test]
fn nothing_can_be_mounted_or_made() {
    check_ok(
        "mount -t proc proc /tmp 2>/dev/null && echo mounted || echo ok; \
         mount -o remount,rw,bind /proc/sys 2>/dev/null && echo remounted || echo ok; \
         umount /proc/sys 2>/dev/null && echo unmounted || echo ok; \
         mknod /tmp/mem c 1 1 2>/dev/null && echo made || echo ok",
        4,
    );
}

#[test]
fn a_device_node_of_the_image_is_dead() {
    let image = Image::new();
    let made = std::process::Command::new("mknod").arg(image.path("zero")).args(["c", "1", "5"]).status();
    assert!(made.unwrap().success());
    for flavour in FLAVOURS {
        let ran = run(flavour, &image, shell("head -c 1 /zero"));
        assert!(ran.text(3).contains("Permission denied"), "{flavour:?}: {}", ran.text(3));
    }
}

#[test]
fn the_agent_is_out_of_reach() {
    check_ok(
        "ls /proc/$PPID/root/ >/dev/null 2>&1 && echo reached || echo ok; \
         ls /proc/$PPID/cwd/ >/dev/null 2>&1 && echo reached || echo ok; \
         head -c 1 /proc/$PPID/exe >/dev/null 2>&1 && echo read || echo ok; \
         readlink /proc/$PPID/fd/3 >/dev/null && echo read || echo ok; \
         head -c 1 /proc/$PPID/environ 2>/dev/null | grep -q . && echo read || echo ok; \
         grep -q agent /proc/$PPID/comm && echo ok",
        6,
    );
}

#[test]
fn above_the_root_is_the_root() {
    let image = Image::new();
    let script = "mkdir /jail; chroot /jail /nope 2>/dev/null; cd ../../../../../..; ls; ls /..";
    for flavour in FLAVOURS {
        let ran = run(flavour, &image, shell(script));
        let names: std::collections::BTreeSet<_> = ran.text(2).lines().map(str::to_owned).collect();
        let want = ["bin", "dev", "etc", "jail", "lib", "proc", "sys", "tmp"].map(String::from);
        assert_eq!(names, want.into(), "{flavour:?}");
    }
}

#[test]
fn only_the_apps_own_mounts_are_seen() {
    let image = Image::new();
    for flavour in FLAVOURS {
        let ran = run(flavour, &image, shell("cut -d' ' -f2 /proc/self/mounts | sort -u"));
        let text = ran.text(2);
        assert!(
            text.lines().all(|l| ["/", "/proc", "/sys", "/dev"]
                .iter()
                .any(|p| l == *p || l.starts_with(&format!("{p}/")))),
            "{flavour:?}:\n{text}"
        );
        assert!(!text.contains("images"), "{flavour:?}:\n{text}");
    }
}

#[test]
fn an_app_sees_only_its_own_cgroup() {
    let image = Image::new();
    for flavour in [Flavour::Nspawn, Flavour::Fly] {
        let ran = run(
            flavour,
            &image,
            shell(
                "grep ^0: /proc/self/cgroup; wc -l < /sys/fs/cgroup/cgroup.procs; mkdir /sys/fs/cgroup/x 2>/dev/null || echo ro",
            ),
        );
        // The shell and wc.
        assert_eq!(ran.text(2), "0::/\n2\nro\n", "{flavour:?}: {}", ran.text(3));
    }
}

#[test]
fn nothing_is_mounted_where_the_image_has_a_link() {
    for name in ["proc", "sys", "dev"] {
        let image = Image::new();
        fs::create_dir(image.path("elsewhere")).unwrap();
        symlink("/elsewhere", image.path(name)).unwrap();
        for flavour in FLAVOURS {
            let ran = run(flavour, &image, app(&["true"]));
            let [(Some(0), AgentFault::Pod, text)] = &ran.failed[..] else { panic!("{ran:?}") };
            assert!(
                text.contains(&format!("/{name} of the image is not a directory")),
                "{flavour:?}: {text}"
            );
        }
    }
}

#[test]
fn links_of_the_image_do_not_reach_the_host() {
    let victim = tempfile::tempdir().unwrap();
    let image = Image::new();
    fs::remove_dir_all(image.path("etc")).unwrap();
    symlink(victim.path(), image.path("etc")).unwrap();
    symlink(victim.path(), image.path("link")).unwrap();
    for flavour in FLAVOURS {
        let mut spec = app(&["true"]);
        spec.working_directory = "/link/made".into();
        run(flavour, &image, spec);
        assert_eq!(fs::read_dir(victim.path()).unwrap().count(), 0, "{flavour:?}");
    }
}

#[test]
fn a_working_directory_in_procfs_leads_nowhere() {
    let image = Image::new();
    symlink("/proc/1/root", image.path("magic")).unwrap();
    for path in ["/proc/1/root", "/proc/self/cwd", "/magic", "/proc/self/fd/4"] {
        for flavour in FLAVOURS {
            let mut spec = app(&["ls"]);
            spec.working_directory = path.into();
            let ran = run(flavour, &image, spec);
            assert!(
                matches!(&ran.failed[..], [(Some(0), AgentFault::Pod, _)]),
                "{flavour:?} {path}: {ran:?}"
            );
        }
    }
}

#[test]
fn hostile_account_files_only_fail_the_app() {
    let image = Image::new();
    let passwd = image.path("etc/passwd");
    let try_out = |want: &str| {
        for flavour in FLAVOURS {
            let mut spec = app(&["true"]);
            spec.user = "web".into();
            let ran = run(flavour, &image, spec);
            let [(Some(0), AgentFault::Pod, text)] = &ran.failed[..] else { panic!("{ran:?}") };
            assert!(text.contains(want), "{flavour:?}: {text}");
        }
    };
    fs::write(&passwd, vec![b'x'; (1 << 20) + 1]).unwrap();
    try_out("longer than 1048576 bytes");
    fs::remove_file(&passwd).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&passwd).status().unwrap().success());
    try_out("not a regular file");
    fs::remove_file(&passwd).unwrap();
    symlink("/dev/zero", &passwd).unwrap();
    try_out("not a regular file");
    fs::remove_file(&passwd).unwrap();
    symlink("/proc/1/root/etc/passwd", &passwd).unwrap();
    try_out("read the image's /etc/passwd");
}

#[test]
fn a_fork_bomb_ends_with_its_pod() {
    let image = Image::new();
    let script = "echo ready; for i in 1 2 3 4; do (while :; do (:) & done) & done; wait";
    for flavour in FLAVOURS {
        let mut rig = Rig::start(flavour, &image, pod(vec![shell(script)]));
        rig.wait_for(2, "ready");
        rig.say(&ToAgent::Stop { signal: Some(15), grace_ms: 100 });
        let ran = rig.finish();
        assert!(matches!(ran.exited[&0], Outcome::Signal(_)), "{flavour:?}");
    }
}

#[test]
fn nonsense_from_stage1_ends_the_agent() {
    let image = Image::new();
    let end = |bytes: &[u8], start: bool| {
        let spec = pod(vec![app(&["cat"])]);
        let mut rig = match start {
            true => Rig::start(Flavour::Nspawn, &image, spec),
            false => Rig::boot(Flavour::Nspawn, &image, spec),
        };
        std::io::Write::write_all(&mut rig.link, bytes).unwrap();
        // unshare(1) passes the code on.
        rig.child.wait().unwrap().code()
    };
    let control = |text: &str| {
        let mut bytes = vec![];
        hull_agent_protocol::frame::encode(0, text.as_bytes(), &mut bytes);
        bytes
    };
    assert_eq!(end(&[0xff; 8], false), Some(1));
    assert_eq!(end(&control("{}"), false), Some(1));
    assert_eq!(end(&control(r#"{"signal":{"signal":9}}"#), false), Some(1));
    assert_eq!(end(&control(r#"{"start":{"hostname":"h","apps":[]}}"#), false), Some(1));
    assert_eq!(end(&control(r#"{"start":{"hostname":"h","apps":[]}}"#), true), Some(1));
    assert_eq!(end(&control(r#"{"signal":{"signal":0}}"#), true), Some(1));
    assert_eq!(end(&control(r#"{"credit":{"channel":2,"bytes":1}}"#), true), Some(1));
    assert_eq!(end(&[0, 0, 0, 0, 99, 0, 0, 0], true), Some(1));
}

#[test]
fn an_app_name_cannot_be_a_path() {
    let image = Image::new();
    for name in ["", "..", "a/b", "A", "a.b"] {
        let mut spec = app(&["true"]);
        spec.name = name.into();
        let mut rig = Rig::start(Flavour::Nspawn, &image, pod(vec![spec]));
        assert_eq!(rig.child.wait().unwrap().code(), Some(1), "{name:?}");
    }
    let mut twin = app(&["true"]);
    twin.streams = StandardStreams::Pipes { stdin: None, stdout: 5, stderr: 6 };
    let mut rig = Rig::start(Flavour::Nspawn, &image, pod(vec![app(&["true"]), twin]));
    assert_eq!(rig.child.wait().unwrap().code(), Some(1));
}

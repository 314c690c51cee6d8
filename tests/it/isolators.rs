//! What an app may do and use, by the isolators of its image.

use hull_tests::hull::{Ended, finish};
use hull_tests::image::Builder;
use hull_tests::{Flavour, Hull};
use serde_json::{Value, json};

/// Runs a script in an app with these isolators.
fn run(flavour: Flavour, isolators: &[(&str, Value)], options: &[&str], script: &str) -> Ended {
    let hull = Hull::new();
    let all: Vec<_> = isolators.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
    let image = Builder::standard().app(json!({ "isolators": all })).aci();
    let mut command = hull.command(["run", flavour.option(), "--insecure-options=image"]);
    command.args(options).args([&image.reference(), "--exec=/bin/sh", "--", "-c", script]);
    finish(command)
}

/// A line of `/proc/self/status`.
fn status(flavour: Flavour, isolators: &[(&str, Value)], options: &[&str], name: &str) -> String {
    let said = run(flavour, isolators, options, &format!("grep {name}: /proc/self/status")).success();
    said.split_whitespace().last().unwrap_or_default().to_owned()
}

pub(crate) fn system_calls_are_filtered(flavour: Flavour) {
    let default = if flavour == Flavour::Fly { "0" } else { "2" };
    assert_eq!(status(flavour, &[], &[], "Seccomp"), default);
    let calls = |errno: Option<&str>| {
        let name = "os/linux/seccomp-remove-set";
        let value = match errno {
            Some(errno) => json!({ "set": ["mkdir", "mkdirat"], "errno": errno }),
            None => json!({ "set": ["mkdir", "mkdirat"] }),
        };
        run(flavour, &[(name, value)], &[], "mkdir /tmp/x; echo $?; ls /tmp")
    };
    let ended = calls(Some("ENOSPC"));
    assert!(ended.stderr().contains("No space left"), "{}", ended.stderr());
    assert_eq!(ended.success(), "1\n");
    // SIGSYS.
    assert_eq!(calls(None).success(), "159\n");
    let all = ("os/linux/seccomp-retain-set", json!({ "set": ["@appc.io/all"] }));
    assert_eq!(status(flavour, &[all], &[], "Seccomp"), "0");
    let few =
        ("os/linux/seccomp-retain-set", json!({ "set": ["@docker/default-whitelist"], "errno": "EPERM" }));
    assert_eq!(status(flavour, &[few], &[], "Seccomp"), "2");
}

pub(crate) fn capabilities_are_retained_and_removed(flavour: Flavour) {
    let set = |names: &[&str]| json!({ "set": names });
    let retain = [("os/linux/capabilities-retain-set", set(&["CAP_KILL", "CAP_NET_ADMIN"]))];
    for name in ["CapBnd", "CapEff", "CapPrm"] {
        assert_eq!(status(flavour, &retain, &[], name), format!("{:016x}", (1 << 5) | (1 << 12)), "{name}");
    }
    let bound = |isolators: &[(&str, Value)]| {
        u64::from_str_radix(&status(flavour, isolators, &[], "CapBnd"), 16).expect("proc_pid_status(5)")
    };
    let remove = [("os/linux/capabilities-remove-set", set(&["CAP_CHOWN", "CAP_KILL"]))];
    assert_eq!(bound(&[]) & !bound(&remove), 1 | 1 << 5);
    let both = [retain[0].clone(), remove[0].clone()];
    run(flavour, &both, &[], "true").failure(&["capabilities-remove-set", "contradicts"]);
}

pub(crate) fn no_app_gains_privileges_where_none_may(flavour: Flavour) {
    let no_new = [("os/linux/no-new-privileges", json!(true))];
    assert_eq!(status(flavour, &no_new, &[], "NoNewPrivs"), "1");
    assert_eq!(status(flavour, &[], &[], "NoNewPrivs"), "0");
    // A filter that a user has loaded must not outlive a change of the user.
    let filtered = [("os/linux/seccomp-remove-set", json!({ "set": ["mount"] }))];
    assert_eq!(status(flavour, &filtered, &["--user=app"], "NoNewPrivs"), "1");
    assert_eq!(status(flavour, &filtered, &["--user=app"], "CapPrm"), "0000000000000000");
}

pub(crate) fn resources_are_limited(flavour: Flavour) {
    let isolators = [
        ("os/linux/oom-score-adj", json!(321)),
        ("hull/rlimits", json!([{ "type": "RLIMIT_NOFILE", "soft": 64, "hard": 128 }])),
    ];
    let script = "cat /proc/self/oom_score_adj; ulimit -Sn; ulimit -Hn";
    assert_eq!(run(flavour, &isolators, &[], script).success(), "321\n64\n128\n");
}

/// Whether the machine of such a pod has the controllers of cgroup version 2.
fn has_controllers(flavour: Flavour) -> bool {
    let here = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers");
    flavour == Flavour::Kvm || here.is_ok_and(|names| names.contains("memory") && names.contains("pids"))
}

pub(crate) fn limits_are_set_or_the_pod_does_not_run(flavour: Flavour) {
    let limits = [
        ("resource/memory", json!({ "limit": "24Mi" })),
        ("resource/cpu", json!({ "limit": "500m" })),
        ("os/linux/cpu-shares", json!(512)),
        ("hull/pids", json!({ "limit": 20 })),
    ];
    if !has_controllers(flavour) {
        for limit in &limits {
            run(flavour, std::slice::from_ref(limit), &[], "true").failure(&[limit.0, "cgroup"]);
        }
        assert_eq!(run(flavour, &limits, &["--isolators=lenient"], "echo ran").success(), "ran\n");
        return;
    }
    let script = "cd /sys/fs/cgroup; cat memory.max cpu.max cpu.weight pids.max";
    assert_eq!(run(flavour, &limits, &[], script).success(), "25165824\n50000 100000\n20\n20\n");
    // The whole app ends where its memory does.
    let hog = "dd if=/dev/zero of=/dev/null bs=40M count=1; echo survived";
    let ended = run(flavour, &limits[..1], &[], hog);
    assert_eq!((ended.code, ended.stdout().as_str()), (128 + 9, ""), "{}", ended.stderr());
    let bomb = "n=0; while [ $n -lt 40 ]; do sleep 1000 & n=$((n+1)); done; echo more";
    let ended = run(flavour, &limits[3..], &[], bomb);
    assert!(ended.stderr().contains("fork"), "{}", ended.stderr());
    assert!(!ended.stdout().contains("more"), "{}", ended.stdout());
}

pub(crate) fn an_unknown_isolator_is_an_error_unless_told_otherwise(flavour: Flavour) {
    let unknown = [("os/linux/nope", json!(1))];
    run(flavour, &unknown, &[], "true").failure(&["os/linux/nope", "app busybox", "--isolators=lenient"]);
    let ended = run(flavour, &unknown, &["--isolators=lenient"], "echo ran");
    assert!(ended.stderr().contains("os/linux/nope"), "{}", ended.stderr());
    assert_eq!(ended.success(), "ran\n");
    let network = [("resource/network-bandwidth", json!({ "limit": "1M" }))];
    run(flavour, &network, &[], "true").failure(&["resource/network-bandwidth", "interface"]);
}

pub(crate) fn protections_are_waived_by_name_only(flavour: Flavour) {
    let waive = |word: &str| format!("--insecure-options=image,{word}");
    assert_eq!(status(flavour, &[], &[&waive("seccomp")], "Seccomp"), "0");
    let all = u64::from_str_radix(&status(flavour, &[], &[&waive("capabilities")], "CapEff"), 16);
    assert!(all.clone().is_ok_and(|all| all & (1 << 21) != 0), "{all:?}");
    let mounts =
        |options: &[&str]| run(flavour, &[], options, "grep -c ' /proc/' /proc/self/mountinfo; true");
    assert_eq!(mounts(&[&waive("paths")]).success(), "0\n");
    assert_ne!(mounts(&[]).success(), "0\n");
}

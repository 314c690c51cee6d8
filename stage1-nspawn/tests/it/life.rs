//! From the contract to the verdict.

use std::fs;
use std::path::PathBuf;

use hull_pod::{Flavour, Status};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::rig::{FLAVOURS, Rig, stdout, wait_until};

fn cgroup(rig: &Rig) -> PathBuf {
    let path = PathBuf::from(rig.read("subcgroup"));
    assert!(path.ends_with(format!("hull/{}", rig.id)), "{}", path.display());
    path
}

#[test]
fn a_pod_runs_and_leaves_nothing() {
    for flavour in FLAVOURS {
        let mut rig = Rig::new(flavour, &["echo out; echo err >&2; exit 3"]);
        let output = rig.run();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(
            (output.status.code(), stdout(&output).as_str(), stderr.as_str()),
            (Some(3), "out\n", "err\n")
        );
        let status: Status = serde_json::from_str(&rig.read("status.json")).unwrap();
        assert_eq!(status.apps[0].exit_code(), Some(3));
        assert!(status.apps[0].started_at < status.apps[0].finished_at);
        assert!(!cgroup(&rig).exists());
        assert_eq!(rig.traces(), Vec::<String>::new(), "{flavour:?}");
    }
}

#[test]
fn the_pid_is_the_agents() {
    for flavour in FLAVOURS {
        let mut rig = Rig::new(flavour, &["echo ready; exec sleep 1000"]);
        let mut started = rig.start("ready");
        let name = fs::read_to_string(format!("/proc/{}/comm", rig.read("pid"))).unwrap();
        assert_eq!(name, "hull-agent\n");
        let procs = fs::read_to_string(cgroup(&rig).join("app0/cgroup.procs")).unwrap();
        assert_eq!(procs.lines().count(), 1, "{flavour:?}");
        started.signal(Signal::SIGTERM);
        assert_eq!(started.wait().status.code(), Some(128 + 15), "{flavour:?}");
    }
}

#[test]
fn apps_of_one_pod_share_their_names_and_not_their_files() {
    let first = "echo $$ > /dev/shm/pid; echo x > /mine; until [ -e /dev/shm/done ]; do :; done";
    let second = "until [ -s /dev/shm/pid ]; do :; done; ls /; [ -d /proc/$(cat /dev/shm/pid) ] && echo seen; echo > /dev/shm/done";
    let output = Rig::new(Flavour::Nspawn, &[first, second]).run();
    let said = stdout(&output);
    let second: Vec<_> =
        said.lines().filter_map(|line| Some(line.split_once("] app1[")?.1.split_once("]: ")?.1)).collect();
    assert_eq!(second, ["bin", "dev", "etc", "proc", "sys", "seen"], "{said}");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_chroot_has_one_app() {
    let output = Rig::new(Flavour::Fly, &["exit 0", "exit 0"]).run();
    assert_eq!(output.status.code(), Some(254));
    assert!(String::from_utf8_lossy(&output.stderr).contains("a fly pod has one app"));
}

#[test]
fn a_start_that_fails_says_why_and_leaves_nothing() {
    for flavour in FLAVOURS {
        let mut rig = Rig::new(flavour, &["exit 0"]);
        let contract = rig.read("stage1.json").replace("image.erofs", "no-such.erofs");
        fs::write(rig.path.join("stage1.json"), contract).unwrap();
        let output = rig.run();
        assert_eq!(output.status.code(), Some(254));
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(stderr.contains("mount image") && stderr.contains("no-such.erofs"), "{stderr}");
        let status: Status = serde_json::from_str(&rig.read("status.json")).unwrap();
        assert!(status.failure.unwrap().contains("no-such.erofs"));
        assert!(!cgroup(&rig).exists());
        assert_eq!(rig.traces(), Vec::<String>::new(), "{flavour:?}");
    }
}

#[test]
fn kill_9_leaves_no_process_and_no_mount() {
    for flavour in FLAVOURS {
        let script = "(setsid sleep 1000 &); sleep 1000 & echo ready; exec sleep 1000";
        let mut rig = Rig::new(flavour, &[script]);
        let mut started = rig.start("ready");
        assert!(rig.traces().iter().any(|trace| trace.contains("sleep")), "{:?}", rig.traces());
        started.signal(Signal::SIGKILL);
        assert_eq!(started.child().wait().unwrap().code(), None);
        wait_until("nothing of the pod is left", || rig.traces().is_empty());
        // The empty cgroup is gc's.
        hull_pod::cgroup::remove(&cgroup(&rig)).unwrap();
    }
}

#[test]
fn a_killed_agent_is_a_failed_pod() {
    for flavour in FLAVOURS {
        let mut rig = Rig::new(flavour, &["echo ready; exec sleep 1000"]);
        let started = rig.start("ready");
        kill(Pid::from_raw(rig.read("pid").parse().unwrap()), Signal::SIGKILL).unwrap();
        let output = started.wait();
        assert_eq!(output.status.code(), Some(254), "{flavour:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("the agent was killed by SIGKILL"));
        assert_eq!(rig.traces(), Vec::<String>::new(), "{flavour:?}");
    }
}

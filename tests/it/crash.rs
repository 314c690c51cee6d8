//! Pulling the plug.

use std::collections::BTreeSet;

use hull_tests::hull::{finish, until};
use hull_tests::{Flavour, Hull, Image, traces};
use nix::sys::signal::Signal;

pub(crate) fn a_killed_pod_leaves_nothing_after_gc(flavour: Flavour) {
    let hull = Hull::new();
    let mut pod = hull.start(flavour, "(sleep 1000 &); nohup sleep 1000 & echo ready; exec sleep 1000");
    pod.await_output("ready\n");
    let id = hull.pods().remove(0);
    pod.signal(Signal::SIGKILL);
    assert_eq!(pod.wait().code, -9);
    assert_eq!(hull.status("state").as_deref(), Some("exited"));
    assert!(hull.collect().success().contains(&id));
    assert_eq!(hull.pods(), Vec::<String>::new());
    // The kernel buries the last processes on its own time.
    until("nothing of the pod is left", || traces::of(hull.dir(), &id) == BTreeSet::new());
}

/// Killed as soon as its directory is seen in `run/`: stage1 has hardly begun, and no two runs are hit at the
/// same step.
pub(crate) fn a_pod_killed_at_its_start_leaves_nothing_after_gc(flavour: Flavour) {
    let hull = Hull::new();
    hull.shell(flavour, "true").success();
    hull.collect().success();
    for _ in 0..5 {
        let pod = hull.start(flavour, "exec sleep 1000");
        let run = hull.dir().join("pods/run");
        let first = || std::fs::read_dir(&run).expect("a folder of the store").flatten().next();
        until("the pod is in run/", || first().is_some());
        let id =
            first().expect("it is there until it is collected").file_name().into_string().expect("a UUID");
        pod.signal(Signal::SIGKILL);
        assert_eq!(pod.wait().code, -9);
        hull.collect().success();
        assert_eq!(hull.pods(), Vec::<String>::new());
        until("nothing of the pod is left", || traces::of(hull.dir(), &id) == BTreeSet::new());
    }
}

pub(crate) fn a_prepared_pod_runs_once(flavour: Flavour) {
    let hull = Hull::new();
    let reference = Image::standard().reference();
    let script = "echo ready; exec sleep 1000";
    let prepared =
        hull.hull(&["prepare", flavour.option(), &reference, "--", "/bin/sh", "-c", script]).success();
    let id = prepared.trim().to_owned();
    assert_eq!(hull.status("state").as_deref(), Some("prepared"));
    let mut pod = hull.spawn(&["run-prepared", &id]);
    pod.await_output("ready\n");
    finish(hull.command(["run-prepared", &id])).failure(&[&id, "running"]);
    pod.signal(Signal::SIGTERM);
    assert_eq!(pod.wait().code, 128 + 15);
    finish(hull.command(["run-prepared", &id])).failure(&[&id, "exited"]);
}

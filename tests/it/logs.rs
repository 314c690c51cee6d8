//! Pods that nobody waits for, and what they have written.

use std::fs;

use hull_tests::hull::{finish, until};
use hull_tests::{Flavour, Hull, Image};

const WAITER: &str = "trap 'echo stopped; exit 6' TERM; echo ready; while :; do sleep 1000 & wait; done";

fn detach(hull: &Hull, flavour: Flavour, command: &[&str]) -> hull_tests::Ended {
    let image = Image::standard().reference();
    let options = ["run", flavour.option(), "--insecure-options=image", "--detach", &image, "--"];
    hull.hull(&[&options, command].concat())
}

/// The id of a pod that runs on by itself.
fn detached(hull: &Hull, flavour: Flavour, script: &str) -> String {
    detach(hull, flavour, &["/bin/sh", "-c", script]).success().trim().to_owned()
}

pub(crate) fn a_detached_pod_runs_on_by_itself(flavour: Flavour) {
    let hull = Hull::new();
    let id = detached(&hull, flavour, WAITER);
    assert_eq!(hull.pods(), [id.as_str()]);
    assert_eq!(hull.status("state").as_deref(), Some("running"));
    assert_eq!(hull.hull(&["exec", &id, "echo", "here"]).success(), "here\n");
    hull.hull(&["stop", "--wait", &id]).success();
    assert_eq!(hull.status("app-busybox").as_deref(), Some("6"));
    hull.collect().success();
    // One that is over at once has run all the same; one that cannot run is told of.
    detach(&hull, flavour, &["/bin/true"]).success();
    until("the short pod ended", || hull.status("app-busybox").is_some());
    assert_eq!(hull.status("app-busybox").as_deref(), Some("0"));
    hull.collect().success();
    detach(&hull, flavour, &["/bin/nope"]).failure(&["run:", "/bin/nope", "not in the image"]);
}

pub(crate) fn what_an_app_wrote_is_kept_by_stream(flavour: Flavour) {
    let hull = Hull::new();
    hull.shell(flavour, "echo one; echo oops >&2; sleep 0.1; printf 'two '; sleep 0.1; printf three")
        .success();
    let id = hull.pods().remove(0);
    let ended = hull.hull(&["logs", &id[..8]]);
    assert_eq!((ended.stdout().as_str(), ended.stderr().as_str()), ("one\ntwo three", "oops\n"));
    assert_eq!(hull.hull(&["logs", "--follow", "--app=busybox", &id]).success(), "one\ntwo three");
    assert_eq!(hull.hull(&["logs", "--tail=1", &id]).success(), "three");
    assert_eq!(hull.hull(&["logs", "--since=2999-01-01T00:00:00Z", &id]).success(), "");
    assert_eq!(hull.hull(&["logs", "--since=1h", &id]).success(), "one\ntwo three");
    let stamped = hull.hull(&["logs", "--timestamps", &id]).success();
    let (time, text) = stamped.split_once('\n').and_then(|(line, _)| line.split_once(' ')).expect("a line");
    assert!(time.starts_with("20") && time.ends_with('Z') && text == "one", "{stamped}");
    hull.hull(&["logs", "--app=other", &id]).failure(&["no app other", "busybox"]);
    hull.hull(&["logs", "nothing"]).failure(&["nothing"]);
}

pub(crate) fn logs_are_followed_until_the_pod_ends(flavour: Flavour) {
    let hull = Hull::new();
    let id = detached(&hull, flavour, WAITER);
    let mut follower = hull.spawn(&["logs", "-f", &id]);
    follower.await_output("ready\n");
    hull.hull(&["stop", "--wait", &id]).success();
    assert_eq!(follower.wait().success(), "stopped\n");
}

pub(crate) fn a_flood_of_output_keeps_the_last_of_it(flavour: Flavour) {
    let hull = Hull::new();
    let lines = 200_000;
    let ended = hull.shell(flavour, &format!("yes | head -n {lines}; yes n | head -n {lines}; echo last"));
    assert_eq!(ended.success().len(), 4 * lines + 5);
    let id = hull.pods().remove(0);
    let logs = hull.hull(&["logs", &id]).success();
    assert!(logs.starts_with(['y', 'n']) && logs.ends_with("n\nlast\n"), "{} bytes", logs.len());
    assert!(logs.len() > 2 * lines && logs.len() < 4 * lines, "{} bytes", logs.len());
    let folder =
        ["run", "exited-garbage"].map(|place| hull.dir().join("pods").join(place).join(&id).join("logs"));
    let folder = folder.iter().find(|folder| folder.exists()).expect("the pod has logs");
    let files =
        ["busybox.log", "busybox.log.1"].map(|name| fs::metadata(folder.join(name)).expect(name).len());
    assert!(files.iter().all(|len| *len <= 8 << 20), "{files:?}");
}

pub(crate) fn a_pod_with_a_terminal_has_no_log(flavour: Flavour) {
    let hull = Hull::new();
    let image = Image::standard().reference();
    let options =
        ["run", flavour.option(), "--insecure-options=image", "--interactive", &image, "--", "/bin/true"];
    let terminal = hull_tests::terminal::Terminal::run(hull.command(options), 24, 80);
    assert_eq!(terminal.finish().1, Some(0));
    let id = hull.pods().remove(0);
    hull.hull(&["logs", &id]).failure(&["terminal", "not kept"]);
    hull.collect().success();
    let prepared = ["prepare", flavour.option(), "--insecure-options=image", &image, "--", "/bin/true"];
    let id = hull.hull(&prepared).success();
    hull.hull(&["logs", id.trim()]).failure(&["has not run"]);
    let run = finish(hull.command(["run-prepared", "--detach", id.trim()]));
    assert_eq!(run.success(), id);
    hull.hull(&["status", "--wait", id.trim()]).success();
}

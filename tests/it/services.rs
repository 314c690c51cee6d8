//! Pods as services of a manager.

use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use hull_tests::hull::finish;
use hull_tests::image::Builder;
use hull_tests::{Flavour, Hull, Image};
use nix::sys::signal::Signal;
use serde_json::json;

pub(crate) fn the_manager_is_told_when_the_apps_run(flavour: Flavour) {
    let hull = Hull::new();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
    let hear = || {
        let mut buffer = [0; 100];
        let len = socket.recv(&mut buffer).expect("a message");
        String::from_utf8_lossy(&buffer[..len]).into_owned()
    };
    let script = "echo socket $NOTIFY_SOCKET; exec sleep 1000";
    let mut command = hull.run_command(flavour, &Image::standard(), &["/bin/sh", "-c", script]);
    command.env("NOTIFY_SOCKET", &path);
    let mut pod = hull.spawn_command(command);
    assert_eq!(hear(), "READY=1");
    assert_eq!(hull.status("state").as_deref(), Some("running"));
    // The manager is not the app's to talk to.
    pod.await_output("socket\n");
    pod.signal(Signal::SIGTERM);
    assert_eq!(hear(), "STOPPING=1");
    pod.wait();
}

pub(crate) fn what_went_wrong_in_a_pod_on_its_own_is_kept(flavour: Flavour) {
    let hull = Hull::new();
    let handlers = json!([{ "name": "post-stop", "exec": ["/bin/false"] }]);
    let image = Builder::standard().app(json!({ "eventHandlers": handlers })).aci();
    let image = &image.reference();
    let detached =
        ["run", "--detach", "--insecure-options=image", flavour.option(), image, "--exec=/bin/sh", "--"];
    let id =
        finish(hull.command(detached.iter().chain(&["-c", "echo out; echo err >&2; sleep 0.1"]))).success();
    let id = id.trim();
    let status = hull.hull(&["status", "--wait", id]).success();
    let warnings: Vec<&str> = status.lines().filter_map(|line| line.strip_prefix("warning=")).collect();
    // Once, and what the app writes is none.
    assert!(matches!(&warnings[..], [one] if one.contains("post-stop")), "{status}");
    let said = hull.dir().join("pods/run").join(id).join("stage1.log");
    assert!(std::fs::read_to_string(said).is_ok_and(|said| said.contains("post-stop")));
    hull.hull(&["run", flavour.option(), "--private-users", image]).failure(&["--private-users", "kvm"]);
}

pub(crate) fn sockets_of_the_manager_are_refused_where_an_app_expects_them(flavour: Flavour) {
    let hull = Hull::new();
    let port = json!([{ "name": "web", "protocol": "tcp", "port": 80, "socketActivated": true }]);
    let image = Builder::standard().app(json!({ "ports": port })).aci();
    let run = |listen: &str| {
        let words =
            ["run", flavour.option(), "--insecure-options=image", &image.reference(), "--exec=/bin/true"];
        let hull = hull.command(words);
        let mut shell = Command::new("sh");
        shell
            .args(["-c", &format!("{listen} exec \"$@\""), "sh"])
            .arg(hull.get_program())
            .args(hull.get_args());
        shell.envs(hull.get_envs().filter_map(|(name, value)| Some((name, value?))));
        finish(shell)
    };
    run("LISTEN_PID=$$ LISTEN_FDS=1").failure(&["app busybox", "--port"]);
    // Somebody else's sockets, or none.
    run("LISTEN_PID=1 LISTEN_FDS=1").success();
    run("").success();
}

//! Commands that speak to a running pod.

use hull_tests::hull::{finish, finish_with_input, until};
use hull_tests::terminal::Terminal;
use hull_tests::{Ended, Flavour, Hull, Started};

const WAITER: &str = "trap 'echo stopped; exit 6' TERM; echo ready; while :; do sleep 1000 & wait; done";

fn running(hull: &Hull, flavour: Flavour, script: &str) -> (Started, String) {
    let mut pod = hull.start(flavour, script);
    pod.await_output("ready\n");
    (pod, hull.pods().remove(0))
}

fn exec(hull: &Hull, id: &str, script: &str) -> Ended {
    hull.hull(&["exec", id, "/bin/sh", "-c", script])
}

pub(crate) fn a_stopped_pod_ends_in_order(flavour: Flavour) {
    let hull = Hull::new();
    let (pod, id) = running(&hull, flavour, WAITER);
    assert_eq!(hull.hull(&["stop", "--wait", &id[..8]]).success(), format!("{id:?}\n"));
    assert_eq!(hull.status("state").as_deref(), Some("exited"));
    let ended = pod.wait();
    assert_eq!((ended.code, ended.stdout().as_str()), (6, "stopped\n"));
    // Stopped is stopped, however often.
    assert_eq!(hull.hull(&["stop", &id]).success(), format!("{id:?}\n"));
    hull.hull(&["stop", "nothing"]).failure(&["nothing"]);
}

pub(crate) fn a_stubborn_pod_is_stopped_by_force(flavour: Flavour) {
    let hull = Hull::new();
    let stubborn = "trap '' TERM; echo ready; while :; do sleep 1000 & wait; done";
    let (pod, id) = running(&hull, flavour, stubborn);
    hull.hull(&["stop", "--force", "--wait", &id]).success();
    assert_eq!(pod.wait().code, 128 + 9);
    hull.collect().success();
    let (pod, id) = running(&hull, flavour, stubborn);
    hull.hull(&["stop", "--timeout=100ms", "--wait", &id]).success();
    assert_eq!(pod.wait().code, 128 + 9);
}

pub(crate) fn two_may_stop_a_pod_at_once(flavour: Flavour) {
    let hull = Hull::new();
    let (pod, id) = running(&hull, flavour, WAITER);
    let stops: Vec<_> = (0..4).map(|_| hull.spawn(&["stop", "--wait", &id])).collect();
    stops.into_iter().for_each(|stop| assert_eq!(stop.wait().success(), format!("{id:?}\n")));
    assert_eq!(pod.wait().code, 6);
}

pub(crate) fn a_command_joins_the_app(flavour: Flavour) {
    let hull = Hull::new();
    let (pod, id) = running(&hull, flavour, &format!("echo shared > /home/x; {WAITER}"));
    let ended = exec(&hull, &id, "cat /home/x; echo oops >&2; exit 7");
    assert_eq!((ended.code, ended.stdout().as_str(), ended.stderr().as_str()), (7, "shared\n", "oops\n"));
    assert_eq!(exec(&hull, &id, "kill -9 $$").code, 128 + 9);
    // Several windows long, both ways.
    let input: Vec<u8> = (0..1_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let ended = finish_with_input(hull.command(["exec", "-i", &id, "cat"]), input.clone());
    assert!(ended.code == 0 && ended.stdout == input, "{} bytes, {}", ended.stdout.len(), ended.stderr());
    assert_eq!(hull.hull(&["exec", &id, "cat"]).success(), "", "without -i there is no input");
    hull.hull(&["exec", &id, "/bin/nope"]).failure(&["/bin/nope", "not in the image"]);
    hull.hull(&["exec", "--app=other", &id, "true"]).failure(&["no app other", "busybox"]);
    hull.hull(&["stop", "--wait", &id]).success();
    assert_eq!(pod.wait().code, 6);
    hull.hull(&["exec", &id, "true"]).failure(&["not running"]);
}

/// What rkt never mended: who enters must not be better off than the app (CVE-2019-10144, 10145, 10147).
pub(crate) fn who_joins_an_app_is_no_better_off(flavour: Flavour) {
    let hull = Hull::new();
    let rights = "grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp|Seccomp_filters)' /proc/self/status; \
                  cat /proc/self/limits /proc/self/cgroup; \
                  for ns in cgroup ipc mnt net pid user uts; do readlink /proc/self/ns/$ns; done";
    let script = format!("({rights}) > /home/own; chmod 644 /home/own; {WAITER}");
    for user in ["0", "1000"] {
        let script = script.replace("/home/own", "/dev/shm/own");
        let image = hull_tests::Image::standard().reference();
        let user = format!("--user={user}");
        let args = ["run", flavour.option(), &user, &image, "--", "/bin/sh", "-c", &script];
        let mut pod = hull.spawn(&args);
        pod.await_output("ready\n");
        let id = hull.pods().remove(0);
        let own = exec(&hull, &id, "cat /dev/shm/own").success();
        assert!(own.contains("CapBnd") && own.contains("Max open files"), "{own}");
        assert_eq!(exec(&hull, &id, rights).success(), own);
        assert_eq!(finish(hull.command(["enter", &id, "/bin/sh", "-c", rights])).success(), own);
        hull.hull(&["stop", "--wait", &id]).success();
        pod.wait();
        hull.collect().success();
    }
}

pub(crate) fn a_command_ends_with_the_pod_and_with_its_caller(flavour: Flavour) {
    let hull = Hull::new();
    let (pod, id) = running(&hull, flavour, WAITER);
    let mut left = hull.spawn(&["exec", &id, "/bin/sh", "-c", "echo up; exec sleep 4711"]);
    left.await_output("up\n");
    drop(left); // Killed.
    let count = "ps | grep -c '[s]leep 4711'";
    until("the command went with its caller", || exec(&hull, &id, count).stdout() == "0\n");
    let mut joined = hull.spawn(&["exec", &id, "/bin/sh", "-c", "echo up; exec sleep 4712"]);
    joined.await_output("up\n");
    hull.hull(&["stop", "--wait", &id]).success();
    assert_eq!(joined.wait().code, 128 + 9);
    assert_eq!(pod.wait().code, 6);
}

pub(crate) fn a_shell_enters_with_a_terminal(flavour: Flavour) {
    let hull = Hull::new();
    let (pod, id) = running(&hull, flavour, WAITER);
    let script = "trap 'stty size; exit 8' WINCH; stty size; tty; echo in; while :; do sleep 0.1; done";
    let mut terminal = Terminal::run(hull.command(["enter", &id, "/bin/sh", "-c", script]), 31, 99);
    let screen = terminal.await_text("in\r\n");
    assert!(screen.starts_with("31 99\r\n/dev/pts/0\r\n"), "{screen}");
    terminal.resize(50, 132);
    let (rest, code) = terminal.finish();
    assert_eq!((rest.as_str(), code), ("50 132\r\n", Some(8)));
    let mut terminal = Terminal::run(hull.command(["enter", &id]), 24, 80);
    // Without bash in the image it is sh.
    terminal.keys("echo $((40+2)); exit 5\n");
    let (screen, code) = terminal.finish();
    assert!(screen.contains("42") && code == Some(5), "{screen} {code:?}");
    hull.hull(&["stop", "--wait", &id]).success();
    pod.wait();
}

pub(crate) fn a_pod_is_waited_for_as_long_as_asked(flavour: Flavour) {
    let hull = Hull::new();
    let (pod, id) = running(&hull, flavour, WAITER);
    let ready = hull.hull(&["status", "--wait-ready=1h", &id]).success();
    assert!(ready.contains("state=running\n"), "{ready}");
    hull.hull(&["status", "--wait=1ms", &id]).failure(&[&id, "not ended after 1ms"]);
    hull.hull(&["status", "--wait=soon", &id]).failure(&["--wait", "duration"]);
    let waits: Vec<_> =
        ["--wait", "--wait=-1s", "--wait=1h"].map(|wait| hull.spawn(&["status", wait, &id])).into();
    hull.hull(&["stop", &id]).success();
    for wait in waits {
        let status = wait.wait().success();
        assert!(status.contains("state=exited\n") && status.contains("=6\n"), "{status}");
    }
    assert_eq!(pod.wait().code, 6);
    hull.hull(&["status", "--wait", "--wait-ready=1ms", &id]).success();
}

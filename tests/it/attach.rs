//! Looking at the streams of an app, and typing to it.

use std::process::Stdio;

use hull_tests::hull::{finish, finish_with_input, until};
use hull_tests::terminal::Terminal;
use hull_tests::{Flavour, Hull, Image};

/// Starts a script by itself, with more options of the app.
fn detached(hull: &Hull, flavour: Flavour, options: &[&str], script: &str) -> String {
    let image = Image::standard().reference();
    let words = ["run", "--detach", flavour.option(), &image];
    let mut command = hull.command(words.iter().chain(options));
    command.args(["--", "/bin/sh", "-c", script]);
    finish(command).success().trim().to_owned()
}

pub(crate) fn a_stream_has_readers_and_writers(flavour: Flavour) {
    let hull = Hull::new();
    let script = "while read -r word; do echo out $word; echo err $word >&2; [ $word = end ] && exit 3; done";
    let id = detached(&hull, flavour, &["--stdin=stream", "--stdout=stream", "--stderr=null"], script);
    assert_eq!(hull.hull(&["attach", "--mode=list", &id]).success(), "stdin\nstdout\n");
    hull.hull(&["attach", "--mode=stderr", &id]).failure(&["no stderr", "stdin, stdout"]);
    hull.hull(&["attach", "--mode=tty", &id]).failure(&["no tty-in"]);
    hull.hull(&["attach", "--mode=some", &id]).failure(&["--mode", "tty-out"]);
    // Two watch; what a third writes reaches the app, and its leaving does not end the app's input.
    let mut viewers = [0, 1].map(|_| hull.spawn(&["attach", "--mode=stdout", &id]));
    let write = |text: &str| {
        finish_with_input(hull.command(["attach", "--mode=stdin,stdout", &id]), text.as_bytes().to_vec())
    };
    // Who is attached already is not to be seen from outside: the first words may come too early for the viewers.
    let mut seen = hull.command(["attach", "--mode=stdin", &id]);
    let mut writer = seen.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("hull starts");
    let mut stdin = writer.stdin.take().expect("piped");
    for viewer in &mut viewers {
        use std::io::Write;
        viewer.await_output_while("out again\n", || stdin.write_all(b"again\n").expect("hull reads"));
    }
    drop(stdin);
    let ended = write("end\n");
    assert_eq!(ended.code, 3, "{}", ended.stderr());
    assert!(ended.stdout().ends_with("out end\n"), "{}", ended.stdout());
    for viewer in viewers {
        let ended = viewer.wait();
        assert_eq!(ended.code, 3, "{}", ended.stderr());
        assert!(ended.stdout().ends_with("out end\n"), "{}", ended.stdout());
    }
    let _ = writer.wait(); // It ends with the app.
    hull.hull(&["attach", &id]).failure(&["not running"]);
    hull.hull(&["logs", &id]).failure(&["busybox"]);
}

pub(crate) fn a_slow_viewer_does_not_hold_the_app(flavour: Flavour) {
    let hull = Hull::new();
    let script = "read -r go; yes | head -c 3000000; echo done > /tmp/done; exec sleep 1000";
    let id = detached(&hull, flavour, &["--stdin=stream", "--stdout=stream"], script);
    let slow = hull.spawn(&["attach", "--mode=stdout", &id]);
    let go = finish_with_input(hull.command(["attach", "--mode=stdin", &id]), b"go\n".to_vec());
    drop(go);
    let is_done = || hull.hull(&["exec", &id, "cat", "/tmp/done"]).code == 0;
    until("the app has written all", is_done);
    drop(slow);
    hull.hull(&["stop", "--wait", "--force", &id]).success();
}

pub(crate) fn one_leaves_a_terminal_and_comes_back(flavour: Flavour) {
    let hull = Hull::new();
    let script =
        "stty -echo; tty; while read -r word; do echo said $word at $(stty size); done; echo bye; exit 4";
    let id = detached(&hull, flavour, &["--stdin=tty"], script);
    assert_eq!(hull.hull(&["attach", "--mode=list", &id]).success(), "tty-in\ntty-out\n");
    let attach = |rows| Terminal::run(hull.command(["attach", &id]), rows, 70);
    let mut first = attach(21);
    first.keys("one\r");
    first.await_text("said one at 21 70\r\n");
    first.keys("\x10\x11");
    assert_eq!(first.finish().1, Some(0));
    let mut second = attach(22);
    let mut watcher = hull.spawn(&["attach", "--mode=tty-out", &id]);
    second.keys("two\r");
    second.await_text("said two at 22 70\r\n");
    second.keys("three\r\x04");
    let (rest, code) = second.finish();
    assert!(rest.contains("said three") && rest.contains("bye"), "{rest}");
    assert_eq!(code, Some(4));
    watcher.await_output("bye\r\n");
    assert_eq!(watcher.wait().code, 4);
}

pub(crate) fn a_log_is_as_long_as_asked(flavour: Flavour) {
    let hull = Hull::new();
    let image = Image::standard().reference();
    let words = ["run", flavour.option(), "--log-size=64Ki", &image, "--", "/bin/seq", "50000"];
    finish(hull.command(words)).success();
    let id = hull.pods().remove(0);
    let logs = hull.dir().join("pods/run").join(&id).join("logs");
    let sizes =
        std::fs::read_dir(logs).expect("logs").map(|entry| entry.expect("a file").metadata().expect("it"));
    let sizes: Vec<u64> = sizes.map(|of| of.len()).collect();
    assert!(sizes.len() == 2 && sizes.iter().all(|size| *size <= 64 << 10), "{sizes:?}");
    assert!(hull.hull(&["logs", &id]).success().ends_with("49999\n50000\n"));
    hull.hull(&["run", "--log-size=1", &image]).failure(&["--log-size", "65536"]);
    // Where it goes is the app's choice, stream by stream.
    hull.collect().success();
    let words =
        ["run", flavour.option(), &image, "--stdout=null", "--", "/bin/sh", "-c", "echo out; echo err >&2"];
    let ended = finish(hull.command(words));
    assert_eq!((ended.stdout().as_str(), ended.stderr().as_str()), ("", "err\n"));
    let logged = hull.hull(&["logs", &hull.pods().remove(0)]);
    assert_eq!((logged.stdout().as_str(), logged.stderr().as_str()), ("", "err\n"));
    hull.hull(&["run", flavour.option(), &image, "--stdin=tty", "--stdout=log", "--exec=/bin/true"])
        .failure(&["terminal", "tty"]);
}

pub(crate) fn a_prepared_pod_is_started_with_another_name_and_ipc(flavour: Flavour) {
    let hull = Hull::new();
    let image = Image::standard().reference();
    let script = "hostname; readlink /proc/self/ns/ipc";
    let prepare = || {
        hull.hull(&["prepare", flavour.option(), &image, "--", "/bin/sh", "-c", script])
            .success()
            .trim()
            .to_owned()
    };
    let own = std::fs::read_link("/proc/self/ns/ipc").expect("proc(5)").display().to_string();
    let run = |options: &[&str]| {
        let id = prepare();
        let words = ["run-prepared"];
        finish(hull.command(words.iter().chain(options).chain(&[id.as_str()])))
    };
    if flavour == Flavour::Fly {
        run(&["--hostname=other"]).failure(&["--hostname", "fly"]);
        run(&["--ipc=private"]).failure(&["--ipc=private", "nspawn"]);
        assert!(run(&["--ipc=parent"]).success().ends_with(&format!("{own}\n")));
        return;
    }
    let said = run(&["--hostname=other", "--ipc=private"]).success();
    // Every kernel counts its own namespaces, and begins at the same number.
    let is_own = flavour == Flavour::Nspawn && said.contains(&own);
    assert!(said.starts_with("other\n") && !is_own, "{said}");
    match flavour {
        Flavour::Kvm => drop(run(&["--ipc=parent"]).failure(&["--ipc=parent", "--stage1=nspawn"])),
        _ => assert!(run(&["--ipc=parent"]).success().ends_with(&format!("{own}\n"))),
    }
}

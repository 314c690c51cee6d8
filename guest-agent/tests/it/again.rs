//! What follows the end of an app: its post-stop commands, and its next start.

use hull_agent_protocol::host::Event;
use hull_agent_protocol::message::AgentFault;
use hull_agent_protocol::{AppSpec, Outcome, Restart, StandardStreams, TerminalSize, ToAgent};

use crate::rig::{FLAVOURS, Image, Ran, Rig, app, pod, shell};

fn command(script: &str) -> Vec<String> {
    ["/bin/sh", "-c", script].map(String::from).to_vec()
}

fn with_post_stop(app: AppSpec, script: &str) -> AppSpec {
    AppSpec { post_stop: vec![command(script)], user: "web".into(), ..app }
}

fn run_everywhere(app: &AppSpec, check: impl Fn(&Ran, &str)) {
    let image = Image::new();
    for flavour in FLAVOURS {
        let ran = Rig::start(flavour, &image, pod(vec![app.clone()])).finish();
        assert!(ran.finished, "{flavour:?}: {ran:?}");
        check(&ran, &format!("{flavour:?}: {ran:?}"));
    }
}

#[test]
fn post_stop_commands_follow_an_app_however_it_ended() {
    let said = |app: AppSpec, want: &str| {
        // As root, in what the app has left behind.
        let app = with_post_stop(app, "echo $(id -u) $(cat /dev/shm/left 2>/dev/null)");
        run_everywhere(&app, |ran, all| assert!(ran.text(2).ends_with(want), "{all}"));
    };
    said(shell("echo mine > /dev/shm/left; exit 3"), "0 mine\n");
    said(shell("echo mine > /dev/shm/left; sleep 1000 & kill -9 $$"), "0 mine\n");
    // An app that could not even begin has left something too.
    let failing =
        AppSpec { pre_start: vec![command("echo early > /dev/shm/left; exit 1")], ..app(&["true"]) };
    said(failing, "0 early\n");
    said(app(&["/bin/nope"]), "0\n");
}

#[test]
fn a_post_stop_command_that_fails_is_told_and_changes_nothing() {
    let told = |script: &str, want: &str| {
        let app = with_post_stop(shell("exit 3"), script);
        run_everywhere(&app, |ran, all| {
            assert_eq!(ran.exited[&0], Outcome::Code(3), "{all}");
            assert!(matches!(&ran.warnings[..], [text] if text.contains(want)), "{all}");
        });
    };
    told("exit 7", "app app: run post-stop command \"/bin/sh\": it ended with code 7");
    told("kill -9 $$", "a signal ended it");
}

#[test]
fn a_post_stop_command_that_does_not_end_is_killed_after_the_grace() {
    let image = Image::new();
    for flavour in FLAVOURS {
        let app = with_post_stop(shell("echo up; sleep 1000"), "echo cleaning; sleep 1000");
        let mut rig = Rig::start(flavour, &image, pod(vec![app]));
        rig.wait_for(2, "up\n");
        rig.say(&ToAgent::Stop { signal: None, grace_ms: 300_000 });
        rig.wait_for(2, "cleaning\n");
        rig.say(&ToAgent::Stop { signal: None, grace_ms: 0 });
        let ran = rig.finish();
        assert_eq!(ran.exited[&0], Outcome::Signal(15), "{flavour:?}: {ran:?}");
        assert!(ran.warnings[0].contains("signal 9"), "{flavour:?}: {ran:?}");
    }
}

#[test]
fn an_app_that_is_started_again_keeps_its_root_and_its_streams() {
    let script = "echo x >> /tmp/starts; read -r word; echo $word $(wc -l < /tmp/starts); \
                  [ $(wc -l < /tmp/starts) = 3 ] || kill -9 $$";
    let app = AppSpec {
        restart: Restart::OnFailure { max: None },
        pre_start: vec![command("echo before")],
        post_stop: vec![command("echo after")],
        ..shell(script)
    };
    let image = Image::new();
    for flavour in FLAVOURS {
        let mut rig = Rig::start(flavour, &image, pod(vec![app.clone()]));
        rig.send(1, b"one\n");
        rig.wait_for(2, "after\n");
        rig.send(1, b"two\n");
        rig.wait_for(2, "after\n");
        rig.send(1, b"three\n");
        let ran = rig.finish();
        assert_eq!(ran.text(2).trim_start_matches("before\n"), "three 3\nafter\n", "{flavour:?}: {ran:?}");
        assert_eq!(ran.exited[&0], Outcome::Code(0), "{flavour:?}");
    }
}

#[test]
fn a_terminal_stays_the_same() {
    let streams = StandardStreams::Terminal { channel: 1, size: TerminalSize { rows: 24, columns: 80 } };
    let app = AppSpec {
        restart: Restart::OnFailure { max: Some(2) },
        post_stop: vec![command("tty")],
        streams,
        ..shell("tty; exit 1")
    };
    run_everywhere(&app, |ran, all| {
        assert_eq!(ran.text(1), "/dev/pts/0\r\n".repeat(6), "{all}");
        assert_eq!((ran.restarts.len(), ran.exited[&0]), (2, Outcome::Code(1)), "{all}");
    });
}

#[test]
fn an_app_is_started_again_as_often_as_its_policy_says() {
    let restarts = |restart, script: &str, want: &[Outcome], last| {
        let app = AppSpec { restart, ..shell(script) };
        run_everywhere(&app, |ran, all| {
            assert_eq!((&ran.restarts[..], ran.exited[&0]), (want, last), "{all}");
        });
    };
    let max = |max| Restart::OnFailure { max: Some(max) };
    restarts(max(2), "exit 5", &[Outcome::Code(5); 2], Outcome::Code(5));
    restarts(max(2), "exit 0", &[], Outcome::Code(0));
    restarts(Restart::Never, "exit 5", &[], Outcome::Code(5));
}

#[test]
fn an_app_that_is_always_started_again_ends_when_it_is_asked_to() {
    let image = Image::new();
    for flavour in FLAVOURS {
        let app = AppSpec { restart: Restart::Always, ..shell("exit 0") };
        let mut rig = Rig::start(flavour, &image, pod(vec![app]));
        let mut ends = 0;
        while ends < 2 {
            ends += usize::from(matches!(rig.next(), Some(Event::Restarting { .. })));
        }
        rig.say(&ToAgent::Stop { signal: None, grace_ms: 10_000 });
        let ran = rig.finish();
        assert_eq!(ran.exited.get(&0), Some(&Outcome::Code(0)), "{flavour:?}: {ran:?}");
    }
}

#[test]
fn an_app_that_cannot_start_is_not_started_again() {
    let app = AppSpec { restart: Restart::Always, ..app(&["/bin/nope"]) };
    run_everywhere(&app, |ran, all| {
        assert!(matches!(&ran.failed[..], [(Some(0), AgentFault::Pod, _)]), "{all}");
    });
}

#[test]
fn what_runs_before_the_app_may_say_a_lot() {
    // More than a pipe holds.
    let app = AppSpec { pre_start: vec![command("yes | head -c 300000")], ..app(&["true"]) };
    run_everywhere(&app, |ran, all| assert_eq!(ran.bytes(2).len(), 300_000, "{}", &all[..100]));
}

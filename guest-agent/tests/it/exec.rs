//! Processes that join an app.

use hull_agent_protocol::{Outcome, PROCESS_CHANNEL_FIRST, ToAgent};

use crate::rig::{FLAVOURS, Image, Rig, app, pod, shell};

/// Standard output of process `n`.
fn out(n: u32) -> u32 {
    PROCESS_CHANNEL_FIRST + 3 * n + 1
}

/// What must be the same in an app and in what joins it: ids, groups, every set of capabilities, filters, limits,
/// namespaces, cgroups and root.
const RIGHTS: &str = "grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp|Seccomp_filters|Umask)' /proc/self/status; \
                      cat /proc/self/limits /proc/self/cgroup /proc/self/oom_score_adj; \
                      for ns in cgroup ipc mnt net pid user uts; do readlink /proc/self/ns/$ns; done; stat -c '%d %i' /; cat /etc/passwd; ls /; pwd; env | grep -v SHLVL | sort";

#[test]
fn who_joins_an_app_has_its_rights_and_limits_and_no_more() {
    let image = Image::new();
    for flavour in FLAVOURS {
        for (user, nnp) in [("0", false), ("web", true)] {
            let mut spec = shell(&format!("{RIGHTS} | grep -v _=; echo end; read line"));
            spec.user = user.into();
            spec.no_new_privileges = nnp;
            let mut rig = Rig::start(flavour, &image, pod(vec![spec]));
            let own = rig.read_until(2, "end\n");
            rig.exec(0, &["/bin/sh", "-c", &format!("{RIGHTS} | grep -v _=; echo end")]);
            let joined = rig.read_until(out(0), "end\n");
            assert_eq!(joined, own, "{flavour:?} {user}");
            assert!(own.contains("CapEff") && own.contains("mnt:["), "{own}");
            assert_eq!(rig.wait_for_process(0), Outcome::Code(0), "{flavour:?} {user}");
            rig.send(1, b"\n");
            rig.finish();
        }
    }
}

#[test]
fn a_process_has_streams_and_an_end_of_its_own() {
    let image = Image::new();
    for flavour in FLAVOURS {
        let mut rig = Rig::start(flavour, &image, pod(vec![shell("echo ready; read line; exit 3")]));
        rig.wait_for(2, "ready");
        rig.exec(0, &["/bin/sh", "-c", "cat; echo err >&2; exit 7"]);
        rig.send(PROCESS_CHANNEL_FIRST, b"hello");
        rig.send(PROCESS_CHANNEL_FIRST, b"");
        rig.wait_for_both((out(0), "hello"), (out(0) + 1, "err"));
        assert_eq!(rig.wait_for_process(0), Outcome::Code(7), "{flavour:?}");
        rig.exec(1, &["/bin/sh", "-c", "kill -9 $$"]);
        assert_eq!(rig.wait_for_process(1), Outcome::Signal(9), "{flavour:?}");
        // What stays behind in the app does not hold the process.
        rig.exec(3, &["/bin/sh", "-c", "sleep 1000 & echo left"]);
        assert_eq!(rig.wait_for_process(3), Outcome::Code(0), "{flavour:?}");
        rig.exec(2, &["nope"]);
        let why = rig.wait_for_refusal();
        assert!(why.contains("\"nope\" is not in the image"), "{why}");
        rig.send(1, b"\n");
        assert_eq!(rig.finish().exited[&0], Outcome::Code(3));
    }
}

#[test]
fn a_process_goes_with_its_app_and_minds_signals() {
    let image = Image::new();
    for flavour in FLAVOURS {
        let mut rig = Rig::start(flavour, &image, pod(vec![shell("echo ready; read line")]));
        rig.wait_for(2, "ready");
        rig.exec(
            0,
            &["/bin/sh", "-c", "trap 'echo caught; exit 4' USR1; echo up; while :; do sleep 0.1; done"],
        );
        rig.wait_for(out(0), "up");
        rig.say(&ToAgent::SignalProcess { process: 0, signal: 10 });
        rig.wait_for(out(0), "caught");
        rig.exec(1, &["/bin/sh", "-c", "echo up; exec sleep 1000"]);
        rig.wait_for(out(1), "up");
        rig.send(1, b"\n");
        let ran = rig.finish();
        assert!(ran.finished && ran.exited[&0] == Outcome::Code(0), "{flavour:?}");
        assert_ne!(ran.processes.get(&1), Some(&Outcome::Code(0)));
    }
}

#[test]
fn an_app_that_has_ended_cannot_be_joined() {
    let image = Image::new();
    let other = hull_agent_protocol::AppSpec {
        name: "other".into(),
        streams: hull_agent_protocol::StandardStreams::Pipes { stdin: Some(4), stdout: 5, stderr: 6 },
        ..shell("echo ready; read line")
    };
    for flavour in [FLAVOURS[0], FLAVOURS[1]] {
        let mut rig = Rig::start(flavour, &image, pod(vec![app(&["/bin/true"]), other.clone()]));
        rig.wait_for_exit(0);
        rig.exec(0, &["/bin/true"]);
        assert_eq!(rig.wait_for_refusal(), "the app does not run");
        rig.send(4, b"\n");
        rig.finish();
    }
}

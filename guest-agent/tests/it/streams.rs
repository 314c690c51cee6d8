//! Bytes between the host and the app.

use hull_agent_protocol::TerminalSize;
use hull_agent_protocol::host::Event;
use hull_agent_protocol::window::WINDOW;
use hull_agent_protocol::{AppSpec, Outcome, StandardStreams, ToAgent};

use crate::rig::{FLAVOURS, Flavour, Image, Rig, app, pod, shell};

const SIZE: TerminalSize = TerminalSize { rows: 33, columns: 111 };

fn terminal(mut app: AppSpec) -> AppSpec {
    app.streams = StandardStreams::Terminal { channel: 1, size: SIZE };
    app
}

#[test]
fn every_byte_arrives_unmixed() {
    let image = Image::new();
    let script = "seq 200000; seq 100000 >&2";
    let lines = |n: u32| (1..=n).map(|n| format!("{n}\n")).collect::<String>();
    for flavour in FLAVOURS {
        let ran = Rig::start(flavour, &image, pod(vec![shell(script)])).finish();
        assert!(ran.text(2) == lines(200_000), "{flavour:?}: {} bytes", ran.bytes(2).len());
        assert!(ran.text(3) == lines(100_000), "{flavour:?}: {} bytes", ran.bytes(3).len());
        assert_eq!(ran.ended.len(), 2);
    }
}

#[test]
fn input_arrives_and_ends() {
    let image = Image::new();
    let bytes: Vec<u8> = (0..5_000_000u32).map(|n| (n % 251) as u8).collect();
    let mut rig = Rig::start(Flavour::Nspawn, &image, pod(vec![app(&["cat"])]));
    let (mut sent, mut got) = (0, vec![]);
    while got.len() < bytes.len() {
        let room = rig.host.input_allowed(1).min(16 << 10).min(bytes.len() - sent);
        if room > 0 {
            rig.send(1, &bytes[sent..sent + room]);
            sent += room;
            continue;
        }
        if let Event::Output { channel: 2, bytes } = rig.next().unwrap() {
            rig.taken(2, bytes.len());
            got.extend(bytes);
        }
    }
    rig.send(1, b"");
    assert!(got == bytes);
    assert_eq!(rig.finish().exited[&0], Outcome::Code(0));
}

#[test]
fn without_an_input_there_is_nothing_to_read() {
    let mut spec = shell("cat; echo end; readlink /proc/self/fd/0");
    spec.streams = StandardStreams::Pipes { stdin: None, stdout: 2, stderr: 3 };
    let ran = Rig::start(Flavour::Nspawn, &Image::new(), pod(vec![spec])).finish();
    assert_eq!(ran.text(2), "end\n/dev/null\n");
}

#[test]
fn an_app_that_reads_nothing_stops_only_its_input() {
    let image = Image::new();
    let mut rig =
        Rig::start(Flavour::Nspawn, &image, pod(vec![shell("echo one; read x < /dev/zero; echo $x")]));
    let mut rig_two =
        Rig::start(Flavour::Nspawn, &image, pod(vec![shell("exec 0<&-; echo closed; sleep 1000")]));
    // A whole window for an app that never reads it.
    rig.send(1, &vec![0; WINDOW as usize]);
    rig.wait_for(2, "one");
    rig.say(&ToAgent::Stop { signal: Some(9), grace_ms: 0 });
    assert_eq!(rig.finish().exited[&0], Outcome::Signal(9));
    // And for one that has closed it: the bytes are dropped, the credit comes back.
    rig_two.wait_for(2, "closed");
    rig_two.send(1, &vec![0; WINDOW as usize]);
    loop {
        if rig_two.next() == Some(Event::InputAllowed { channel: 1 }) {
            break;
        }
    }
    rig_two.say(&ToAgent::Stop { signal: Some(9), grace_ms: 0 });
    assert_eq!(rig_two.finish().exited[&0], Outcome::Signal(9));
}

#[test]
fn a_host_that_reads_nothing_stops_only_that_stream() {
    let image = Image::new();
    let mut rig =
        Rig::start(Flavour::Nspawn, &image, pod(vec![shell("yes & sleep 0.2; echo other >&2; wait")]));
    let mut unread = 0;
    loop {
        match rig.next().unwrap() {
            Event::Output { channel: 2, bytes } => unread += bytes.len(),
            Event::Output { channel: 3, .. } => break,
            _ => (),
        }
    }
    assert!(unread <= WINDOW as usize);
    rig.say(&ToAgent::Stop { signal: Some(9), grace_ms: 0 });
    // The rest of the window and of the pipe is drained before the end is told.
    rig.taken(2, unread);
    assert_eq!(rig.finish().exited[&0], Outcome::Signal(9));
}

#[test]
fn output_written_just_before_the_end_is_not_lost() {
    let image = Image::new();
    for _ in 0..20 {
        let ran = Rig::start(Flavour::Nspawn, &image, pod(vec![shell("echo -n last; kill -9 $$")])).finish();
        assert_eq!((ran.text(2).as_str(), ran.exited[&0]), ("last", Outcome::Signal(9)));
    }
}

#[test]
fn a_stream_that_another_app_holds_does_not_hold_the_pod() {
    // Apps of one pod and user see each other in procfs.
    let image = Image::new();
    let mut first = shell("echo $$ > /dev/shm/pid; touch /dev/shm/go; read end; exit 0");
    let mut thief = shell(
        "until [ -e /dev/shm/go ]; do :; done; exec 9> /proc/$(cat /dev/shm/pid)/fd/1; echo got >&9; echo ready; sleep 1000",
    );
    first.name = "first".into();
    thief.name = "thief".into();
    thief.streams = StandardStreams::Pipes { stdin: None, stdout: 5, stderr: 6 };
    let mut rig = Rig::start(Flavour::Nspawn, &image, pod(vec![first, thief]));
    rig.wait_for_both((2, "got"), (5, "ready"));
    rig.send(1, b"");
    loop {
        if let Event::Exited { app, outcome } = rig.next().expect("the pod goes on") {
            assert_eq!((app, outcome), (0, Outcome::Code(0)));
            break;
        }
    }
    rig.say(&ToAgent::Stop { signal: Some(9), grace_ms: 0 });
    assert_eq!(rig.finish().exited[&1], Outcome::Signal(9));
}

#[test]
fn a_terminal_is_a_terminal() {
    let image = Image::new();
    let script =
        "tty; stty size; echo $TERM; test -c /dev/console && echo console; [ -t 0 ] && [ -t 2 ] && echo yes";
    for flavour in FLAVOURS {
        let ran = Rig::start(flavour, &image, pod(vec![terminal(shell(script))])).finish();
        assert_eq!(ran.text(1), "/dev/pts/0\r\n33 111\r\nxterm\r\nconsole\r\nyes\r\n", "{flavour:?}");
        assert_eq!(ran.exited[&0], Outcome::Code(0), "{flavour:?}");
    }
}

#[test]
fn a_terminal_is_resized_and_interrupts() {
    let image = Image::new();
    let script = "trap 'stty size' WINCH; trap 'echo interrupted; exit 5' INT; echo ready; while :; do sleep 0.01; done";
    let mut rig = Rig::start(Flavour::Nspawn, &image, pod(vec![terminal(shell(script))]));
    rig.wait_for(1, "ready");
    rig.say(&ToAgent::Resize { channel: 1, size: TerminalSize { rows: 5, columns: 6 } });
    rig.wait_for(1, "5 6");
    rig.send(1, b"\x03");
    let ran = rig.finish();
    assert!(ran.text(1).contains("interrupted"), "{:?}", ran.text(1));
    assert_eq!(ran.exited[&0], Outcome::Code(5));
}

#[test]
fn the_end_of_a_terminals_input_is_what_a_user_types() {
    let image = Image::new();
    let mut rig = Rig::start(Flavour::Nspawn, &image, pod(vec![terminal(shell("cat; echo end"))]));
    rig.send(1, b"line\n");
    rig.wait_for(1, "line\r\nline\r\n");
    rig.send(1, b"");
    let ran = rig.finish();
    assert!(ran.text(1).ends_with("end\r\n"), "{:?}", ran.text(1));
}

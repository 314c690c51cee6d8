//! Pods with a terminal. The apps are scripts, not shells at a prompt: a line editor of its own would
//! stand between the keys and the terminal.

use hull_tests::terminal::Terminal;
use hull_tests::{Flavour, Hull, Image};

fn interactive(hull: &Hull, flavour: Flavour, size: (u16, u16), script: &str) -> Terminal {
    let reference = Image::standard().reference();
    let args = ["run", flavour.option(), "--interactive", &reference, "--", "/bin/sh", "-c", script];
    Terminal::run(hull.command(args), size.0, size.1)
}

pub(crate) fn a_terminal_is_a_terminal(flavour: Flavour) {
    let hull = Hull::new();
    let script = "trap 'echo interrupted' INT; stty size; tty; echo ready; cat; echo still here; exit 9";
    let mut terminal = interactive(&hull, flavour, (33, 101), script);
    let screen = terminal.await_text("ready\r\n");
    assert!(screen.starts_with("33 101\r\n/dev/pts/0\r\n"), "{screen}");
    // Once as the terminal's echo, once as the app's answer.
    terminal.keys("hello\n");
    terminal.await_text("hello\r\nhello\r\n");
    // Ctrl-C is the terminal's business: it interrupts the foreground program, not the pod.
    terminal.keys("\x03");
    let (rest, code) = terminal.finish();
    assert!(rest.contains("interrupted") && rest.contains("still here"), "{rest}");
    assert_eq!(code, Some(9), "{rest}");
}

pub(crate) fn a_terminal_follows_its_window(flavour: Flavour) {
    let hull = Hull::new();
    let script = "trap 'stty size; exit 0' WINCH; echo ready; while :; do sleep 1000 & wait; done";
    let mut terminal = interactive(&hull, flavour, (24, 80), script);
    terminal.await_text("ready\r\n");
    terminal.resize(50, 132);
    let (rest, code) = terminal.finish();
    assert_eq!((rest.as_str(), code), ("50 132\r\n", Some(0)));
}

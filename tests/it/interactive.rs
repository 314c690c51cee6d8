//! Pods with a terminal.

use hull_tests::terminal::Terminal;
use hull_tests::{Flavour, Hull, Image};

fn interactive(hull: &Hull, flavour: Flavour, rows: u16, columns: u16) -> Terminal {
    let reference = Image::standard().reference();
    let args = ["run", flavour.option(), "--interactive", &reference, "--", "/bin/sh"];
    Terminal::run(hull.command(args), rows, columns)
}

pub(crate) fn a_terminal_is_a_terminal(flavour: Flavour) {
    let hull = Hull::new();
    let mut terminal = interactive(&hull, flavour, 33, 101);
    // Split, so that the echo of the keys is not taken for the answer.
    terminal.keys("stty size; tty; echo rea''dy\n");
    let screen = terminal.await_text("ready\r\n");
    assert!(screen.contains("33 101"), "{screen}");
    assert!(screen.contains("/dev/pts/0"), "{screen}");
    // Ctrl-C is the terminal's business: it interrupts the foreground program, not the pod.
    terminal.keys("cat; echo sta''tus $?\n");
    terminal.keys("hello\n");
    terminal.await_text("hello\r\nhello\r\n");
    terminal.keys("\x03");
    terminal.keys("echo sti''ll here; exit 9\n");
    let (rest, code) = terminal.finish();
    assert!(rest.contains("still here"), "{rest}");
    assert_eq!(code, Some(9), "{rest}");
}

pub(crate) fn a_terminal_follows_its_window(flavour: Flavour) {
    let hull = Hull::new();
    let mut terminal = interactive(&hull, flavour, 24, 80);
    terminal.keys("trap 'stty size; echo resi''zed' WINCH; echo rea''dy\n");
    terminal.await_text("ready\r\n");
    terminal.resize(50, 132);
    terminal.keys("\n\n");
    let screen = terminal.await_text("resized\r\n");
    assert!(screen.contains("50 132"), "{screen}");
    terminal.keys("exit\n");
    assert_eq!(terminal.finish().1, Some(0));
}

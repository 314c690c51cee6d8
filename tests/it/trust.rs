//! `hull trust`: whose signatures count.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use hull_tests::Hull;
use hull_tests::signer::Signer;
use hull_tests::terminal::Terminal;

fn ann() -> Signer {
    Signer::new("Ann <ann@example.com>")
}

#[test]
fn a_trusted_key_is_a_file_where_rkt_had_it() {
    let (hull, ann) = (Hull::new(), ann());
    let fingerprint = ann.fingerprint().to_lowercase();
    let file = ann.key_file().display().to_string();
    let trust = |scope: &str| hull.hull(&["trust", scope, "--skip-fingerprint-review", &file]).success();
    let path = hull.settings().join("trustedkeys/prefix.d/example.com").join(&fingerprint);
    assert_eq!(
        trust("--prefix=example.com"),
        format!("Added key for prefix \"example.com\" at \"{}\"\n", path.display())
    );
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
    let path = hull.settings().join("trustedkeys/root.d").join(&fingerprint);
    assert_eq!(trust("--root"), format!("Added root key at \"{}\"\n", path.display()));
    assert!(path.exists());
}

#[test]
fn a_key_is_trusted_for_what_was_said_only() {
    let (hull, ann) = (Hull::new(), ann());
    let file = ann.key_file().display().to_string();
    let nothing = || assert!(!hull.settings().join("trustedkeys").exists());
    hull.hull(&["trust", &file]).failure(&["unbounded trust", "--prefix", "--root"]);
    hull.hull(&["trust", "--root", "--prefix=example.com", &file]).failure(&["--prefix"]);
    hull.hull(&["trust", "--root"]).failure(&["--root", "file or URL"]);
    hull.hull(&["trust", "--prefix=No Name", &file]).failure(&["No Name"]);
    hull.hull(&["trust", "--root", "/nowhere/key"]).failure(&["trust: ", "/nowhere/key"]);
    hull.hull(&["trust", "--root", "/bin/busybox"]).failure(&["/bin/busybox"]);
    // Nobody can be asked.
    hull.hull(&["trust", "--root", &file]).failure(&["no terminal", "--skip-fingerprint-review"]);
    nothing();
}

#[test]
fn whoever_sits_at_the_terminal_compares_the_fingerprint() {
    let (hull, ann) = (Hull::new(), ann());
    let file = ann.key_file().display().to_string();
    let ask = || Terminal::run(hull.command(["trust", "--root", &file]), 24, 200);
    let mut terminal = ask();
    let screen = terminal.await_text("(yes/no)?\r\n");
    let shown = screen.replace(' ', "");
    assert!(shown.contains(&ann.fingerprint()) && screen.contains("Ann <ann@example.com>"), "{screen}");
    terminal.keys("perhaps\n");
    terminal.await_text("(yes/no)?\r\n");
    terminal.keys("no\n");
    let (rest, code) = terminal.finish();
    assert_eq!((rest.contains("not trusting"), code), (true, Some(254)), "{rest}");
    assert!(!hull.settings().join("trustedkeys/root.d").exists());
    let mut terminal = ask();
    terminal.await_text("(yes/no)?\r\n");
    terminal.keys("yes\n");
    let (rest, code) = terminal.finish();
    assert_eq!((rest.contains("Added root key at"), code), (true, Some(0)), "{rest}");
}

//! What `hull-kvm walls` says of the jail on this host, as root and as nobody.
#![forbid(unsafe_code)]

use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn nothing_is_missing_to_root_and_named_to_others() {
    assert!(nix::unistd::geteuid().is_root(), "run the tests as root");
    let output = Command::new(env!("CARGO_BIN_EXE_hull-kvm")).arg("walls").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(text(&output), "");
    // By a process of its own: a child that another test forks now must not inherit a file that is still written.
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("hull-kvm");
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_hull-kvm")).arg(&program).status().unwrap();
    assert!(copied.success());
    std::os::unix::fs::chown(folder.path(), Some(65_534), Some(65_534)).unwrap();
    let output = Command::new(program).arg("walls").uid(65_534).gid(65_534).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    for wall in ["pid namespace", "user ids of its own"] {
        assert!(text(&output).contains(wall), "{output:?}");
    }
}

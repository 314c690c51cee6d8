//! A disk that is full, at every point.

use std::process::Command;

use hull_tests::hull::{Ended, finish};
use hull_tests::image::Builder;
use hull_tests::registry::Registry;
use hull_tests::{Hull, Image};

/// Mounts a small disk that only this script sees, lets the command fail on it, gives it space, and looks whether
/// all is well. Prints how the first try ended and what it said.
const SCRIPT: &str = r#"
limit=$1; shift
mount -t tmpfs -o "$limit" none "$HULL_DIR" || exit 100
"$@" >/dev/null 2>/tmp/hull-space.$$
first=$?
cat /tmp/hull-space.$$ >&2; rm /tmp/hull-space.$$
mount -o remount,size=64m,nr_inodes=10000 "$HULL_DIR" || exit 101
id=$("$@" 2>&1) || { echo "with space: $id"; exit 102; }
"$1" image verify $(echo "$id" | tail -1) >/dev/null || exit 103
"$1" image gc --grace-period=0s 2>/dev/null | grep -q temporary && exit 104
exit $first
"#;

/// Runs the script in a mount namespace of its own.
fn on_disk(limit: &str, command: &Command) -> Ended {
    let mut shell = Command::new("unshare");
    shell.args(["--mount", "sh", "-c", SCRIPT, "sh", limit]);
    shell.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    finish(shell)
}

/// Tries disks of ever more space until the command works. Returns how often it did not.
#[track_caller]
fn sweep(command: &Command, limits: impl Iterator<Item = String>) -> usize {
    let mut failed = 0;
    for limit in limits {
        let ended = on_disk(&limit, command);
        match ended.code {
            0 => return failed,
            254 => {
                let said = ended.stderr();
                assert!(said.contains("free some space"), "{limit}: {said}");
                failed += 1;
            }
            code => panic!("{limit}: {code}: {} {}", ended.stdout(), ended.stderr()),
        }
    }
    panic!("it never works");
}

fn sizes() -> impl Iterator<Item = String> {
    (1..80).map(|step| format!("size={}k", step * 128))
}

fn counts() -> impl Iterator<Item = String> {
    (2..60).map(|count| format!("nr_inodes={count}"))
}

#[test]
fn a_pull_on_a_full_disk_works_when_there_is_space() {
    let (registry, data) = (Registry::plain(), Hull::new());
    registry.push(&Image::standard(), "app:1");
    registry.allow(data.settings());
    let name = format!("docker://{}/app:1", registry.host());
    let command = registry.command(&data, &["fetch", "--full", &name]);
    assert!(sweep(&command, sizes()) >= 10);
    assert!(sweep(&command, counts()) >= 10);
}

#[test]
fn an_import_on_a_full_disk_works_when_there_is_space() {
    let data = Hull::new();
    for image in [Builder::standard().aci(), Builder::standard().docker_archive()] {
        let command = data.command(["fetch", "--full", "--insecure-options=image", &image.reference()]);
        assert!(sweep(&command, sizes()) >= 10);
        assert!(sweep(&command, counts()) >= 10);
    }
}

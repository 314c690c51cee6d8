//! Which processes there are, where no cgroup knows it.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::sys;

/// Names a mount namespace: every process of an app is in its own.
pub(crate) fn own_mount_namespace() -> std::io::Result<u64> {
    fs::metadata("/proc/self/ns/mnt").map(|namespace| namespace.ino())
}

/// The processes in a mount namespace.
pub(crate) fn in_mount_namespace(namespace: u64) -> impl Iterator<Item = i32> {
    // A process that ends while we look has no namespace; that is as good as not seeing it.
    all().filter(move |pid| {
        fs::metadata(format!("/proc/{pid}/ns/mnt")).is_ok_and(|found| found.ino() == namespace)
    })
}

/// Kills every process but this one.
pub(crate) fn kill_world() {
    // On a host this would be everybody.
    assert_eq!(std::process::id(), 1, "only PID 1 owns the world");
    let _ = sys::kill(-1, libc::SIGKILL); // There may be none.
}

/// The children of this process.
pub(crate) fn own_children() -> impl Iterator<Item = i32> {
    let own = std::process::id();
    all().filter(move |pid| {
        fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| parent(&stat) == Some(own))
    })
}

fn all() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The fourth field of `/proc/PID/stat` (proc(5)); the second may hold anything, in brackets.
fn parent(stat: &str) -> Option<u32> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_forge_the_parent() {
        assert_eq!(parent("7 (a) S 1 (b) S 42 7 7 0"), Some(42));
        assert_eq!(parent("7 (sh) S 1 7 7 0"), Some(1));
        assert_eq!(parent(""), None);
        assert_eq!(parent("7 (sh"), None);
    }

    #[test]
    fn this_process_is_in_its_own_namespace() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(in_mount_namespace(own_mount_namespace().unwrap()).any(|pid| pid == own));
        assert!(!own_children().any(|pid| pid == own));
    }
}

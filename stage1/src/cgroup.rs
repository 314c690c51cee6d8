//! The pod's cgroup: `hull/UUID` in the version 2 hierarchy, wherever this host has that.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use hull_errors::Doing;
use hull_mounts::table;
use hull_pod::dir::{self, SUBCGROUP};

use crate::{Error, Kind, Pod};

/// The controllers that a pod's limits will be written to. Others are left as the host has them.
const CONTROLLERS: [&str; 4] = ["cpu", "io", "memory", "pids"];

/// Makes the pod's cgroup. `None`: this host has no version 2 hierarchy that we may write to, and nothing
/// that the pod asks for needs one.
///
/// # Errors
/// The host's.
pub fn make(pod: &Pod) -> Result<Option<PathBuf>, Error> {
    let mounts = read("/proc/self/mountinfo")?;
    let Some(top) = find_mount(&mounts) else { return Ok(None) };
    let base = delegated(&top, &read("/proc/self/cgroup")?).unwrap_or(top);
    let path = base.join("hull").join(pod.contract.pod.as_str());
    // Recorded before it is made: whatever kills us in between, gc finds it.
    let text = path.as_os_str().as_bytes();
    dir::write(&pod.path, SUBCGROUP, text).doing(Kind::Host, || "record the pod's cgroup".into())?;
    match build(&base, &path) {
        Ok(()) => Ok(Some(path)),
        Err(why) if is_not_ours(&why) => Ok(None),
        Err(why) => Err(why).doing(Kind::Host, || format!("make cgroup {}", path.display())),
    }
}

fn read(path: &str) -> Result<String, Error> {
    fs::read_to_string(path).doing(Kind::Host, || format!("read {path}"))
}

fn build(base: &Path, path: &Path) -> io::Result<()> {
    let all = path.parent().expect("the path was made by joining");
    match fs::create_dir(all) {
        Err(why) if why.kind() != io::ErrorKind::AlreadyExists => return Err(why),
        _ => (),
    }
    hand_down(base);
    hand_down(all);
    fs::create_dir(path)
}

/// Lets the children of a cgroup have the controllers it has itself.
fn hand_down(cgroup: &Path) {
    let available = fs::read_to_string(cgroup.join("cgroup.controllers")).unwrap_or_default();
    for name in available.split_whitespace().filter(|name| CONTROLLERS.contains(name)) {
        // A controller that cannot be had is missed where a limit is written, not here.
        let _ = fs::write(cgroup.join("cgroup.subtree_control"), format!("+{name}"));
    }
}

fn is_not_ours(why: &io::Error) -> bool {
    matches!(why.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied)
}

/// Where cgroup version 2 is mounted, by `/proc/self/mountinfo` (proc(5)).
fn find_mount(mounts: &str) -> Option<PathBuf> {
    let all = table::below(mounts, Path::new("/"));
    all.into_iter().find(|mount| mount.kind == "cgroup2").map(|mount| mount.target)
}

/// Our own cgroup, if the host's manager said that it keeps its hands off what is below
/// (`Delegate=yes` of systemd.resource-control(5)).
fn delegated(top: &Path, own: &str) -> Option<PathBuf> {
    let path = own.lines().find_map(|line| line.strip_prefix("0::/")).filter(|path| !path.is_empty())?;
    let own = top.join(path);
    let is_one = |mark: &&str| {
        let mut value = [0; 2];
        rustix::fs::getxattr(&own, *mark, &mut value) == Ok(1) && value[0] == b'1'
    };
    ["trusted.delegate", "user.delegate"].iter().any(is_one).then_some(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
                          32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
                          41 31 0:38 / /sys/fs/cgroup/uni\\040fied rw shared:4 - cgroup2 cgroup2 rw\n";

    #[test]
    fn version_2_is_found_wherever_it_is() {
        let check =
            |mounts: &str, want: Option<&str>| assert_eq!(find_mount(mounts), want.map(PathBuf::from));
        check(HYBRID, Some("/sys/fs/cgroup/uni fied"));
        check("25 23 0:22 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n", Some("/sys/fs/cgroup"));
        check("25 23 0:22 / /cgroup2 rw - tmpfs cgroup2 rw\n", None);
        check("", None);
    }

    #[test]
    fn a_cgroup_that_nobody_delegated_is_not_used() {
        assert_eq!(delegated(Path::new("/sys/fs/cgroup"), "0::/\n"), None);
        assert_eq!(delegated(Path::new("/sys/fs/cgroup"), "0::/system.slice/x.service\n"), None);
        assert_eq!(delegated(Path::new("/sys/fs/cgroup"), "1:cpu:/a\n"), None);
    }
}

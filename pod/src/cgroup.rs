//! The end of a pod's cgroup (cgroup v2: kernel `Documentation/admin-guide/cgroup-v2.rst`).

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use hull_errors::Doing;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{Error, Kind};

/// How long the kernel may take to bury what was killed.
const BURIAL_MAX: Duration = Duration::from_secs(10);

/// Kills every process in the cgroup and below, then removes both. A cgroup that is gone is fine.
///
/// # Errors
/// The path is no cgroup of a pod, or processes outlive `SIGKILL` for ten seconds.
pub fn remove(cgroup: &Path) -> Result<(), Error> {
    let doing = || format!("remove cgroup {}", cgroup.display());
    // The record is a file in the pod directory; never let it name anything but a cgroup.
    match fs::metadata(cgroup.join("cgroup.procs")) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.doing(Kind::Host, doing)?,
    };
    let deadline = Instant::now() + BURIAL_MAX;
    loop {
        kill_all(cgroup);
        match remove_tree(cgroup) {
            Ok(()) => return Ok(()),
            Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(()),
            // The kernel says when the cgroup is empty by letting it be removed; there is nothing to
            // wait on that works on every kernel since 5.10.
            Err(why) if why.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(why) => return Err(why).doing(Kind::Host, doing),
        }
    }
}

fn kill_all(cgroup: &Path) {
    // Since Linux 5.14 the kernel kills the subtree at once; before, process by process until none is new.
    if fs::write(cgroup.join("cgroup.kill"), "1").is_ok() {
        return;
    }
    for procs in subtree(cgroup).iter().filter_map(|dir| fs::read_to_string(dir.join("cgroup.procs")).ok()) {
        for pid in procs.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL); // Gone already is as good.
        }
    }
}

fn remove_tree(cgroup: &Path) -> io::Result<()> {
    subtree(cgroup).iter().rev().try_for_each(fs::remove_dir)
}

/// The cgroup and its descendants, parents first.
fn subtree(cgroup: &Path) -> Vec<std::path::PathBuf> {
    let mut all = vec![cgroup.to_owned()];
    let mut next = 0;
    while let Some(dir) = all.get(next) {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let children: Vec<_> =
            entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect();
        all.extend(children);
        next += 1;
    }
    all
}

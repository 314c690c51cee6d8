//! Cgroups of version 2: one for each app, below the pod's (kernel
//! `Documentation/admin-guide/cgroup-v2.rst`).

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The agent's own place below the pod's cgroup: a cgroup that hands controllers down may hold no
/// process. No app is called so, app names have no dots.
const AGENT: &str = "hull.agent";

/// The pod's cgroup.
#[derive(Debug)]
pub(crate) struct PodCgroup(PathBuf);

/// The cgroup of one app.
#[derive(Debug)]
pub(crate) struct AppCgroup(PathBuf);

impl PodCgroup {
    /// The root of the machine's hierarchy, which may hold processes.
    pub(crate) fn of_machine(path: &Path) -> io::Result<Self> {
        let pod = Self(path.to_owned());
        pod.hand_down()?;
        Ok(pod)
    }

    /// A cgroup that was made for this pod, and that the agent is in.
    pub(crate) fn of_pod(path: &Path) -> io::Result<Self> {
        let pod = Self(path.to_owned());
        let agent = path.join(AGENT);
        fs::create_dir(&agent)?;
        fs::write(agent.join("cgroup.procs"), "0")?;
        pod.hand_down()?;
        Ok(pod)
    }

    fn hand_down(&self) -> io::Result<()> {
        let available = fs::read_to_string(self.0.join("cgroup.controllers"))?;
        let all = available.split_whitespace().map(|name| format!("+{name}")).collect::<Vec<_>>();
        if all.is_empty() {
            return Ok(());
        }
        fs::write(self.0.join("cgroup.subtree_control"), all.join(" "))
    }

    pub(crate) fn make(&self, app: &str) -> io::Result<AppCgroup> {
        let path = self.0.join(app);
        fs::create_dir(&path)?;
        Ok(AppCgroup(path))
    }
}

impl AppCgroup {
    /// Sets a limit.
    pub(crate) fn write(&self, file: &str, text: &str) -> io::Result<()> {
        // The kernel's files are there or not; none is ever made.
        fs::OpenOptions::new().write(true).open(self.0.join(file))?.write_all(text.as_bytes())
    }

    /// Moves this process in.
    pub(crate) fn join(&self) -> io::Result<()> {
        fs::write(self.0.join("cgroup.procs"), "0")
    }

    /// Kills every process in it and below, forks in flight included. Linux 5.14.
    pub(crate) fn kill(&self) -> io::Result<()> {
        fs::write(self.0.join("cgroup.kill"), "1")
    }
}

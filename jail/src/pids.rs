//! A pid namespace: a process is born into one, and stays.

use std::fs::File;
use std::process::{Child, Command};

use hull_errors::Doing;
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::getpid;

use crate::{Error, capabilities};

/// Starts a process as the only one of a pid namespace, where this user may make one: it can name no other. The
/// jail of one that was not so lucky lacks that wall. The caller must have one thread.
///
/// # Errors
/// The process could not be started.
pub fn spawn_alone(command: &mut Command) -> Result<Child, Error> {
    let doing = || format!("start {}", command.get_program().display());
    if !capabilities::powers()?.namespaces {
        let text = doing();
        return command.spawn().doing((), || text);
    }
    let ours = File::open("/proc/self/ns/pid").doing((), doing)?;
    unshare(CloneFlags::CLONE_NEWPID).doing((), || "make a pid namespace".into())?;
    let text = doing();
    let child = command.spawn().doing((), || text);
    // For children to come: a namespace whose first process has ended takes no others.
    setns(ours, CloneFlags::CLONE_NEWPID).doing((), || "go back to the own pid namespace".into())?;
    child
}

/// Whether this process is the first of a pid namespace.
pub(crate) fn is_first() -> bool {
    getpid().as_raw() == 1
}

//! Namespaces of the process's own: no mounts, networks, names, queues of the host.

use std::fs;

use hull_errors::Doing;
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

use crate::Error;
use crate::capabilities::Powers;

/// What the process has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Got {
    Own,
    /// Likewise, within a user namespace that has no ids but the user's.
    OfOwnUser,
    None,
}

/// No pid namespace: a process stays in the one it was born in, and the children it would be for are
/// forbidden anyhow.
const ALL: CloneFlags = CloneFlags::CLONE_NEWNS
    .union(CloneFlags::CLONE_NEWNET)
    .union(CloneFlags::CLONE_NEWIPC)
    .union(CloneFlags::CLONE_NEWUTS)
    .union(CloneFlags::CLONE_NEWCGROUP);

pub(crate) fn enter(powers: &Powers) -> Result<Got, Error> {
    let doing = || "enter namespaces of its own".to_owned();
    if powers.namespaces {
        unshare(ALL).doing((), doing)?;
        return Ok(Got::Own);
    }
    let (uid, gid) = (geteuid(), getegid());
    match unshare(CloneFlags::CLONE_NEWUSER | ALL) {
        Ok(()) => (),
        // Forbidden to this user, used up, or not in the kernel.
        Err(Errno::EPERM | Errno::ENOSPC | Errno::EUSERS | Errno::EINVAL) => return Ok(Got::None),
        Err(e) => return Err(Error::because((), doing(), e)),
    }
    let write = |name: &str, text: String| {
        fs::write(format!("/proc/self/{name}"), text)
            .doing((), || format!("write {name} of a user namespace"))
    };
    write("setgroups", "deny".into())?;
    write("uid_map", format!("{uid} {uid} 1"))?;
    write("gid_map", format!("{gid} {gid} 1"))?;
    Ok(Got::OfOwnUser)
}

//! `hull-virtiofs`: serves one tree of the host's files to one virtual machine, by vhost-user.
//!
//! `hull-kvm` starts one for each volume: whoever takes one over has that volume and no other. Standard input is a
//! socket to the supervisor, standard output the tree, a mount that is nowhere yet; no path is ever given. Once it is
//! in its jail the process sends one end of a socket to the supervisor, which hands it to the VMM; or it sends why
//! not. What serves is the crate `virtiofsd`.
#![forbid(unsafe_code)]

mod calls;
mod confinement;
mod handover;
mod root;

use std::io::{self, stdin, stdout};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use hull_errors::{Doing, chain};
use hull_mounts::Tree;
use vhost_user_backend::VhostUserDaemon;
use virtiofsd::passthrough::{CachePolicy, Config, PassthroughFs};
use virtiofsd::vhost_user::VhostUserFsBackendBuilder;
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};

use crate::root::Shape;

/// This crate's error: the text says which step failed.
type Error = hull_errors::Error<()>;

/// How long the guest believes what it was told of a file: others may change it.
const BELIEF: Duration = Duration::from_secs(1);

/// Descriptors that serving itself takes, with room to spare; the rest is for the guest's files.
const OWN_FILES: u64 = 64;

fn main() -> ExitCode {
    match stdin().as_fd().try_clone_to_owned() {
        Ok(supervisor) => serve(&supervisor).map_or_else(
            |why| {
                handover::refuse(&supervisor, &chain(&why));
                ExitCode::FAILURE
            },
            |()| ExitCode::SUCCESS,
        ),
        Err(_) => ExitCode::FAILURE,
    }
}

fn serve(supervisor: &OwnedFd) -> Result<(), Error> {
    let shape = match std::env::args().nth(1).as_deref() {
        Some("directory") => Shape::Directory,
        Some("file") => Shape::File,
        _ => return Err(Error::new((), "read the shape of the volume: hull-kvm starts this program")),
    };
    let tree = stdout().as_fd().try_clone_to_owned().doing((), || "take the volume".into())?;
    let confined = confinement::enter(Tree::from(tree), shape)?;
    let files = PassthroughFs::new(Config {
        entry_timeout: BELIEF,
        attr_timeout: BELIEF,
        cache_policy: CachePolicy::Auto,
        xattr: true,
        announce_submounts: true,
        readdirplus: true,
        proc_sfd_rawfd: Some(confined.own_files),
        guest_fd_limit: confined.files_max.saturating_sub(OWN_FILES),
        ..Config::default()
    });
    let files = files.doing((), || "look at the volume".into())?;
    let backend = VhostUserFsBackendBuilder::default().build(files).doing((), || "make the server".into())?;
    let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
    let daemon = VhostUserDaemon::new("files".into(), Arc::new(backend), memory);
    let mut daemon = daemon.map_err(|why| failed("start the server's threads", &why))?;
    let (ours, theirs) = handover::pair().doing((), || "make a socket".into())?;
    daemon.start(&mut ours.into()).map_err(|why| failed("take the socket", &why))?;
    // Every thread is there; none may do from now on what serving does not need.
    hull_jail::seal(&calls::serving()).doing((), || "seal the server's jail".into())?;
    handover::give(supervisor, &theirs).doing((), || "hand the socket over".into())?;
    drop(theirs);
    // However the VMM ends the conversation, it has ended.
    let _ = daemon.wait();
    Ok(())
}

fn failed(doing: &str, why: &dyn std::fmt::Debug) -> Error {
    Error::because((), doing, io::Error::other(format!("{why:?}")))
}

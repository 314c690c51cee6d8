//! What a process that serves a volume keeps of the world. `docs/threat-model.md` has it as a table.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use caps::{CapSet, Capability, CapsHashSet};
use hull_errors::Doing;
use hull_mounts::{Extent, Tree};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::{dup2_stdout, setsid};

use crate::Error;
use crate::root::{self, Shape};

/// What it takes to make files as any user of the guest would: within the volume, as there is nothing else.
const CAPABILITIES: [Capability; 8] = [
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FOWNER,
    Capability::CAP_FSETID,
    Capability::CAP_MKNOD,
    Capability::CAP_SETFCAP,
    Capability::CAP_SETGID,
    Capability::CAP_SETUID,
];

/// No pid namespace: a process stays in the one it was born in, and it can make no child.
const NAMESPACES: CloneFlags = CloneFlags::CLONE_NEWNS
    .union(CloneFlags::CLONE_NEWNET)
    .union(CloneFlags::CLONE_NEWIPC)
    .union(CloneFlags::CLONE_NEWUTS)
    .union(CloneFlags::CLONE_NEWCGROUP);

/// Most files that a guest may have in sight: each is a descriptor.
const FILES_MAX: u64 = 1 << 20;

/// What is left.
#[derive(Debug)]
pub(crate) struct Confined {
    /// The process's own descriptors, by their numbers: what `/proc/self/fd` was.
    pub(crate) own_files: File,
    /// How many there can be.
    pub(crate) files_max: u64,
}

/// Leaves everything behind but the volume. One thread.
pub(crate) fn enter(tree: Tree, shape: Shape) -> Result<Confined, Error> {
    let step = |what: &'static str| move || what.to_owned();
    // The terminal's signals are for the supervisor.
    setsid().doing((), step("leave the user's session"))?;
    prctl::set_no_new_privs().doing((), step("give up new privileges"))?;
    unshare(NAMESPACES).doing((), step("enter namespaces of its own"))?;
    let own_files = own_files().doing((), step("keep a way to its own descriptors"))?;
    root::enter(tree, shape)?;
    // Of the supervisor's only its socket is left, and where a panic is said.
    let null = null().doing((), step("let go of the volume's mount"))?;
    dup2_stdout(null).doing((), step("let go of the volume's mount"))?;
    keep_few_capabilities()?;
    let files_max = limit()?;
    prctl::set_dumpable(false).doing((), step("hide the process's memory"))?;
    prctl::set_pdeathsig(Signal::SIGKILL).doing((), step("tie the process to its supervisor"))?;
    Ok(Confined { own_files, files_max })
}

/// A mount of its own, and nowhere: no `..` leads from it to the rest of procfs.
fn own_files() -> io::Result<File> {
    let here = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open("/proc/self/fd")?;
    let tree = Tree::clone_of(here.as_fd(), Extent::One)?;
    Ok(File::from(OwnedFd::from(tree)))
}

/// There is no `/dev` any more: a pipe that nobody reads.
fn null() -> io::Result<OwnedFd> {
    let (_, writer) = std::io::pipe()?;
    Ok(writer.into())
}

fn keep_few_capabilities() -> Result<(), Error> {
    let keep: CapsHashSet = CAPABILITIES.into_iter().collect();
    let doing = || "give up all capabilities but few".to_owned();
    for capability in caps::all().into_iter().filter(|capability| !keep.contains(capability)) {
        // One that this kernel does not know is not there either.
        if caps::has_cap(None, CapSet::Bounding, capability).unwrap_or(false) {
            caps::drop(None, CapSet::Bounding, capability).doing((), doing)?;
        }
    }
    for set in [CapSet::Ambient, CapSet::Inheritable] {
        caps::clear(None, set).doing((), doing)?;
    }
    let has = caps::read(None, CapSet::Permitted).doing((), doing)?;
    let keep = has.intersection(&keep).copied().collect();
    caps::set(None, CapSet::Effective, &keep).doing((), doing)?;
    caps::set(None, CapSet::Permitted, &keep).doing((), doing)
}

/// As many files as the host lets us have, and nothing that a server does not need.
fn limit() -> Result<u64, Error> {
    let doing = || "limit what the server may use".to_owned();
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).doing((), doing)?;
    let files = hard.min(FILES_MAX);
    setrlimit(Resource::RLIMIT_NOFILE, files, files).doing((), doing)?;
    for resource in [Resource::RLIMIT_CORE, Resource::RLIMIT_MEMLOCK, Resource::RLIMIT_MSGQUEUE] {
        setrlimit(resource, 0, 0).doing((), doing)?;
    }
    Ok(files)
}

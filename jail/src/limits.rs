//! How much the process may use. Limits only ever go down.

use hull_errors::Doing;
use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};

use crate::Error;

/// What a jailed process may use at most; `u64::MAX` is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory of its own (`RLIMIT_DATA`).
    pub memory: u64,
    /// Longest file it may write.
    pub file_size: u64,
    /// One more than the highest number a file may have; those that are open stay.
    pub files: u64,
    /// Seconds of processor time.
    pub cpu_seconds: u64,
    /// Bytes of memory that stay in RAM, which io_uring's rings are counted as.
    pub locked_memory: u64,
}

impl Limits {
    pub(crate) fn set(&self) -> Result<(), Error> {
        let limits = [
            (Resource::RLIMIT_DATA, self.memory),
            (Resource::RLIMIT_FSIZE, self.file_size),
            (Resource::RLIMIT_NOFILE, self.files),
            (Resource::RLIMIT_CPU, self.cpu_seconds),
            (Resource::RLIMIT_CORE, 0),
            (Resource::RLIMIT_MEMLOCK, self.locked_memory),
            (Resource::RLIMIT_MSGQUEUE, 0),
        ];
        limits.into_iter().try_for_each(|(resource, most)| lower(resource, most))
    }
}

/// No further processes, and no further threads.
pub(crate) fn no_more_processes() -> Result<(), Error> {
    lower(Resource::RLIMIT_NPROC, 0)
}

/// No further files: those that are open stay.
pub(crate) fn no_more_files() -> Result<(), Error> {
    lower(Resource::RLIMIT_NOFILE, 0)
}

fn lower(resource: Resource, most: rlim_t) -> Result<(), Error> {
    let doing = || format!("limit {resource:?} to {most}");
    // Raising the hard limit back up to `most` would take a privilege.
    let (_, hard) = getrlimit(resource).doing((), doing)?;
    let most = most.min(hard);
    setrlimit(resource, most, most).doing((), doing)
}

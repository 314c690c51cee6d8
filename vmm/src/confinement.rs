//! What a machine's process keeps of the world. `docs/threat-model.md` has it as a table.
#![forbid(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use hull_errors::Doing;
use hull_jail::{Entered, Ids, Jail, Limits};

use crate::config::Asked;
use crate::error::{Error, Kind};

/// Memory beside the guest's: the program, stacks, and what devices hold.
const MEMORY_MAX: u64 = 64 << 20;
/// Memory of io_uring's rings, of which there is at least the undertaker's.
const RINGS_MAX: u64 = 1 << 20;
/// Files that a machine opens itself: the virtual machine, its vCPUs, its events. None of them later than at its
/// boot.
const OWN_FILES_MAX: u64 = 256;

/// Leaves everything behind but what the machine asks for and `others`, all of which must be open. The process must
/// have one thread.
///
/// # Errors
/// `Host`: a wall could not be built, and the process must end.
pub fn enter(asked: &Asked, others: &[BorrowedFd<'_>], ids: Ids) -> Result<Entered, Error> {
    let kept: Vec<RawFd> = asked.files().chain(others.iter().copied()).map(|fd| fd.as_raw_fd()).collect();
    let highest = kept.iter().max().map_or(0, |fd| u64::from(fd.unsigned_abs()));
    let ram = u64::from(asked.ram_mib) << 20;
    let limits = Limits {
        memory: ram + MEMORY_MAX,
        // RAM is a file where it is shared with servers of file systems.
        file_size: asked.longest_file().max(ram),
        files: highest + OWN_FILES_MAX,
        cpu_seconds: u64::MAX,
        locked_memory: RINGS_MAX,
    };
    let jail = Jail { kept, limits, ids, alone: true };
    jail.enter().doing(Kind::Host, || "enter the virtual machine's jail".to_owned())
}

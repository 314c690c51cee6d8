//! What a process that reads archives keeps of the world. `docs/threat-model.md` has it as a table.

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use hull_converter_protocol::{Kind, Request};
use hull_jail::Argument::{Has, Is, Lacks};
use hull_jail::{Calls, Entered, IdRange, Ids, Jail, Limits};

use crate::Error;
use crate::scratch;

/// Memory of its own that the process may use: of these it touches 64 MiB at most, whatever it reads.
const MEMORY_MAX: u64 = 128 << 20;

/// Processor time for one job: what the largest image takes if it is compressed by xz, several times over.
const CPU_SECONDS_MAX: u64 = 4 * 3600;

/// Above all that distributions and systemd hand out (its UIDS-GIDS.md: containers end at 0x6fffffff), one
/// for each process number there can be.
const IDS: IdRange = IdRange { first: 0x7000_0000, count: 1 << 22 };

/// Leaves everything behind but `kept`.
///
/// # Errors
/// [`Kind::Host`]: a wall could not be built, and the process must not go on.
pub fn enter(kept: &[BorrowedFd<'_>]) -> Result<Entered, Error> {
    let kept: Vec<RawFd> = kept.iter().map(AsRawFd::as_raw_fd).collect();
    let files = kept.iter().max().map_or(0, |highest| highest.unsigned_abs() + 1);
    let limits = Limits {
        memory: MEMORY_MAX,
        file_size: scratch::END,
        files: files.into(),
        cpu_seconds: CPU_SECONDS_MAX,
        locked_memory: 0,
    };
    Jail { kept, limits, ids: Ids::OfProcess(IDS), alone: false }
        .enter()
        .map_err(|e| Error::because(Kind::Host, "enter its jail", e))
}

/// The system calls of one job, whose answer goes to `socket`.
pub fn calls(request: &Request, socket: BorrowedFd<'_>, files: &[BorrowedFd<'_>]) -> Calls {
    let number = |fd: &BorrowedFd<'_>| fd.as_raw_fd().unsigned_abs();
    let calls = in_memory()
        .allow(&[libc::SYS_pread64])
        // Without an address: a socket that is connected sends to its other end only.
        .allow_if(libc::SYS_sendto, &[Is(0, number(&socket)), Lacks(4, u64::MAX)])
        .allow_if(libc::SYS_shutdown, &[Is(0, number(&socket))])
        // What a panic says.
        .allow_if(libc::SYS_write, &[Is(0, 2)]);
    let Some(last) = files.last().map(number) else { return calls };
    match request {
        Request::Convert { .. } => {
            let punch = (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE).unsigned_abs();
            calls
                .allow_if(libc::SYS_pwrite64, &[Is(0, last)])
                .allow_if(libc::SYS_ftruncate, &[Is(0, last)])
                .allow_if(libc::SYS_fallocate, &[Is(0, last), Is(1, punch)])
        }
        Request::Uncompress { .. } => calls.allow_if(libc::SYS_write, &[Is(0, last)]),
        Request::List { .. } => calls.allow_if(libc::SYS_statx, &[Is(0, last)]),
        Request::Look { .. } | Request::Manifest { .. } | Request::Describe => calls,
    }
}

/// What touches nothing but the process itself.
fn in_memory() -> Calls {
    let executable = libc::PROT_EXEC.unsigned_abs().into();
    let anonymous = libc::MAP_ANONYMOUS.unsigned_abs().into();
    Calls::new()
        .allow(&[
            libc::SYS_brk,
            libc::SYS_clock_gettime,
            libc::SYS_close,
            libc::SYS_exit,
            libc::SYS_exit_group,
            libc::SYS_futex,
            libc::SYS_getrandom,
            libc::SYS_madvise,
            libc::SYS_mremap,
            libc::SYS_munmap,
            libc::SYS_rt_sigprocmask,
            libc::SYS_rt_sigreturn,
            libc::SYS_sched_yield,
            libc::SYS_sigaltstack,
        ])
        // What the standard library asks before it closes, in builds with debug assertions.
        .allow_if(libc::SYS_fcntl, &[Is(1, libc::F_GETFD.unsigned_abs())])
        .allow_if(libc::SYS_mmap, &[Lacks(2, executable), Has(3, anonymous)])
        .allow_if(libc::SYS_mprotect, &[Lacks(2, executable)])
}

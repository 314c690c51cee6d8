//! How a process gives up everything that its work does not need, for good.
//!
//! The order is in the types, and each step consumes the one before:
//!
//! ```text
//! Jail      says what is kept: descriptors, limits, ids
//!   enter   -> no other descriptors, own namespaces, an empty read-only root, own ids, no capabilities,
//!              no way to new privileges, Landlock without a single rule. One thread.
//! Entered   the process may still start the threads that its work wants
//!   seal    -> no further processes and threads, and of system calls only those of a list; any other kills
//! Sealed    now bytes of strangers may be read
//! ```
//!
//! Where each thread has a list of its own, it shuts its [`Door`] behind itself, and the last one seals:
//! [`Entered::seal_last`].
//!
//! A step that fails is an error, never a jail that is weaker than asked for. What a kernel does not have at
//! all (Landlock) or does not grant to this user (namespaces) is in [`Sealed::missing`].
#![forbid(unsafe_code)]

mod calls;
mod capabilities;
mod descriptors;
mod ids;
mod limits;
mod namespaces;
mod paths;
mod pids;
mod root;

use std::fmt;
use std::os::fd::RawFd;

use hull_errors::Doing;
use nix::sys::prctl;
use nix::sys::signal::Signal;

pub use calls::{Argument, Calls, Filter};
pub use ids::{IdRange, Ids};
pub use limits::Limits;
pub use pids::spawn_alone;

/// Every failure of this crate: the text says which wall could not be built.
pub type Error = hull_errors::Error<()>;

/// A wall that this host does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The kernel has no Landlock, or an old one.
    Landlock,
    /// Namespaces and an empty root: the user may make none, not even of the user's own.
    Namespaces,
    /// Ids of its own: the user may not take any.
    OwnIds,
    /// A pid namespace: the user may make none.
    PidNamespace,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Missing::Landlock => "Landlock: the kernel does not have all of it",
            Missing::Namespaces => "namespaces and an empty root: this user may not make any",
            Missing::OwnIds => "user ids of its own: this user may not take any",
            Missing::PidNamespace => "a pid namespace: this user may not make any",
        })
    }
}

/// A jail to be entered.
#[derive(Debug)]
pub struct Jail {
    /// The descriptors that stay; all others are closed, whoever owns them.
    pub kept: Vec<RawFd>,
    pub limits: Limits,
    /// What a process that may choose its ids takes.
    pub ids: Ids,
    /// Whether the process is to be the only one that it can name. Only [`spawn_alone`] can see to that.
    pub alone: bool,
}

/// A process in its jail, with every system call still there.
#[derive(Debug)]
pub struct Entered {
    missing: Vec<Missing>,
}

/// The way of one thread of a process in its jail to its list of system calls.
#[derive(Clone, Copy, Debug)]
pub struct Door(());

/// A process that can only do its work.
#[derive(Debug)]
pub struct Sealed {
    missing: Vec<Missing>,
}

impl Jail {
    /// Goes in. The process must have one thread, and loses every file it has not named.
    ///
    /// # Errors
    /// The first wall that could not be built. The process must end then: it is half inside.
    pub fn enter(self) -> Result<Entered, Error> {
        require_one_thread()?;
        let mut missing = Vec::new();
        if self.alone && !pids::is_first() {
            missing.push(Missing::PidNamespace);
        }
        prctl::set_no_new_privs().doing((), || "give up new privileges".into())?;
        descriptors::close_all_but(&self.kept)?;
        let powers = capabilities::powers()?;
        let namespaces = namespaces::enter(&powers)?;
        match namespaces {
            namespaces::Got::None => missing.push(Missing::Namespaces),
            namespaces::Got::Own | namespaces::Got::OfOwnUser => root::empty()?,
        }
        capabilities::shrink_bounds()?;
        // In a namespace of its own user there are no ids to choose from.
        let may_choose = powers.ids && namespaces != namespaces::Got::OfOwnUser;
        if !may_choose || !self.ids.take()? {
            missing.push(Missing::OwnIds);
        }
        capabilities::drop_all()?;
        // Last, as a change of ids undoes both.
        prctl::set_dumpable(false).doing((), || "hide the process's memory".into())?;
        prctl::set_pdeathsig(Signal::SIGKILL).doing((), || "tie the process to its parent".into())?;
        if !paths::forbid_all()? {
            missing.push(Missing::Landlock);
        }
        // After all that opens a file of its own.
        self.limits.set()?;
        Ok(Entered { missing })
    }
}

impl Entered {
    /// What this host could not give.
    pub fn missing(&self) -> &[Missing] {
        &self.missing
    }

    /// Shuts the door behind all threads.
    ///
    /// # Errors
    /// Whatever the kernel refuses; the process must end then.
    pub fn seal(self, calls: &Calls) -> Result<Sealed, Error> {
        let filter = calls.compile()?;
        limits::no_more_processes()?;
        filter.shut_for_all_threads()?;
        Ok(Sealed { missing: self.missing })
    }

    /// For a thread with a list of its own.
    pub fn door(&self) -> Door {
        Door(())
    }

    /// Shuts the door behind the calling thread, which must be the last one without a list, and takes away
    /// further files, processes and threads.
    ///
    /// # Errors
    /// Whatever the kernel refuses; the process must end then.
    pub fn seal_last(self, filter: &Filter) -> Result<Sealed, Error> {
        limits::no_more_processes()?;
        limits::no_more_files()?;
        filter.shut_for_this_thread()?;
        Ok(Sealed { missing: self.missing })
    }
}

impl Door {
    /// Leaves the calling thread what is on its list.
    ///
    /// # Errors
    /// Whatever the kernel refuses; the process must end then.
    pub fn shut(self, filter: &Filter) -> Result<(), Error> {
        filter.shut_for_this_thread()
    }
}

impl Sealed {
    /// What this host could not give.
    pub fn missing(&self) -> &[Missing] {
        &self.missing
    }
}

/// Shuts the door behind all threads of a process that has built its other walls itself, because its work needs some
/// of what [`Jail`] gives up.
///
/// # Errors
/// Whatever the kernel refuses; the process must end then.
pub fn seal(calls: &Calls) -> Result<(), Error> {
    calls.compile()?.shut_for_all_threads()
}

/// Namespaces, ids, capabilities and Landlock belong to threads, not to processes.
fn require_one_thread() -> Result<(), Error> {
    let doing = || "count the threads of the process".to_owned();
    let count = std::fs::read_dir("/proc/self/task").doing((), doing)?.count();
    match count {
        1 => Ok(()),
        _ => Err(Error::new((), format!("enter a jail: the process has {count} threads, not one"))),
    }
}

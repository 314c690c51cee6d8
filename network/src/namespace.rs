//! Network namespaces without a name.

use std::fs::File;

use hull_errors::Doing;
use nix::sched::{CloneFlags, setns, unshare};

use crate::{Error, Kind};

/// A network namespace; it lives as long as a process in it, an interface's other end does not count.
#[derive(Debug)]
pub struct Namespace(File);

impl Namespace {
    /// That of the calling thread.
    fn current() -> Result<Self, Error> {
        let file = File::open("/proc/thread-self/ns/net");
        Ok(Self(file.doing(Kind::Host, || "open this thread's network namespace".into())?))
    }

    /// Makes one, in which nothing is.
    pub(crate) fn make() -> Result<Self, Error> {
        let here = Self::current()?;
        unshare(CloneFlags::CLONE_NEWNET).doing(Kind::Host, || "make a network namespace".into())?;
        let made = Self::current();
        here.enter()?;
        made
    }

    /// Moves the calling thread into it.
    ///
    /// # Errors
    /// The host's.
    pub fn enter(&self) -> Result<(), Error> {
        setns(&self.0, CloneFlags::CLONE_NEWNET).doing(Kind::Host, || "enter a network namespace".into())
    }

    /// Does something in it, and comes back.
    ///
    /// # Errors
    /// The host's.
    pub fn inside<T>(&self, work: impl FnOnce() -> T) -> Result<T, Error> {
        let here = Self::current()?;
        self.enter()?;
        let done = work();
        // Who does not come back would go on in the pod's network, as the host.
        here.enter()?;
        Ok(done)
    }

    pub(crate) fn file(&self) -> &File {
        &self.0
    }
}

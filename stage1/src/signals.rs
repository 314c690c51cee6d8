//! The signals that a stage1 takes for its pod, as a descriptor.

use std::os::fd::{AsFd, BorrowedFd};

use hull_errors::Doing;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::{Error, Kind};

/// Signals that mean the pod rather than stage1. What is not here keeps its default action.
const TAKEN: [Signal; 8] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGWINCH,
];

/// Blocked in every thread, read here.
#[derive(Debug)]
pub struct Signals(SignalFd);

impl Signals {
    /// Blocks the signals. Call it before the first thread is made: threads inherit the mask.
    ///
    /// # Errors
    /// The host's.
    pub fn take() -> Result<Self, Error> {
        let set: SigSet = TAKEN.into_iter().collect();
        set.thread_block().doing(Kind::Host, || "block signals".into())?;
        let fd = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .doing(Kind::Host, || "make a signalfd".into())?;
        Ok(Self(fd))
    }

    /// The next signal that arrived, if any.
    pub fn next(&self) -> Option<Signal> {
        let info = self.0.read_signal().ok().flatten()?;
        i32::try_from(info.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok())
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

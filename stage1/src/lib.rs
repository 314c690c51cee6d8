//! What every stage1 shares. A stage1 provides a machine for a pod; this crate stands between the user
//! and the agent in that machine: it takes over the pod from stage0 ([`pod`]), relays the standard
//! streams and the signals ([`session`]) and writes down how the pod goes ([`record`]).

pub mod cgroup;
mod control;
mod log;
mod network;
mod notify;
mod output;
pub mod pod;
mod record;
pub mod session;
pub mod signals;
mod signer;
mod sys;
pub mod terminal;
pub mod volumes;

pub use network::{Networks, connect};
pub use pod::Pod;
pub use session::{End, Session};
pub use signals::Signals;

/// What callers branch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// stage0 and stage1 do not agree on how a pod is handed over.
    Contract,
    /// The host refused: a system call failed.
    Host,
}

/// This crate's error.
pub type Error = hull_errors::Error<Kind>;

/// Ends a stage1: says on standard error why the pod failed, if it did, and gives the exit code.
pub fn conclude(verdict: &hull_pod::Verdict) -> std::process::ExitCode {
    if let hull_pod::Verdict::Failed(why) = verdict {
        eprintln!("run: {why}");
    }
    std::process::ExitCode::from(verdict.exit_code())
}

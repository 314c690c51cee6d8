//! What a pod is, where it lies, and how it ended.
//!
//! stage0 writes pods, every stage1 runs them, and the two meet only here: in the pod directory
//! ([`dir`]), its manifest ([`manifest`]), the contract ([`contract`]) and the verdict ([`verdict`]).
//! Images are known by their id alone. Nothing here mounts a file system, and what programs undo of a
//! pod's networks is `hull-network`'s to start.
#![forbid(unsafe_code)]

pub mod cgroup;
pub mod contract;
pub mod control;
pub mod dir;
pub mod export;
pub mod id;
mod isolators;
pub mod log;
pub mod manifest;
pub mod pods;
mod seccomp;
pub mod size;
pub mod streams;
pub mod verdict;
pub mod volumes;
pub mod wire;

pub use contract::{Contract, Flavour, Waived};
pub use dir::{PodDir, Prepared, Preparing, Running};
pub use id::{AppName, PodId};
pub use manifest::Manifest;
pub use pods::{Found, Pods, State};
pub use verdict::{AppStatus, Status, Verdict};

/// What callers branch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The text is no pod id, app name or prefix of exactly one pod.
    BadName,
    /// No such pod.
    Missing,
    /// Another process holds the pod's lock.
    Locked,
    /// The pod is not in a state that allows what was asked.
    WrongState,
    /// A file of the pod directory does not say what this version of hull understands.
    BadFile,
    /// The host refused: a system call failed.
    Host,
}

/// This crate's error.
pub type Error = hull_errors::Error<Kind>;

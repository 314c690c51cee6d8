//! What callers of this crate branch on.

/// The crate's error: [`Kind`] for code, text for people, the cause as its source.
pub type Error = hull_errors::Error<Kind>;

/// Whose fault it is, and so what would help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// There is no `/dev/kvm`.
    NoKvm,
    /// `/dev/kvm` exists, but this user may not open it.
    NotPermitted,
    /// KVM lacks something that every guest needs.
    UnfitKvm,
    /// The kernel file cannot be booted.
    BadKernel,
    /// The configuration contradicts itself or a limit.
    Config,
    /// The host refused a system call: memory, descriptors, threads.
    Host,
}

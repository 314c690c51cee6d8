//! A file becomes KVM.
#![expect(unsafe_code, reason = "kvm-ioctls 0.25 takes an open file only as a bare number")]

use std::fs::File;
use std::os::fd::{FromRawFd, IntoRawFd};

use kvm_ioctls::Kvm;

/// Takes `file` for KVM. One that is something else fails at the first question.
pub(crate) fn kvm(file: File) -> Kvm {
    let number = file.into_raw_fd();
    // SAFETY: the descriptor is open and nothing else owns it: its owner has just given it away.
    unsafe { Kvm::from_raw_fd(number) }
}

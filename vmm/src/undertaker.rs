//! Keeps the end of the VM off the user's path.
//!
//! Whoever drops the last reference to a VM takes it apart, and waits for all RCU callbacks in it
//! (`rcu_barrier` in `kvm_mmu_uninit_tdp_mmu`, arch/x86/kvm/mmu/tdp_mmu.c): some 10 ms, in which the process that has done
//! its work cannot end. An io_uring instance holds the files that are registered with it, and is itself
//! taken apart by a worker of the kernel (`io_ring_ctx_wait_and_kill` in io_uring/io_uring.c). So the last
//! reference is given to one that is never used for I/O.
#![forbid(unsafe_code)]

use std::os::fd::{AsRawFd, RawFd};

use io_uring::IoUring;
use kvm_ioctls::{VcpuFd, VmFd};

/// Holds a VM until after the process. Keep it as long as the machine.
pub(crate) struct Undertaker(#[expect(dead_code, reason = "held, never used")] Option<IoUring>);

impl Undertaker {
    /// Takes a reference to the VM and to its vCPUs, each of which holds the VM. Without io_uring on this host
    /// the process ends some milliseconds later, and that is all.
    pub(crate) fn engage(vm: &VmFd, vcpus: &[VcpuFd]) -> Self {
        let files: Vec<RawFd> = vcpus.iter().map(AsRawFd::as_raw_fd).chain([vm.as_raw_fd()]).collect();
        let ring = IoUring::new(1).ok();
        Self(ring.filter(|ring| ring.submitter().register_files(&files).is_ok()))
    }
}

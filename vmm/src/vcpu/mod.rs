//! vCPUs: what they are told at the start, and the loop that runs them.
#![forbid(unsafe_code)]

pub(crate) mod cpuid;
pub(crate) mod regs;
pub(crate) mod run;

use hull_errors::Doing;
use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES};
use kvm_ioctls::{Cap, Kvm, VcpuFd};

use crate::error::{Error, Kind};

/// What KVM supports on this host.
pub(crate) struct HostCpuid {
    supported: CpuId,
    tsc_deadline: bool,
}

impl HostCpuid {
    pub(crate) fn new(kvm: &Kvm) -> Result<Self, Error> {
        let supported = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .doing(Kind::UnfitKvm, || "ask KVM what CPUs it supports".to_owned())?;
        Ok(Self { supported, tsc_deadline: kvm.check_extension(Cap::TscDeadlineTimer) })
    }

    /// Gives vCPU `id` of `count` its CPUID.
    pub(crate) fn apply(&self, vcpu: &VcpuFd, id: u8, count: u8) -> Result<(), Error> {
        let doing = || format!("set the CPUID of vCPU {id}");
        let which = cpuid::Vcpu { id, count, tsc_deadline: self.tsc_deadline };
        let entries = cpuid::tailor(self.supported.as_slice(), which);
        let cpuid = CpuId::from_entries(&entries).doing(Kind::Host, doing)?;
        vcpu.set_cpuid2(&cpuid).doing(Kind::Host, doing)
    }
}

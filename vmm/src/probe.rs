//! Whether this host can run guests at all, found out before anything is built.
#![forbid(unsafe_code)]

use std::fs::File;

use hull_errors::Doing;
use kvm_bindings::kvm_regs;
use kvm_ioctls::{Cap, Kvm, VcpuExit};
use vm_memory::{Bytes, GuestAddress};

use crate::assembly::create_vm;
use crate::error::{Error, Kind};
use crate::host::HostFiles;
use crate::layout::Region;
use crate::memory::GuestRam;
use crate::sys;

/// The only version there is, Documentation/virt/kvm/api.rst.
const API_VERSION: i32 = 12;

/// What every machine needs of KVM.
const NEEDED: [(Cap, &str); 7] = [
    (Cap::UserMemory, "user memory"),
    (Cap::ReadonlyMem, "read-only memory"),
    (Cap::SplitIrqchip, "a split interrupt controller"),
    (Cap::SignalMsi, "message signalled interrupts"),
    (Cap::ExtCpuid, "CPUID of the guest's own"),
    (Cap::SetTssAddr, "a TSS address"),
    (Cap::SetIdentityMapAddr, "an identity map address"),
];

/// The probe guest: `popcnt eax, eax; mov al, 1; out 0x10, al` in real mode. Hardware counts bits; a KVM
/// that only interprets privileged code, for guests made for it, does not know how.
const CODE: [u8; 9] = [0x66, 0xf3, 0x0f, 0xb8, 0xc0, 0xb0, 0x01, 0xe6, 0x10];
const CODE_AT: u64 = 0x1000;
const PORT: u16 = 0x10;
const ANSWER: u8 = 1;

/// Says whether ordinary guests can run here: opens `/dev/kvm`, asks for its abilities, and runs a few
/// instructions as a guest. Takes about a millisecond.
///
/// # Errors
/// `NoKvm`, `NotPermitted` or `UnfitKvm`, with what would help.
pub fn probe() -> Result<(), Error> {
    let kvm = check(HostFiles::open()?.kvm)?;
    let doing = || "run a probe guest".to_owned();
    let vm = create_vm(&kvm)?;
    let ram = GuestRam::new(&[Region { first: 0, size: 2 << 20 }])?;
    ram.register(&vm)?;
    ram.memory().write_slice(&CODE, GuestAddress(CODE_AT)).doing(Kind::Host, doing)?;
    let mut vcpu = vm.create_vcpu(0).doing(Kind::Host, doing)?;
    let mut sregs = vcpu.get_sregs().doing(Kind::UnfitKvm, doing)?;
    sregs.cs.base = 0;
    sregs.cs.selector = 0;
    vcpu.set_sregs(&sregs).doing(Kind::UnfitKvm, doing)?;
    let regs = kvm_regs { rip: CODE_AT, rflags: 2, ..Default::default() };
    vcpu.set_regs(&regs).doing(Kind::UnfitKvm, doing)?;
    match vcpu.run() {
        Ok(VcpuExit::IoOut(PORT, &[ANSWER])) => Ok(()),
        other => Err(Error::new(
            Kind::UnfitKvm,
            format!(
                "run a probe guest: this KVM runs only guests that are made for it, not ordinary ones \
                 ({other:?}); a host with hardware virtualisation (vmx or svm in /proc/cpuinfo) is needed"
            ),
        )),
    }
}

/// Checks that KVM can do what every machine needs.
pub(crate) fn check(file: File) -> Result<Kvm, Error> {
    let kvm = sys::kvm(file);
    let version = kvm.get_api_version();
    if version != API_VERSION {
        return Err(Error::new(
            Kind::UnfitKvm,
            format!("use KVM: its API has version {version}, not {API_VERSION}"),
        ));
    }
    match NEEDED.iter().find(|(cap, _)| !kvm.check_extension(*cap)) {
        None => Ok(kvm),
        Some((_, name)) => Err(Error::new(Kind::UnfitKvm, format!("use KVM: it lacks {name}"))),
    }
}

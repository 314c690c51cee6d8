//! The registers that the first vCPU starts with: 64-bit mode, as Documentation/arch/x86/boot.rst wants.
#![forbid(unsafe_code)]

use hull_errors::Doing;
use kvm_bindings::{Msrs, kvm_msr_entry, kvm_regs, kvm_segment};
use kvm_ioctls::VcpuFd;

use crate::boot::{CODE_SELECTOR, DATA_SELECTOR};
use crate::error::{Error, Kind};
use crate::layout::{GDT, PAGE_TABLES, ZERO_PAGE};

/// Intel SDM volume 3, section 2.5 "Control Registers" and 2.2.1 "EFER".
const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
/// Bit 1 of RFLAGS is always set.
const RFLAGS: u64 = 2;

/// IA32_MISC_ENABLE: fast strings; without it Intel guests copy memory the slow way.
const MSR_MISC_ENABLE: u32 = 0x1a0;
const FAST_STRINGS: u64 = 1;
/// IA32_MTRR_DEF_TYPE: enabled, write-back; without it a kernel with MTRRs caches nothing.
const MSR_MTRR_DEF_TYPE: u32 = 0x2ff;
const MTRR_WRITE_BACK: u64 = (1 << 11) | 6;

/// Segment types: code, read and accessed; data, written and accessed (volume 3, section 3.4.5.1).
const CODE: u8 = 11;
const DATA: u8 = 3;

/// Puts the vCPU at `entry`, with the boot parameters in RSI. The local APIC and the FPU are right as KVM
/// makes them: there is no PIC whose interrupts LINT0 would have to take.
pub(crate) fn set_up(vcpu: &VcpuFd, entry: u64) -> Result<(), Error> {
    let doing = || "set the registers of the first vCPU".to_owned();
    let mut sregs = vcpu.get_sregs().doing(Kind::Host, doing)?;
    sregs.cs = segment(CODE_SELECTOR, CODE);
    for data in [&mut sregs.ds, &mut sregs.es, &mut sregs.fs, &mut sregs.gs, &mut sregs.ss] {
        *data = segment(DATA_SELECTOR, DATA);
    }
    sregs.gdt.base = GDT.first;
    sregs.gdt.limit = u16::try_from(GDT.size - 1).expect("the table has a few entries");
    sregs.idt.base = 0;
    sregs.idt.limit = 0;
    sregs.cr0 = CR0_PE | CR0_ET | CR0_PG;
    sregs.cr3 = PAGE_TABLES.first;
    sregs.cr4 = CR4_PAE;
    sregs.efer = EFER_LME | EFER_LMA;
    vcpu.set_sregs(&sregs).doing(Kind::Host, doing)?;
    let regs = kvm_regs { rflags: RFLAGS, rip: entry, rsi: ZERO_PAGE.first, ..Default::default() };
    vcpu.set_regs(&regs).doing(Kind::Host, doing)
}

/// Model-specific registers that every vCPU needs.
pub(crate) fn set_msrs(vcpu: &VcpuFd) -> Result<(), Error> {
    let doing = || "set the model-specific registers of a vCPU".to_owned();
    let msr = |index, data| kvm_msr_entry { index, data, ..Default::default() };
    let wanted = [msr(MSR_MISC_ENABLE, FAST_STRINGS), msr(MSR_MTRR_DEF_TYPE, MTRR_WRITE_BACK)];
    let msrs = Msrs::from_entries(&wanted).doing(Kind::Host, doing)?;
    let set = vcpu.set_msrs(&msrs).doing(Kind::Host, doing)?;
    if set == wanted.len() {
        Ok(())
    } else {
        Err(Error::new(Kind::UnfitKvm, format!("{}: KVM refuses {:#x}", doing(), wanted[set].index)))
    }
}

fn segment(selector: u16, type_: u8) -> kvm_segment {
    let code = type_ == CODE;
    kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector,
        type_,
        present: 1,
        dpl: 0,
        db: (!code).into(),
        s: 1,
        l: code.into(),
        g: 1,
        ..Default::default()
    }
}

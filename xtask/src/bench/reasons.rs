//! Names for the numbers of VM exits.

/// Which processor's numbers, as in KVM's `kvm_exit` (arch/x86/kvm/trace.h).
const VMX: u64 = 1;
const SVM: u64 = 2;

/// AMD64 Architecture Programmer's Manual, volume 2, appendix C.
const SVM_REASONS: [(u64, &str); 19] = [
    (0x60, "intr"),
    (0x61, "nmi"),
    (0x64, "vintr"),
    (0x65, "cr0_write"),
    (0x6f, "rdpmc"),
    (0x72, "cpuid"),
    (0x76, "invd"),
    (0x77, "pause"),
    (0x78, "hlt"),
    (0x79, "invlpg"),
    (0x7b, "ioio"),
    (0x7c, "msr"),
    (0x7f, "shutdown"),
    (0x81, "vmmcall"),
    (0x87, "rdtscp"),
    (0x89, "wbinvd"),
    (0x8d, "xsetbv"),
    (0x400, "npf"),
    (0x402, "avic_unaccelerated"),
];

/// Intel SDM, volume 3, appendix C.
const VMX_REASONS: [(u64, &str); 16] = [
    (0, "exception"),
    (1, "external_interrupt"),
    (2, "triple_fault"),
    (7, "interrupt_window"),
    (10, "cpuid"),
    (12, "hlt"),
    (18, "vmcall"),
    (28, "cr_access"),
    (30, "io"),
    (31, "msr_read"),
    (32, "msr_write"),
    (40, "pause"),
    (48, "ept_violation"),
    (49, "ept_misconfig"),
    (52, "preemption_timer"),
    (56, "apic_write"),
];

/// Linux include/uapi/linux/kvm.h, `KVM_EXIT_*`.
const KVM_REASONS: [(u64, &str); 11] = [
    (0, "unknown"),
    (2, "io"),
    (5, "hlt"),
    (6, "mmio"),
    (7, "irq_window_open"),
    (8, "shutdown"),
    (9, "fail_entry"),
    (10, "intr"),
    (17, "internal_error"),
    (24, "system_event"),
    (26, "ioapic_eoi"),
];

/// Why a guest was left.
pub(super) fn of_processor(isa: u64, reason: u64) -> String {
    match isa {
        SVM => svm(reason),
        // Bits 16 and up are flags.
        VMX => known(&VMX_REASONS, reason & 0xffff),
        _ => format!("{isa}:{reason}"),
    }
}

/// Why KVM asked the VMM.
pub(super) fn of_kvm(reason: u64) -> String {
    known(&KVM_REASONS, reason)
}

fn svm(reason: u64) -> String {
    match reason {
        0x00..=0x0f => format!("read_cr{reason}"),
        0x10..=0x1f => format!("write_cr{}", reason - 0x10),
        0x20..=0x2f => format!("read_dr{}", reason - 0x20),
        0x30..=0x3f => format!("write_dr{}", reason - 0x30),
        0x40..=0x5f => format!("exception_{}", reason - 0x40),
        _ => known(&SVM_REASONS, reason),
    }
}

fn known(names: &[(u64, &str)], reason: u64) -> String {
    let name = names.iter().find(|(number, _)| *number == reason);
    name.map_or_else(|| format!("{reason:#x}"), |(_, name)| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_processors_names() {
        let check = |isa, reason, want: &str| assert_eq!(of_processor(isa, reason), want);
        check(SVM, 0x400, "npf");
        check(SVM, 0x14, "write_cr4");
        check(SVM, 0x4e, "exception_14");
        check(SVM, 0x999, "0x999");
        check(VMX, 0x8000_0021, "0x21");
        check(VMX, 48, "ept_violation");
        check(3, 7, "3:7");
        assert_eq!(of_kvm(6), "mmio");
    }
}

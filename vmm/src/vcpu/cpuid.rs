//! What the guest's CPUID says: what KVM supports, less what no guest gets, with its own topology.
#![forbid(unsafe_code)]

use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

/// First word of the vendor's name, leaf 0: AuthenticAMD, HygonGenuine.
const AMD: [u32; 2] = [u32::from_le_bytes(*b"Auth"), u32::from_le_bytes(*b"Hygo")];
/// Leaf 1, Intel SDM volume 2, CPUID.
const ECX1_DTES64: u32 = 1 << 2;
const ECX1_MONITOR: u32 = 1 << 3;
const ECX1_VMX: u32 = 1 << 5;
const ECX1_SMX: u32 = 1 << 6;
const ECX1_PDCM: u32 = 1 << 15;
const ECX1_TSC_DEADLINE: u32 = 1 << 24;
const ECX1_HYPERVISOR: u32 = 1 << 31;
/// Debug store: the memory half of a PMU.
const EDX1_DS: u32 = 1 << 21;
const EDX1_HTT: u32 = 1 << 28;
/// Leaf 6: the local APIC timer runs in all C-states.
const EAX6_ARAT: u32 = 1 << 2;
/// Leaf 7: SGX, Processor Trace; PCONFIG, architectural last branch records.
const EBX7_ABSENT: u32 = (1 << 2) | (1 << 25);
const EDX7_ABSENT: u32 = (1 << 18) | (1 << 19);
/// Leaf 0x80000001, AMD APM volume 3, appendix E.
const ECX81_CMP_LEGACY: u32 = 1 << 1;
/// SVM, IBS, SKINIT, LWP, NodeId, performance counters (core, northbridge, data, L3).
const ECX81_ABSENT: u32 =
    (1 << 2) | (1 << 10) | (1 << 12) | (1 << 15) | (1 << 19) | (1 << 23) | (1 << 24) | (1 << 27) | (1 << 28);

/// Which vCPU the answers are for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Vcpu {
    pub id: u8,
    pub count: u8,
    /// KVM emulates the deadline timer (some hosts' supported CPUID forgets to say so).
    pub tsc_deadline: bool,
}

/// The guest's CPUID. Every vCPU is a core of its own in one package.
pub(crate) fn tailor(supported: &[kvm_cpuid_entry2], vcpu: Vcpu) -> Vec<kvm_cpuid_entry2> {
    let mut entries: Vec<_> = supported.iter().filter(|entry| !is_absent(entry.function)).copied().collect();
    let amd = supported.iter().any(|entry| entry.function == 0 && AMD.contains(&entry.ebx));
    for entry in &mut entries {
        adjust(entry, vcpu);
        if amd {
            adjust_amd(entry, vcpu);
        }
    }
    if supported.iter().any(|entry| entry.function == 0xb) {
        entries.extend(topology(vcpu));
    }
    entries
}

/// Leaves of which the guest sees nothing: PMU, SGX, Processor Trace, key locker, SVM, IBS, memory
/// encryption, performance monitoring; and topology, which we write ourselves.
fn is_absent(leaf: u32) -> bool {
    matches!(
        leaf,
        0x5 | 0xa
            | 0xb
            | 0x12
            | 0x14
            | 0x19
            | 0x1c
            | 0x1f
            | 0x8000_000a
            | 0x8000_001b
            | 0x8000_001f
            | 0x8000_0022
            | 0x8000_0026
    )
}

fn adjust(entry: &mut kvm_cpuid_entry2, vcpu: Vcpu) {
    let (id, count) = (u32::from(vcpu.id), u32::from(vcpu.count));
    match (entry.function, entry.index) {
        (0x1, _) => {
            entry.ecx &= !(ECX1_DTES64 | ECX1_MONITOR | ECX1_VMX | ECX1_SMX | ECX1_PDCM | ECX1_TSC_DEADLINE);
            entry.ecx |= ECX1_HYPERVISOR | if vcpu.tsc_deadline { ECX1_TSC_DEADLINE } else { 0 };
            entry.ebx = (entry.ebx & 0xffff) | (count << 16) | (id << 24);
            entry.edx = with(entry.edx & !EDX1_DS, EDX1_HTT, 1 < count);
        }
        // Caches: EAX has the kind, the level, how many share it, and (Intel) the cores of the package.
        (0x4, _) if entry.eax & 0x1f != 0 => {
            entry.eax = (entry.eax & 0x3fff) | (sharers(entry.eax, count) << 14) | ((count - 1) << 26);
        }
        (0x6, _) => {
            *entry = kvm_cpuid_entry2 { eax: EAX6_ARAT, ebx: 0, ecx: 0, edx: 0, ..*entry };
        }
        (0x7, 0) => {
            entry.ebx &= !EBX7_ABSENT;
            entry.edx &= !EDX7_ABSENT;
        }
        (0x8000_0001, _) => entry.ecx &= !ECX81_ABSENT,
        _ => (),
    }
}

/// AMD's way to say the topology.
fn adjust_amd(entry: &mut kvm_cpuid_entry2, vcpu: Vcpu) {
    let (id, count) = (u32::from(vcpu.id), u32::from(vcpu.count));
    match (entry.function, entry.index) {
        (0x8000_0001, _) => entry.ecx = with(entry.ecx, ECX81_CMP_LEGACY, 1 < count),
        // Threads less one, and how many bits of the APIC id they take.
        (0x8000_0008, _) => entry.ecx = (count - 1) | (id_bits(count) << 12),
        (0x8000_001d, _) if entry.eax & 0x1f != 0 => {
            entry.eax = (entry.eax & 0x3fff) | (sharers(entry.eax, count) << 14);
        }
        // Extended APIC id; core id, one thread a core; one node.
        (0x8000_001e, _) => (entry.eax, entry.ebx, entry.ecx) = (id, id, 0),
        _ => (),
    }
}

/// The cores that share a cache, less one: the first two levels are a core's own.
fn sharers(eax: u32, count: u32) -> u32 {
    let level = (eax >> 5) & 7;
    if level <= 2 { 0 } else { count - 1 }
}

/// Leaf 0xb: threads, cores, end.
fn topology(vcpu: Vcpu) -> [kvm_cpuid_entry2; 3] {
    let count = u32::from(vcpu.count);
    let level = |index: u32, kind: u32, eax: u32, ebx: u32| kvm_cpuid_entry2 {
        function: 0xb,
        index,
        flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax,
        ebx,
        ecx: index | (kind << 8),
        edx: vcpu.id.into(),
        ..Default::default()
    };
    [level(0, 1, 0, 1), level(1, 2, id_bits(count), count), level(2, 0, 0, 0)]
}

/// Bits that hold the ids 0 to `count - 1`.
fn id_bits(count: u32) -> u32 {
    count.next_power_of_two().trailing_zeros()
}

fn with(bits: u32, flag: u32, set: bool) -> u32 {
    if set { bits | flag } else { bits & !flag }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(function: u32, index: u32, fill: u32) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 { function, index, eax: fill, ebx: fill, ecx: fill, edx: fill, ..Default::default() }
    }

    fn tailored(function: u32, index: u32, vcpu: Vcpu) -> kvm_cpuid_entry2 {
        // A KVM that claims everything.
        let all: Vec<_> = [1, 4, 6, 7, 0xa, 0xb, 0x8000_0001, 0x8000_0008, 0x8000_000a, 0x8000_001e]
            .map(|function| entry(function, 0, u32::MAX))
            .into();
        let vendor = kvm_cpuid_entry2 { ebx: AMD[0], ..entry(0, 0, 0) };
        let got = tailor(&[&[vendor][..], &all].concat(), vcpu);
        let hits: Vec<_> = got.iter().filter(|e| e.function == function && e.index == index).collect();
        assert!(hits.len() <= 1, "one answer for {function:#x}.{index}");
        hits.first().map_or(entry(function, index, 0), |e| **e)
    }

    const FIRST: Vcpu = Vcpu { id: 0, count: 1, tsc_deadline: true };
    const THIRD: Vcpu = Vcpu { id: 2, count: 6, tsc_deadline: false };

    #[test]
    fn no_guest_sees_virtualisation_or_a_pmu() {
        assert_eq!(tailored(1, 0, FIRST).ecx & (1 << 5), 0, "VMX");
        assert_eq!(tailored(0x8000_0001, 0, FIRST).ecx & (1 << 2), 0, "SVM");
        assert_eq!(tailored(0x8000_000a, 0, FIRST).eax, 0, "SVM revision");
        assert_eq!(tailored(0xa, 0, FIRST).eax, 0, "PMU");
        assert_eq!(tailored(0x8000_0001, 0, FIRST).ecx & (1 << 23), 0, "AMD PMU");
        assert_eq!(tailored(7, 0, FIRST).ebx & (1 << 2), 0, "SGX");
    }

    #[test]
    fn the_timer_needs_no_pit() {
        assert_ne!(tailored(1, 0, FIRST).ecx & (1 << 24), 0);
        assert_eq!(tailored(1, 0, THIRD).ecx & (1 << 24), 0);
        assert_eq!(tailored(6, 0, FIRST).eax, 1 << 2);
    }

    #[test]
    fn each_vcpu_is_a_core() {
        assert_eq!(tailored(1, 0, THIRD).ebx >> 16, 0x0206);
        assert_eq!(tailored(1, 0, FIRST).edx & (1 << 28), 0);
        assert_eq!(tailored(0x8000_0008, 0, THIRD).ecx, 0x3005);
        let (threads, cores) = (tailored(0xb, 0, THIRD), tailored(0xb, 1, THIRD));
        assert_eq!((threads.eax, threads.ebx, threads.ecx, threads.edx), (0, 1, 0x100, 2));
        assert_eq!((cores.eax, cores.ebx, cores.ecx, cores.edx), (3, 6, 0x201, 2));
        assert_eq!(tailored(0x8000_001e, 0, THIRD).ebx, 2);
    }

    /// And CVE-2021-3656, CVE-2026-46131: what is nested is where KVM breaks.
    #[test]
    fn cve_2021_29657_no_guest_may_virtualise() {
        for vendor in [AMD[0], AMD[1], u32::from_le_bytes(*b"Genu")] {
            let leaves = [0, 1, 0x8000_0001, 0x8000_000a].map(|leaf| entry(leaf, 0, u32::MAX));
            let mut supported = leaves.to_vec();
            supported[0].ebx = vendor;
            for got in tailor(&supported, FIRST) {
                assert_ne!(got.function, 0x8000_000a, "SVM's leaf");
                let bit = if got.function == 1 { 5 } else { 2 };
                assert!(got.function == 0 || got.ecx & (1 << bit) == 0, "{:#x}", got.function);
            }
        }
    }
}

//! The MP table: processors and interrupts for a kernel without ACPI (MultiProcessor Specification 1.4,
//! chapter 4).

use crate::layout::{IOAPIC, LOCAL_APIC, MP_TABLE};

/// Version 1.4.
const SPEC_REVISION: u8 = 4;
/// Local APICs of this generation are integrated ones.
const LOCAL_APIC_VERSION: u8 = 0x14;
pub(crate) const IOAPIC_VERSION: u8 = 0x20;
const ISA_BUS: u8 = 0;
const HEADER_SIZE: usize = 44;

/// The floating pointer structure.
pub(crate) fn pointer() -> Vec<u8> {
    let mut pointer = Vec::with_capacity(16);
    pointer.extend(b"_MP_");
    pointer.extend(address(MP_TABLE.first));
    // One paragraph long; the checksum; no default configuration, no IMCR.
    pointer.extend([1, SPEC_REVISION, 0, 0, 0, 0, 0, 0]);
    pointer[10] = checksum(&pointer);
    pointer
}

/// The configuration table: `vcpus` processors, one ISA bus, one IOAPIC, and an interrupt for each used
/// pin. No interrupt 0 and no ExtINT: there is neither a PIT nor a PIC.
pub(crate) fn table(vcpus: u8, pins_used: &[u8], pin_count: u8) -> Vec<u8> {
    debug_assert!(pins_used.iter().all(|pin| *pin < pin_count), "pins {pins_used:?} of {pin_count}");
    // APIC ids must differ; those of the vCPUs count from 0.
    let ioapic_id = vcpus;
    let mut entries: Vec<Vec<u8>> = (0..vcpus).map(processor).collect();
    entries.push([&[1, ISA_BUS][..], b"ISA   "].concat());
    entries.push([&[2, ioapic_id, IOAPIC_VERSION, 1][..], &address(IOAPIC.first)].concat());
    // Type 3, INT; polarity and trigger as the bus has them: ISA is active high, edge.
    entries.extend(pins_used.iter().map(|pin| vec![3, 0, 0, 0, ISA_BUS, *pin, ioapic_id, *pin]));
    // Type 4: NMI on LINT1 of every local APIC.
    entries.push(vec![4, 1, 0, 0, ISA_BUS, 0, 0xff, 1]);
    let mut table = header(&entries);
    table.extend(entries.into_iter().flatten());
    table[7] = checksum(&table);
    table
}

fn header(entries: &[Vec<u8>]) -> Vec<u8> {
    let size = HEADER_SIZE + entries.iter().map(Vec::len).sum::<usize>();
    let mut header = Vec::with_capacity(size);
    header.extend(b"PCMP");
    header.extend(short(size));
    header.extend([SPEC_REVISION, 0]);
    header.extend(b"HULL    HULL-VMM    ");
    // No OEM table.
    header.extend([0; 6]);
    header.extend(short(entries.len()));
    header.extend(address(LOCAL_APIC.first));
    // No extended table.
    header.extend([0; 4]);
    header
}

fn processor(id: u8) -> Vec<u8> {
    const ENABLED: u8 = 1;
    const BOOTSTRAP: u8 = 2;
    let flags = if id == 0 { ENABLED | BOOTSTRAP } else { ENABLED };
    let mut entry = vec![0, id, LOCAL_APIC_VERSION, flags];
    // Signature and features: the kernel asks CPUID instead.
    entry.extend([0; 16]);
    entry
}

/// The byte that makes the sum of all bytes zero.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)).wrapping_neg()
}

fn short(number: usize) -> [u8; 2] {
    u16::try_from(number).expect("the table is smaller than 64 KiB").to_le_bytes()
}

fn address(address: u64) -> [u8; 4] {
    u32::try_from(address).expect("the tables lie below 4 GiB").to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{DEVICES_MAX, VCPUS_MAX};

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    #[test]
    fn sums_are_zero_and_lengths_agree() {
        for vcpus in [1, 2, VCPUS_MAX] {
            let table = table(vcpus, &[1, 2, 5], 6);
            assert_eq!(sum(&table), 0);
            assert_eq!(usize::from(u16::from_le_bytes([table[4], table[5]])), table.len());
            let count = u16::from_le_bytes([table[34], table[35]]);
            assert_eq!(count, u16::from(vcpus) + 1 + 1 + 3 + 1);
        }
        assert_eq!(sum(&pointer()), 0);
        assert_eq!(pointer().len(), 16);
    }

    #[test]
    fn only_used_pins_have_an_interrupt() {
        let table = table(1, &[1, 3], 4);
        let interrupts = &table[44 + 20 + 8 + 8..];
        assert_eq!(interrupts[..16], [3, 0, 0, 0, 0, 1, 1, 1, 3, 0, 0, 0, 0, 3, 1, 3]);
    }

    #[test]
    fn the_largest_table_fits() {
        let pins: Vec<u8> = (1..=u8::try_from(DEVICES_MAX).unwrap() + 1).collect();
        let table = table(VCPUS_MAX, &pins, 40);
        assert!(table.len() as u64 <= MP_TABLE.size, "{}", table.len());
    }
}

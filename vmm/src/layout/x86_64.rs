//! The guest-physical map, the ports and the interrupt pins; proven by the compiler.

/// A half-open range of guest-physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Region {
    pub first: u64,
    pub size: u64,
}

impl Region {
    pub(crate) const fn end(self) -> u64 {
        self.first + self.size
    }

    const fn overlaps(self, other: Region) -> bool {
        self.first < other.end() && other.first < self.end()
    }

    const fn contains(self, other: Region) -> bool {
        self.first <= other.first && other.end() <= self.end()
    }
}

/// Most vCPUs of a machine: the MP table holds 8-bit APIC ids and has to stay small.
pub const VCPUS_MAX: u8 = 64;
/// Least RAM in MiB: a kernel, its page structures and an agent.
pub const RAM_MIB_MIN: u32 = 32;
/// Largest image in bytes: what Linux needs to describe it comes from the guest's RAM, 1/64 of its size.
pub(crate) const IMAGE_SIZE_MAX: u64 = 64 << 30;
/// Most RAM in MiB.
pub const RAM_MIB_MAX: u32 = 512 * 1024;

/// Context id of every guest on its vsock. Each machine has a vsock device of its own, so that ids need
/// not differ between machines.
pub const GUEST_CID: u64 = 3;
/// Context id of the host, virtio 1.2 section 5.10.4.
pub const HOST_CID: u64 = 2;

/// The doorbell: a 1-byte write to this I/O port powers the machine off with that byte as its code.
pub const DOORBELL_PORT: u16 = 0x600;

/// COM1, the only serial port; present only if a console was asked for.
pub(crate) const SERIAL_PORT: u16 = 0x3f8;
pub(crate) const SERIAL_PORTS: u16 = 8;
/// The interrupt that Linux expects COM1 on (arch/x86/include/asm/serial.h).
pub(crate) const SERIAL_PIN: u8 = 4;

const MIB: u64 = 1 << 20;
const PAGE: u64 = 0x1000;

/// Conventional memory below the tables.
pub(crate) const LOW_RAM: Region = Region { first: 0, size: 0x9_f000 };
/// Global descriptor table of the first vCPU.
pub(crate) const GDT: Region = Region { first: 0x500, size: 0x20 };
/// Boot parameters ("zero page"), Documentation/arch/x86/zero-page.rst.
pub(crate) const ZERO_PAGE: Region = Region { first: 0x7000, size: PAGE };
/// The seed for the guest's random number generator, as `setup_data`.
pub(crate) const RNG_SEED: Region = Region { first: 0x8000, size: PAGE };
/// Page tables of the first vCPU: one page each for levels 4, 3 and 2.
pub(crate) const PAGE_TABLES: Region = Region { first: 0x9000, size: 3 * PAGE };
/// Kernel command line, NUL included; the size is Linux' COMMAND_LINE_SIZE on x86.
pub(crate) const CMDLINE: Region = Region { first: 0x2_0000, size: 2048 };
/// MP configuration table, and the pointer to it in the last KiB of base memory: one of the places where
/// Linux looks for it (arch/x86/kernel/mpparse.c).
pub(crate) const MP_TABLE: Region = Region { first: 0x9_f000, size: 0xc00 };
pub(crate) const MP_POINTER: Region = Region { first: 0x9_fc00, size: 0x10 };
/// The first address a kernel may be loaded at.
pub(crate) const HIGH_RAM: u64 = MIB;

/// No RAM here; everything that is addressed like memory and is none.
pub(crate) const MMIO_GAP: Region = Region { first: 3 << 30, size: 1 << 30 };
/// One page for each virtio device.
pub(crate) const VIRTIO: Region = Region { first: 0xd000_0000, size: DEVICES_MAX as u64 * VIRTIO_SIZE };
pub(crate) const VIRTIO_SIZE: u64 = PAGE;
/// Most virtio devices: pins are numbered in the 8 bits of the MP table, and each costs exits at boot.
pub(crate) const DEVICES_MAX: usize = 32;
pub(crate) const IOAPIC: Region = Region { first: 0xfec0_0000, size: 0x100 };
pub(crate) const LOCAL_APIC: Region = Region { first: 0xfee0_0000, size: PAGE };
/// Three pages that Intel hosts need for real mode (KVM_SET_TSS_ADDR), and one for the identity map.
pub(crate) const TSS: Region = Region { first: 0xfffb_d000, size: 3 * PAGE };
pub(crate) const IDENTITY_MAP: Region = Region { first: 0xfffb_c000, size: PAGE };

const _: () = {
    let low = [GDT, ZERO_PAGE, RNG_SEED, PAGE_TABLES, CMDLINE];
    let high = [VIRTIO, IOAPIC, LOCAL_APIC, TSS, IDENTITY_MAP];
    let mut i = 0;
    while i < low.len() {
        assert!(LOW_RAM.contains(low[i]));
        assert!(MMIO_GAP.contains(high[i]));
        let mut j = 0;
        while j < i {
            assert!(!low[i].overlaps(low[j]));
            assert!(!high[i].overlaps(high[j]));
            j += 1;
        }
        i += 1;
    }
    assert!(low.len() == high.len());
    assert!(MP_TABLE.first == LOW_RAM.end() && MP_TABLE.end() == MP_POINTER.first);
    assert!(MP_POINTER.first + 0x400 == 640 << 10);
    assert!(MMIO_GAP.end() == 1 << 32);
    assert!(RAM_MIB_MIN as u64 * MIB > HIGH_RAM);
};

/// The RAM of a machine of `mib`: below the gap, and what is left above 4 GiB.
pub(crate) fn ram_regions(mib: u32) -> Vec<Region> {
    let bytes = u64::from(mib) << 20;
    let below = bytes.min(MMIO_GAP.first);
    let mut regions = vec![Region { first: 0, size: below }];
    if below < bytes {
        regions.push(Region { first: MMIO_GAP.end(), size: bytes - below });
    }
    regions
}

/// Linux maps persistent memory in pieces of this size (`SUBSECTION_SIZE`, include/linux/mmzone.h).
const IMAGE_ALIGNMENT: u64 = 2 * MIB;

/// Where images of these sizes in bytes lie, one behind the other, above all RAM.
pub(crate) fn image_regions(ram_mib: u32, sizes: &[u64]) -> Vec<Region> {
    let ram_end = ram_regions(ram_mib).into_iter().map(Region::end).max().unwrap_or(0);
    let mut first = ram_end.max(MMIO_GAP.end()).next_multiple_of(IMAGE_ALIGNMENT);
    let place = |bytes: &u64| {
        let region = Region { first, size: bytes.next_multiple_of(IMAGE_ALIGNMENT) };
        first = region.end();
        region
    };
    sizes.iter().map(place).collect()
}

/// The window of the `index`-th virtio device.
pub(crate) fn virtio_window(index: usize) -> Region {
    assert!(index < DEVICES_MAX, "the configuration limits the devices");
    Region { first: VIRTIO.first + index as u64 * VIRTIO_SIZE, size: VIRTIO_SIZE }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_lie_above_ram() {
        let image = |first, size| Region { first, size };
        assert_eq!(
            image_regions(256, &[1, 3 * MIB]),
            [image(4 << 30, 2 * MIB), image((4 << 30) + 2 * MIB, 4 * MIB)]
        );
        assert_eq!(image_regions(3073, &[1]), [image((4 << 30) + 2 * MIB, 2 * MIB)]);
    }

    #[test]
    fn ram_leaves_the_gap_free() {
        assert_eq!(ram_regions(256), [Region { first: 0, size: 256 * MIB }]);
        assert_eq!(ram_regions(3072), [Region { first: 0, size: 3 << 30 }]);
        assert_eq!(
            ram_regions(3073),
            [Region { first: 0, size: 3 << 30 }, Region { first: 4 << 30, size: MIB }]
        );
    }

    /// Firecracker 6076: a size in MiB that wraps when it becomes bytes.
    #[test]
    fn fc_6076_mib_to_bytes_does_not_wrap() {
        for mib in [RAM_MIB_MIN, 4095, 4096, 4097, RAM_MIB_MAX, u32::MAX] {
            let bytes: u64 = ram_regions(mib).iter().map(|region| region.size).sum();
            assert_eq!(bytes, u64::from(mib) << 20);
        }
        let region = image_regions(RAM_MIB_MAX, &[IMAGE_SIZE_MAX; DEVICES_MAX]).pop().unwrap();
        assert!(region.first.checked_add(region.size).is_some_and(|end| end < 1 << 46));
    }
}

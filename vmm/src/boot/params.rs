//! The zero page and the random seed, Documentation/arch/x86/{zero-page,boot}.rst.

use crate::layout::{CMDLINE, HIGH_RAM, LOW_RAM, RNG_SEED, Region};

/// Bytes of seed. The kernel's generator takes 32; more costs nothing.
pub(crate) const SEED_SIZE: usize = 64;

/// SETUP_RNG_SEED, arch/x86/include/uapi/asm/setup_data.h.
const SETUP_RNG_SEED: u32 = 9;
/// E820_TYPE_RAM, arch/x86/include/asm/e820/types.h.
const E820_RAM: u32 = 1;
const E820_ENTRY_SIZE: usize = 20;

/// Offsets in the zero page; those from 0x1f1 on are the `setup_header`.
mod at {
    pub(super) const E820_ENTRIES: usize = 0x1e8;
    pub(super) const BOOT_FLAG: usize = 0x1fe;
    pub(super) const HEADER: usize = 0x202;
    pub(super) const VERSION: usize = 0x206;
    pub(super) const TYPE_OF_LOADER: usize = 0x210;
    pub(super) const LOADFLAGS: usize = 0x211;
    pub(super) const RAMDISK_IMAGE: usize = 0x218;
    pub(super) const RAMDISK_SIZE: usize = 0x21c;
    pub(super) const CMD_LINE_PTR: usize = 0x228;
    pub(super) const CMDLINE_SIZE: usize = 0x238;
    pub(super) const SETUP_DATA: usize = 0x250;
    pub(super) const E820_TABLE: usize = 0x2d0;
}

/// The page that the kernel takes all it knows of the machine from.
pub(crate) fn zero_page(ram: &[Region], cmdline_len: usize, initramfs: Option<Region>) -> Vec<u8> {
    let mut page = vec![0; 0x1000];
    put(&mut page, at::BOOT_FLAG, &0xaa55_u16.to_le_bytes());
    put(&mut page, at::HEADER, b"HdrS");
    put(&mut page, at::VERSION, &0x020f_u16.to_le_bytes());
    // 0xff: a loader without an id of its own.
    put(&mut page, at::TYPE_OF_LOADER, &[0xff]);
    // LOADED_HIGH: the kernel is at 1 MiB or above.
    put(&mut page, at::LOADFLAGS, &[1]);
    put(&mut page, at::CMD_LINE_PTR, &low(CMDLINE.first));
    put(&mut page, at::CMDLINE_SIZE, &low(cmdline_len as u64));
    put(&mut page, at::SETUP_DATA, &RNG_SEED.first.to_le_bytes());
    if let Some(initramfs) = initramfs {
        put(&mut page, at::RAMDISK_IMAGE, &low(initramfs.first));
        put(&mut page, at::RAMDISK_SIZE, &low(initramfs.size));
    }
    let usable = usable(ram);
    put(&mut page, at::E820_ENTRIES, &[u8::try_from(usable.len()).expect("RAM has at most three parts")]);
    for (index, region) in usable.iter().enumerate() {
        put(&mut page, at::E820_TABLE + index * E820_ENTRY_SIZE, &e820_entry(*region));
    }
    page
}

/// `struct setup_data` with the seed.
pub(crate) fn seed(bytes: &[u8; SEED_SIZE]) -> Vec<u8> {
    let mut data = Vec::with_capacity(16 + SEED_SIZE);
    data.extend(0_u64.to_le_bytes());
    data.extend(SETUP_RNG_SEED.to_le_bytes());
    data.extend(low(SEED_SIZE as u64));
    data.extend(bytes);
    data
}

/// RAM less the hole that every PC has between conventional memory and 1 MiB.
fn usable(ram: &[Region]) -> Vec<Region> {
    let mut usable = vec![LOW_RAM];
    for region in ram {
        let first = region.first.max(HIGH_RAM);
        usable.push(Region { first, size: region.end() - first });
    }
    usable
}

fn e820_entry(region: Region) -> [u8; E820_ENTRY_SIZE] {
    let mut entry = [0; E820_ENTRY_SIZE];
    put(&mut entry, 0, &region.first.to_le_bytes());
    put(&mut entry, 8, &region.size.to_le_bytes());
    put(&mut entry, 16, &E820_RAM.to_le_bytes());
    entry
}

fn low(number: u64) -> [u8; 4] {
    u32::try_from(number).expect("boot data lies below 4 GiB").to_le_bytes()
}

fn put(page: &mut [u8], at: usize, bytes: &[u8]) {
    page[at..at + bytes.len()].copy_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::ram_regions;

    fn u32_at(page: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(page[at..at + 4].try_into().unwrap())
    }

    fn u64_at(page: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(page[at..at + 8].try_into().unwrap())
    }

    #[test]
    fn the_memory_map_is_the_ram_without_the_hole() {
        let page = zero_page(&ram_regions(4096), 10, None);
        assert_eq!(page[0x1e8], 3);
        let entry = |i: usize| (u64_at(&page, 0x2d0 + i * 20), u64_at(&page, 0x2d8 + i * 20));
        assert_eq!(entry(0), (0, 0x9f000));
        assert_eq!(entry(1), (1 << 20, (3 << 30) - (1 << 20)));
        assert_eq!(entry(2), (4 << 30, 1 << 30));
        assert_eq!(u32_at(&page, 0x2d0 + 16), 1);
    }

    #[test]
    fn the_header_points_at_the_boot_data() {
        let page = zero_page(&ram_regions(64), 10, Some(Region { first: 0x3f0_0000, size: 77 }));
        assert_eq!(&page[0x202..0x206], b"HdrS");
        assert_eq!(u32_at(&page, 0x228), 0x20000);
        assert_eq!(u32_at(&page, 0x238), 10);
        assert_eq!((u32_at(&page, 0x218), u32_at(&page, 0x21c)), (0x3f0_0000, 77));
        assert_eq!(u64_at(&page, 0x250), 0x8000);
        assert_eq!(seed(&[5; 64])[8..17], [9, 0, 0, 0, 64, 0, 0, 0, 5]);
    }
}

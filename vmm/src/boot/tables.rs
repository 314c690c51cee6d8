//! The tables a vCPU needs to be in long mode: segments and pages.

/// Selector of the code segment that Linux boots with (`__BOOT_CS`, Documentation/arch/x86/boot.rst).
pub(crate) const CODE_SELECTOR: u16 = 0x10;
/// Selector of the data segment (`__BOOT_DS`).
pub(crate) const DATA_SELECTOR: u16 = 0x18;

/// 64-bit code: present, ring 0, execute and read, long mode, 4 KiB granularity.
const CODE: u64 = 0x00af_9b00_0000_ffff;
/// Flat data: present, ring 0, read and write.
const DATA: u64 = 0x00cf_9300_0000_ffff;

/// Flags of a page table entry: present, writable.
const TABLE: u64 = 0x3;
/// Present, writable, a large page.
const LARGE_PAGE: u64 = 0x83;
const ENTRIES: u64 = 512;

pub(crate) fn gdt() -> Vec<u8> {
    bytes([0, 0, CODE, DATA])
}

/// Levels 4, 3 and 2: the first GiB onto itself, in pages of 2 MiB.
pub(crate) fn page_tables() -> Vec<u8> {
    let first = crate::layout::PAGE_TABLES.first;
    let level = |entry: u64| std::iter::once(entry).chain(std::iter::repeat_n(0, 511));
    let level4 = level((first + 0x1000) | TABLE);
    let level3 = level((first + 0x2000) | TABLE);
    let level2 = (0..ENTRIES).map(|index| (index << 21) | LARGE_PAGE);
    bytes(level4.chain(level3).chain(level2))
}

fn bytes(words: impl IntoIterator<Item = u64>) -> Vec<u8> {
    words.into_iter().flat_map(u64::to_le_bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_gigabyte_maps_to_itself() {
        let tables = page_tables();
        let word = |at: usize| u64::from_le_bytes(tables[at..at + 8].try_into().unwrap());
        assert_eq!(tables.len(), 3 * 4096);
        assert_eq!((word(0), word(0x1000)), (0xa003, 0xb003));
        assert_eq!((word(0x2000), word(0x2ff8)), (0x83, (1 << 30) - (2 << 20) + 0x83));
    }
}

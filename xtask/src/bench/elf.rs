//! Reads from an ELF file what a loader copies: System V ABI, AMD64 supplement, chapters 4 and 5.

const PT_LOAD: u32 = 1;

/// The sum of the file sizes of all segments to load; `None` if this is no 64-bit ELF.
pub(super) fn loaded_bytes(file: &[u8]) -> Option<u64> {
    if !file.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let first = usize::try_from(u64::from_le_bytes(at(file, 32)?)).ok()?;
    let size = usize::from(u16::from_le_bytes(at(file, 54)?));
    let count = usize::from(u16::from_le_bytes(at(file, 56)?));
    (0..count).try_fold(0_u64, |sum, index| {
        let header = first.checked_add(size.checked_mul(index)?)?;
        match u32::from_le_bytes(at(file, header)?) {
            PT_LOAD => sum.checked_add(u64::from_le_bytes(at(file, header.checked_add(32)?)?)),
            _ => Some(sum),
        }
    })
}

fn at<const N: usize>(file: &[u8], offset: usize) -> Option<[u8; N]> {
    file.get(offset..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_to_load_are_summed() {
        let mut file = vec![0; 64 + 3 * 56];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[32] = 64;
        file[54] = 56;
        file[56] = 3;
        for (index, (kind, size)) in [(1, 1000_u16), (4, 7), (1, 24)].into_iter().enumerate() {
            let header = 64 + index * 56;
            file[header] = kind;
            file[header + 32..header + 34].copy_from_slice(&size.to_le_bytes());
        }
        assert_eq!(loaded_bytes(&file), Some(1024));
        assert_eq!(loaded_bytes(&file[..200]), None);
        assert_eq!(loaded_bytes(b"MZ"), None);
    }
}

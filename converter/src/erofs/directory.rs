//! Directory data: blocks of entries, each block sorted and complete in itself.

use super::format::{BLOCK, DIRENT_SIZE, FileType, put};

/// One name of a directory, `.` and `..` included.
pub(super) struct Name<'a> {
    pub(super) name: &'a [u8],
    pub(super) nid: u64,
    pub(super) file_type: FileType,
}

/// How many bytes a directory with such names takes. `lengths` come in the order of the names.
pub(super) fn size(lengths: impl IntoIterator<Item = usize>) -> u64 {
    let (mut full_blocks, mut used) = (0, 0);
    for length in lengths {
        let need = DIRENT_SIZE + length;
        if used + need > BLOCK as usize {
            full_blocks += 1;
            used = 0;
        }
        used += need;
    }
    full_blocks * BLOCK + used as u64
}

/// The directory's data. `names` are sorted by their bytes.
pub(super) fn data(names: &[Name<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = names;
    while !rest.is_empty() {
        // Each block but the last is filled up with zeros, which end its last name.
        bytes.resize(bytes.len().next_multiple_of(BLOCK as usize), 0);
        let count = fitting(rest);
        let (block, after) = rest.split_at(count);
        append_block(block, &mut bytes);
        rest = after;
    }
    bytes
}

fn fitting(names: &[Name<'_>]) -> usize {
    let mut used = 0;
    let fits = |name: &&Name<'_>| {
        used += DIRENT_SIZE + name.name.len();
        used <= BLOCK as usize
    };
    names.iter().take_while(fits).count()
}

fn append_block(names: &[Name<'_>], bytes: &mut Vec<u8>) {
    let start = bytes.len();
    bytes.resize(start + names.len() * DIRENT_SIZE, 0);
    for (index, name) in names.iter().enumerate() {
        let name_offset = u16::try_from(bytes.len() - start).expect("a block is shorter than 64 KiB");
        let entry = start + index * DIRENT_SIZE;
        put(bytes, entry, &name.nid.to_le_bytes());
        put(bytes, entry + 8, &name_offset.to_le_bytes());
        put(bytes, entry + 10, &[name.file_type as u8]);
        bytes.extend_from_slice(name.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_announced_is_the_size_written() {
        for count in [0, 1, 2, 15, 16, 17, 200, 1000] {
            for length in [1, 2, 100, 254, 255] {
                let name = vec![b'x'; length];
                let name = || Name { name: &name, nid: 7, file_type: FileType::Regular };
                let names: Vec<Name<'_>> = (0..count).map(|_| name()).collect();
                assert_eq!(
                    data(&names).len() as u64,
                    size((0..count).map(|_| length)),
                    "{count} of {length}"
                );
            }
        }
    }
}

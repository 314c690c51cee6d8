//! The parts of the EROFS on-disk format that we write (fs/erofs/erofs_fs.h of Linux).

use super::layout::Shape;
use crate::attributes::Attributes;

pub(super) const BLOCK_BITS: u8 = 12;
pub(crate) const BLOCK: u64 = 1 << BLOCK_BITS;

/// `EROFS_SUPER_OFFSET`.
pub(super) const SUPER_OFFSET: u64 = 1024;

/// `EROFS_SUPER_MAGIC_V1`.
const MAGIC: u32 = 0xe0f5_e1e2;

/// `EROFS_FEATURE_COMPAT_SB_CHKSUM`, `EROFS_FEATURE_COMPAT_MTIME`.
const FEATURES_COMPATIBLE: u32 = 0x1 | 0x2;

/// Inodes are addressed in units of this many bytes (`EROFS_ISLOTBITS`).
pub(super) const SLOT: u64 = 32;

/// `struct erofs_inode_extended`.
pub(super) const INODE_SIZE: u64 = 64;

/// `struct erofs_dirent`.
pub(super) const DIRENT_SIZE: usize = 12;

/// `EROFS_INODE_FLAT_PLAIN` and `EROFS_INODE_FLAT_INLINE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DataLayout {
    Plain = 0,
    Inline = 2,
}

/// Types of directory entries (`EROFS_FT_*`, which are those of include/linux/fs_types.h), and the
/// type bits of `st_mode` (inode(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileType {
    Regular = 1,
    Directory = 2,
    CharacterDevice = 3,
    BlockDevice = 4,
    Fifo = 5,
    Symlink = 7,
}

impl FileType {
    fn mode_bits(self) -> u16 {
        match self {
            FileType::Regular => 0o100_000,
            FileType::Directory => 0o040_000,
            FileType::CharacterDevice => 0o020_000,
            FileType::BlockDevice => 0o060_000,
            FileType::Fifo => 0o010_000,
            FileType::Symlink => 0o120_000,
        }
    }
}

/// What `struct erofs_super_block` says that differs between images.
pub(super) struct SuperBlock {
    pub(super) root_nid: u16,
    pub(super) inodes: u64,
    pub(super) blocks: u32,
    pub(super) metadata_block: u32,
    pub(super) uuid: [u8; 16],
}

impl SuperBlock {
    /// The first block, checksum included.
    pub(super) fn block(&self) -> Vec<u8> {
        let mut bytes = vec![0; BLOCK as usize];
        let body = &mut bytes[SUPER_OFFSET as usize..];
        put(body, 0, &MAGIC.to_le_bytes());
        put(body, 8, &FEATURES_COMPATIBLE.to_le_bytes());
        put(body, 12, &[BLOCK_BITS]);
        put(body, 14, &self.root_nid.to_le_bytes());
        put(body, 16, &self.inodes.to_le_bytes());
        put(body, 36, &self.blocks.to_le_bytes());
        put(body, 40, &self.metadata_block.to_le_bytes());
        put(body, 48, &self.uuid);
        // Over the rest of the block, with this field as zero.
        let checksum = crc32c(body);
        put(body, 4, &checksum.to_le_bytes());
        bytes
    }
}

/// What `struct erofs_inode_extended` says beside the attributes.
pub(super) struct Inode {
    pub(super) shape: Shape,
    pub(super) file_type: FileType,
    /// The first block of the data, or the device number.
    pub(super) union: u32,
    pub(super) number: u32,
    pub(super) links: u32,
    pub(super) xattr_count: u16,
}

impl Inode {
    pub(super) fn bytes(&self, attributes: &Attributes) -> [u8; INODE_SIZE as usize] {
        const EXTENDED: u16 = 1;
        let mut bytes = [0; INODE_SIZE as usize];
        put(&mut bytes, 0, &(EXTENDED | (self.shape.layout as u16) << 1).to_le_bytes());
        put(&mut bytes, 2, &self.xattr_count.to_le_bytes());
        put(&mut bytes, 4, &(attributes.permissions | self.file_type.mode_bits()).to_le_bytes());
        put(&mut bytes, 8, &self.shape.size.to_le_bytes());
        put(&mut bytes, 16, &self.union.to_le_bytes());
        put(&mut bytes, 20, &self.number.to_le_bytes());
        put(&mut bytes, 24, &attributes.uid.to_le_bytes());
        put(&mut bytes, 28, &attributes.gid.to_le_bytes());
        put(&mut bytes, 32, &attributes.modified.seconds.to_le_bytes());
        put(&mut bytes, 40, &attributes.modified.nanoseconds.to_le_bytes());
        put(&mut bytes, 44, &self.links.to_le_bytes());
        bytes
    }
}

pub(super) fn put(bytes: &mut [u8], offset: usize, field: &[u8]) {
    bytes[offset..offset + field.len()].copy_from_slice(field);
}

/// CRC-32C as the kernel's `crc32c(~0, …)`: not inverted at the end. Once an image, so without tables.
fn crc32c(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78; // Castagnoli, RFC 3720 section 12.1, bits reversed.
    bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (POLYNOMIAL * (crc & 1)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32c_gives_the_published_check_value() {
        // RFC 3720 appendix B.4 gives sums of 32 bytes; inverted at the end, unlike ours.
        assert_eq!(!crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(!crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(!crc32c(b"123456789"), 0xe306_9283);
    }
}

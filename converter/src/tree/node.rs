//! What the tree knows of one file, as a record of fixed length.

use super::{Extent, NodeId};
use crate::attributes::{Attributes, DeviceNumber, Time};
use crate::scratch::Tail;

pub(super) const RECORD: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) kind: NodeKind,
    pub(crate) attributes: Attributes,
    /// Extended attributes, as the image will have them.
    pub(crate) xattrs: Blob,
    /// Names that lead here; 0 once the node is gone.
    pub(crate) names: u32,
    /// The last layer, counted from 1, for which everything older was taken out of this directory.
    pub(super) pruned: u16,
    /// Where the inode will be, as its number; 0 as long as that is not known.
    pub(crate) inode: u32,
    /// The first block of a directory's or a link's own.
    pub(crate) block: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NodeKind {
    Directory(Directory),
    File(Extent),
    /// Short enough to lie beside its inode.
    ShortFile(Tail),
    Symlink(Blob),
    CharacterDevice(DeviceNumber),
    BlockDevice(DeviceNumber),
    Fifo,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Directory {
    pub(crate) parent: NodeId,
    /// How many directories are in it, and how long its data is, once they were counted.
    pub(crate) directories: u32,
    pub(crate) size: u64,
}

/// Bytes that the tree keeps elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Blob {
    pub(crate) start: u32,
    pub(crate) size: u32,
}

const DIRECTORY: u8 = 0;
const FILE: u8 = 1;
const SHORT_FILE: u8 = 2;
const SYMLINK: u8 = 3;
const CHARACTER_DEVICE: u8 = 4;
const BLOCK_DEVICE: u8 = 5;
const FIFO: u8 = 6;

impl Node {
    pub(crate) fn new(kind: NodeKind, attributes: Attributes, xattrs: Blob) -> Self {
        Self { kind, attributes, xattrs, names: 1, pruned: 0, inode: 0, block: 0 }
    }

    pub(super) fn encode(&self) -> [u8; RECORD] {
        let pair = |a: u32, b: u32| u64::from(a) | u64::from(b) << 32;
        let (kind, first, second) = match self.kind {
            NodeKind::Directory(d) => (DIRECTORY, pair(d.parent.0, d.directories), d.size),
            NodeKind::File(extent) => (FILE, extent.start, extent.size),
            NodeKind::ShortFile(tail) => (SHORT_FILE, tail.start, tail.size),
            NodeKind::Symlink(target) => (SYMLINK, pair(target.start, target.size), 0),
            NodeKind::CharacterDevice(device) => (CHARACTER_DEVICE, device.encoded().into(), 0),
            NodeKind::BlockDevice(device) => (BLOCK_DEVICE, device.encoded().into(), 0),
            NodeKind::Fifo => (FIFO, 0, 0),
        };
        let Attributes { permissions, uid, gid, modified } = self.attributes;
        let mut record = [0; RECORD];
        let mut position = 0;
        let mut put = |bytes: &[u8]| {
            record[position..position + bytes.len()].copy_from_slice(bytes);
            position += bytes.len();
        };
        put(&[kind, 0]);
        put(&permissions.to_le_bytes());
        put(&uid.to_le_bytes());
        put(&gid.to_le_bytes());
        put(&modified.nanoseconds.to_le_bytes());
        put(&modified.seconds.to_le_bytes());
        put(&first.to_le_bytes());
        put(&second.to_le_bytes());
        put(&self.names.to_le_bytes());
        put(&self.inode.to_le_bytes());
        put(&self.xattrs.start.to_le_bytes());
        put(&self.xattrs.size.to_le_bytes());
        put(&self.block.to_le_bytes());
        put(&self.pruned.to_le_bytes());
        record
    }

    pub(super) fn decode(record: &[u8]) -> Self {
        let u16_at = |at: usize| u16::from_le_bytes(record[at..at + 2].try_into().expect("two bytes"));
        let u32_at = |at: usize| u32::from_le_bytes(record[at..at + 4].try_into().expect("four bytes"));
        let u64_at = |at: usize| u64::from_le_bytes(record[at..at + 8].try_into().expect("eight bytes"));
        let kind = match record[0] {
            DIRECTORY => NodeKind::Directory(Directory {
                parent: NodeId(u32_at(24)),
                directories: u32_at(28),
                size: u64_at(32),
            }),
            FILE => NodeKind::File(Extent { start: u64_at(24), size: u64_at(32) }),
            SHORT_FILE => NodeKind::ShortFile(Tail { start: u64_at(24), size: u64_at(32) }),
            SYMLINK => NodeKind::Symlink(Blob { start: u32_at(24), size: u32_at(28) }),
            CHARACTER_DEVICE => NodeKind::CharacterDevice(DeviceNumber::decoded(u32_at(24))),
            BLOCK_DEVICE => NodeKind::BlockDevice(DeviceNumber::decoded(u32_at(24))),
            _ => NodeKind::Fifo,
        };
        Self {
            kind,
            attributes: Attributes {
                permissions: u16_at(2),
                uid: u32_at(4),
                gid: u32_at(8),
                modified: Time { nanoseconds: u32_at(12), seconds: u64_at(16).cast_signed() },
            },
            xattrs: Blob { start: u32_at(48), size: u32_at(52) },
            names: u32_at(40),
            inode: u32_at(44),
            block: u32_at(56),
            pruned: u16_at(60),
        }
    }
}

//! Decides where each inode lies, before any is written: directories hold the numbers of their children.

use std::io;

use super::format::{BLOCK, DataLayout, FileType, INODE_SIZE, SLOT};
use super::{DataArea, directory};
use crate::tree::{Directory, Node, NodeId, NodeKind, Tree};

/// The root's place counts from 1, so that no file has the inode number 0, which readers of
/// directories take for "no entry".
const FIRST: u64 = INODE_SIZE;

/// What all inodes take.
pub(super) struct Layout {
    pub(super) inodes: u32,
    /// Length of the metadata area in bytes.
    pub(super) metadata_size: u64,
}

/// How an inode's own data lies.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) layout: DataLayout,
    pub(super) size: u64,
    /// How much of it lies right behind the inode.
    pub(super) inline: u64,
}

impl Layout {
    /// Gives every node its number, and measures directories. The inodes of a directory's files lie side by
    /// side, so that listing it reads few blocks. Long targets of links go to `data`.
    pub(super) fn new(tree: &mut Tree<'_>, data: &mut DataArea<'_>) -> io::Result<Self> {
        let mut layout = Self { inodes: 0, metadata_size: FIRST };
        layout.place(tree, NodeId::ROOT, data)?;
        let mut cursor = tree.names_from(NodeId::ROOT)?;
        while let Some((_, child)) = tree.next_name(&mut cursor)? {
            layout.place(tree, child.node, data)?;
        }
        Ok(layout)
    }

    fn place(&mut self, tree: &mut Tree<'_>, id: NodeId, data: &mut DataArea<'_>) -> io::Result<()> {
        let mut node = tree.node(id)?;
        if node.inode != 0 {
            return Ok(()); // By another of its names.
        }
        if let NodeKind::Directory(directory) = node.kind {
            let directory::Measured { size, directories } = directory::measure(tree, id, directory)?;
            node.kind = NodeKind::Directory(Directory { size, directories, ..directory });
        }
        let shape = shape(&node);
        if let NodeKind::Symlink(target) = node.kind
            && shape.inline == 0
        {
            node.block = block(data.position());
            data.write(&tree.blob(target)?)?;
            data.align()?;
        }
        let length = head(&node) + shape.inline;
        // What lies inline must share the block of its inode; attributes may go on in the next one.
        let together = if shape.inline > 0 { length } else { INODE_SIZE };
        let mut offset = self.metadata_size;
        if offset % BLOCK + together > BLOCK {
            offset = offset.next_multiple_of(BLOCK);
        }
        node.inode = u32::try_from(offset / SLOT).expect("METADATA_MAX and ENTRIES_MAX bound the inodes");
        tree.set_node(id, &node)?;
        self.metadata_size = (offset + length).next_multiple_of(SLOT);
        self.inodes += 1;
        Ok(())
    }
}

fn head(node: &Node) -> u64 {
    INODE_SIZE + u64::from(node.xattrs.size)
}

/// Whether a file of that size, with that many bytes of attributes, can lie beside its inode.
pub(crate) fn is_short(size: u64, xattrs_size: usize) -> bool {
    size > 0 && size <= BLOCK && INODE_SIZE + xattrs_size as u64 + size <= BLOCK
}

pub(super) fn shape(node: &Node) -> Shape {
    let size = match node.kind {
        NodeKind::Directory(directory) => directory.size,
        NodeKind::Symlink(target) => target.size.into(),
        NodeKind::ShortFile(tail) => tail.size,
        // Whole blocks: those can be mapped directly (DAX), unlike what shares a block.
        NodeKind::File(extent) => return Shape { layout: DataLayout::Plain, size: extent.size, inline: 0 },
        _ => 0,
    };
    let tail = size % BLOCK;
    match tail != 0 && head(node) + tail <= BLOCK {
        true => Shape { layout: DataLayout::Inline, size, inline: tail },
        false => Shape { layout: DataLayout::Plain, size, inline: 0 },
    }
}

pub(super) fn block(position: u64) -> u32 {
    u32::try_from(position / BLOCK).expect("IMAGE_SIZE_MAX bounds positions")
}

pub(super) fn file_type(kind: &NodeKind) -> FileType {
    match kind {
        NodeKind::Directory(_) => FileType::Directory,
        NodeKind::File(_) | NodeKind::ShortFile(_) => FileType::Regular,
        NodeKind::Symlink(_) => FileType::Symlink,
        NodeKind::CharacterDevice(_) => FileType::CharacterDevice,
        NodeKind::BlockDevice(_) => FileType::BlockDevice,
        NodeKind::Fifo => FileType::Fifo,
    }
}

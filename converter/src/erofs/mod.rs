//! Writes an EROFS image: superblock, file data, directory data, metadata, in this order.
//!
//! ```text
//! 0          4096           data_end                metadata_end      2 MiB boundary
//! | 1024: sb | files' blocks | directories' blocks | inodes, xattrs, short files, … | hole |
//! ```
//! The data area grows while the archives stream by, before anything is known about the inodes; so
//! the metadata comes last and the superblock points at it. Files lie in whole blocks, uncompressed:
//! they can be mapped directly (DAX), and one page-cache copy serves every pod. Files that fit into a block
//! together with their inode lie beside it. The same tree and the same data give the same bytes.

mod data;
mod directory;
mod format;
mod layout;
mod xattr;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

pub(crate) use data::{DataArea, IMAGE_SIZE_MAX};
pub(crate) use format::BLOCK;
use format::{Inode, SLOT, SuperBlock};
pub(crate) use layout::is_short;
use layout::{Layout, block, file_type, shape};
pub(crate) use xattr::body as xattr_body;

use crate::scratch::{Tails, TailsReader};
use crate::tree::{Node, NodeId, NodeKind, Tree};

/// The output is as long as persistent memory must be to be mapped (`SUBSECTION_SIZE` of
/// include/linux/mmzone.h), so that a machine can be given the file as it is.
const LENGTH_MULTIPLE: u64 = 2 << 20;

/// Writes everything that is not file data, and so makes `file` an image.
pub(crate) fn finish<'a>(
    mut data: DataArea<'a>,
    tails: Tails<'a>,
    file: &File,
    tree: &mut Tree<'_>,
    uuid: [u8; 16],
) -> io::Result<()> {
    data.align()?;
    let layout = Layout::new(tree, &mut data)?;
    write_directories(&mut data, tree)?;
    let metadata_start = data.position();
    let mut metadata =
        Metadata { start: metadata_start, data: &mut data, tails: tails.into_reader()?, count: 0 };
    metadata.write_all(tree)?;
    assert_eq!(metadata.count, layout.inodes, "every inode that has a place is written");
    data.skip(metadata_start + layout.metadata_size - data.position())?;
    data.align()?;
    let super_block = SuperBlock {
        root_nid: u16::try_from(tree.node(NodeId::ROOT)?.inode).expect("the root is placed first"),
        inodes: layout.inodes.into(),
        blocks: block(data.position()),
        metadata_block: block(metadata_start),
        uuid,
    };
    data.flush()?;
    file.write_all_at(&super_block.block(), 0)?;
    // The scratch room behind the image goes with it.
    file.set_len(data.position().next_multiple_of(LENGTH_MULTIPLE))
}

/// The blocks of directories that need more than their inode's.
fn write_directories(data: &mut DataArea<'_>, tree: &mut Tree<'_>) -> io::Result<()> {
    write_directory(data, tree, NodeId::ROOT)?;
    let mut cursor = tree.names_from(NodeId::ROOT)?;
    while let Some((_, child)) = tree.next_name(&mut cursor)? {
        if child.is_directory {
            write_directory(data, tree, child.node)?;
        }
    }
    Ok(())
}

fn write_directory(data: &mut DataArea<'_>, tree: &mut Tree<'_>, id: NodeId) -> io::Result<()> {
    let mut node = tree.node(id)?;
    let NodeKind::Directory(directory) = node.kind else { unreachable!("its name says that it is one") };
    let mut left = directory.size - shape(&node).inline;
    if left == 0 {
        return Ok(());
    }
    node.block = block(data.position());
    tree.set_node(id, &node)?;
    directory::for_each_block(tree, id, directory, |bytes| {
        if left > 0 {
            left -= bytes.len() as u64;
            data.write(bytes)?;
        }
        Ok(())
    })?;
    assert_eq!(left, 0, "a directory is as long as it was measured");
    data.align()
}

/// The inodes, and what lies beside them.
struct Metadata<'a, 'b> {
    start: u64,
    data: &'a mut DataArea<'b>,
    tails: TailsReader<'b>,
    count: u32,
}

impl Metadata<'_, '_> {
    fn write_all(&mut self, tree: &mut Tree<'_>) -> io::Result<()> {
        self.write(tree, NodeId::ROOT)?;
        let mut cursor = tree.names_from(NodeId::ROOT)?;
        while let Some((_, child)) = tree.next_name(&mut cursor)? {
            self.write(tree, child.node)?;
        }
        Ok(())
    }

    fn write(&mut self, tree: &mut Tree<'_>, id: NodeId) -> io::Result<()> {
        let node = tree.node(id)?;
        let position = self.start + u64::from(node.inode) * SLOT;
        // Places go up, so this one was reached by another of its names.
        let Some(gap) = position.checked_sub(self.data.position()) else { return Ok(()) };
        self.data.skip(gap)?;
        self.count += 1;
        let xattrs = tree.blob(node.xattrs)?;
        let inode = Inode {
            shape: shape(&node),
            file_type: file_type(&node.kind),
            union: union(&node),
            // Only shown where inode numbers have 32 bits.
            number: self.count,
            links: match node.kind {
                // Its own `.`, its name, and the `..` of those in it.
                NodeKind::Directory(directory) => directory.directories + 2,
                _ => node.names,
            },
            xattr_count: xattr::count(xattrs.len()),
        };
        self.data.write(&inode.bytes(&node.attributes))?;
        self.data.write(&xattrs)?;
        match node.kind {
            _ if inode.shape.inline == 0 => Ok(()),
            NodeKind::Symlink(target) => self.data.write(&tree.blob(target)?),
            NodeKind::ShortFile(tail) => self.data.write(self.tails.get(tail)?),
            NodeKind::Directory(directory) => {
                let mut last = Vec::new();
                directory::for_each_block(tree, id, directory, |bytes| {
                    bytes.clone_into(&mut last);
                    Ok(())
                })?;
                self.data.write(&last)
            }
            _ => unreachable!("nothing else has data inline"),
        }
    }
}

/// `i_u` of the inode.
fn union(node: &Node) -> u32 {
    match node.kind {
        NodeKind::File(extent) if extent.size > 0 => block(extent.start),
        NodeKind::CharacterDevice(device) | NodeKind::BlockDevice(device) => device.encoded(),
        _ => node.block,
    }
}

//! Writes an EROFS image: superblock, file data, directory data, metadata, in this order.
//!
//! ```text
//! 0          4096           data_end                metadata_end      2 MiB boundary
//! | 1024: sb | files' blocks | directories' blocks | inodes, xattrs, … | hole |
//! ```
//! The data area grows while the archives stream by, before anything is known about the inodes; so
//! the metadata comes last and the superblock points at it. Files lie in whole blocks, uncompressed:
//! they can be mapped directly (DAX), and one page-cache copy serves every pod. The same tree and the
//! same data give the same bytes.

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
use format::{Inode, SuperBlock};
use layout::{Layout, Place, Target, file_type, with_dots};

use crate::tree::{NodeId, NodeKind, Tree};

/// The output is as long as persistent memory must be to be mapped (`SUBSECTION_SIZE` of
/// include/linux/mmzone.h), so that a machine can be given the file as it is.
const LENGTH_MULTIPLE: u64 = 2 << 20;

/// Writes everything that is not file data, and so makes `file` an image.
pub(crate) fn finish(mut data: DataArea<'_>, file: &File, tree: &Tree, uuid: [u8; 16]) -> io::Result<()> {
    data.align()?;
    let layout = Layout::new(tree, data.position());
    for id in &layout.order {
        let place = layout.place_of(*id);
        let bytes = own_data(tree, &layout, *id);
        assert_eq!(bytes.len() as u64, place.size, "data has the size it was placed with");
        if place.in_blocks() > 0 {
            assert_eq!(data.position(), place.data, "data lands where it was placed");
            data.write(&bytes[..usize::try_from(place.in_blocks()).expect("it is in memory")])?;
            data.align()?;
        }
    }
    assert_eq!(data.position(), layout.data_end, "data ends where it was planned to");
    write_metadata(&mut data, tree, &layout)?;
    data.align()?;
    let block = |position: u64| u32::try_from(position / BLOCK).expect("IMAGE_SIZE_MAX bounds positions");
    let super_block = SuperBlock {
        root_nid: u16::try_from(layout.place_of(NodeId::ROOT).nid()).expect("the root is placed first"),
        inodes: layout.order.len() as u64,
        blocks: block(data.position()),
        metadata_block: block(layout.data_end),
        uuid,
    };
    data.flush()?;
    file.write_all_at(&super_block.block(), 0)?;
    file.set_len(data.position().next_multiple_of(LENGTH_MULTIPLE))
}

fn write_metadata(data: &mut DataArea<'_>, tree: &Tree, layout: &Layout) -> io::Result<()> {
    for (number, id) in layout.order.iter().enumerate() {
        let place = layout.place_of(*id);
        data.skip(layout.data_end + place.offset - data.position())?;
        let node = tree.node(*id);
        let xattrs = xattr::body(&node.attributes);
        let inode = Inode {
            layout: place.layout,
            file_type: file_type(&node.kind),
            size: if let NodeKind::File(extent) = &node.kind { extent.size } else { place.size },
            union: union(&node.kind, place),
            // Only shown where inode numbers have 32 bits.
            number: u32::try_from(number + 1).expect("METADATA_MAX bounds the nodes"),
            links: links(tree, *id),
            xattr_count: xattr::count(xattrs.len()),
        };
        data.write(&inode.bytes(&node.attributes))?;
        data.write(&xattrs)?;
        if place.inline() > 0 {
            let bytes = own_data(tree, layout, *id);
            data.write(&bytes[usize::try_from(place.in_blocks()).expect("it is in memory")..])?;
        }
    }
    data.skip(layout.data_end + layout.metadata_size - data.position())
}

/// `i_u` of the inode.
fn union(kind: &NodeKind, place: Place) -> u32 {
    let block = |position: u64| u32::try_from(position / BLOCK).expect("IMAGE_SIZE_MAX bounds positions");
    match kind {
        NodeKind::File(extent) if extent.size > 0 => block(extent.start),
        NodeKind::CharacterDevice(device) | NodeKind::BlockDevice(device) => device.encoded(),
        NodeKind::Directory(_) | NodeKind::Symlink(_) if place.in_blocks() > 0 => block(place.data),
        _ => 0,
    }
}

/// Names that lead to the inode; for a directory its own `.`, its name, and the `..` of those in it.
fn links(tree: &Tree, id: NodeId) -> u32 {
    let Some(children) = tree.children(id) else { return tree.node(id).names };
    let inside = children.values().filter(|child| tree.children(child.node).is_some()).count();
    u32::try_from(inside + 2).expect("METADATA_MAX bounds the nodes")
}

/// The data of a directory or a link; nothing for other nodes.
fn own_data(tree: &Tree, layout: &Layout, id: NodeId) -> Vec<u8> {
    match &tree.node(id).kind {
        NodeKind::Symlink(target) => target.to_vec(),
        NodeKind::Directory(children) => {
            let names = with_dots(children).map(|(name, target)| {
                let node = match target {
                    Target::Own => id,
                    Target::Parent => layout.parent_of(id),
                    Target::Child(node) => node,
                };
                let file_type = file_type(&tree.node(node).kind);
                directory::Name { name, nid: layout.place_of(node).nid(), file_type }
            });
            directory::data(&names.collect::<Vec<_>>())
        }
        _ => Vec::new(),
    }
}

//! Decides where each inode lies, before any is written: directories hold the places of their children.

use std::collections::BTreeMap;

use super::format::{BLOCK, DataLayout, FileType, INODE_SIZE, SLOT};
use super::{directory, xattr};
use crate::tree::{Child, NodeId, NodeKind, Tree};

/// The root's place counts from 1, so that no file has the inode number 0, which readers of
/// directories take for "no entry".
const FIRST: u64 = INODE_SIZE;

/// Where a node's inode and its own data lie.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// In bytes from the start of the metadata area.
    pub(super) offset: u64,
    pub(super) layout: DataLayout,
    /// Size of the data of a directory or a link, in bytes.
    pub(super) size: u64,
    /// Where those blocks of it lie that are not inline, in bytes from the start of the file.
    pub(super) data: u64,
}

impl Place {
    pub(super) fn nid(self) -> u64 {
        self.offset / SLOT
    }

    /// The part of the data that lies in blocks of its own.
    pub(super) fn in_blocks(self) -> u64 {
        match self.layout {
            DataLayout::Plain => self.size,
            DataLayout::Inline => self.size / BLOCK * BLOCK,
        }
    }

    pub(super) fn inline(self) -> u64 {
        self.size - self.in_blocks()
    }
}

/// The places of all nodes.
pub(super) struct Layout {
    /// By node; `None` for nodes that have vanished.
    places: Vec<Option<Place>>,
    /// In the order of their places.
    pub(super) order: Vec<NodeId>,
    /// By node; only directories other than the root have one that matters.
    parents: Vec<NodeId>,
    /// Where the blocks of directories and links end, in bytes from the start of the file.
    pub(super) data_end: u64,
    /// Length of the metadata area in bytes.
    pub(super) metadata_size: u64,
}

impl Layout {
    /// `data_start` is where the blocks of directories and links may begin.
    pub(super) fn new(tree: &Tree, data_start: u64) -> Self {
        let mut layout = Self {
            places: vec![None; tree.ids()],
            order: Vec::new(),
            parents: vec![NodeId::ROOT; tree.ids()],
            data_end: data_start,
            metadata_size: FIRST,
        };
        layout.place(tree, NodeId::ROOT);
        // The inodes of a directory's files lie side by side, so that listing it reads few blocks.
        let mut pending = vec![NodeId::ROOT];
        while let Some(directory) = pending.pop() {
            let children = tree.children(directory).expect("only directories are pending");
            for child in children.values().map(|child| child.node) {
                if layout.places[child.index()].is_none() {
                    layout.place(tree, child);
                }
                if tree.children(child).is_some() {
                    layout.parents[child.index()] = directory;
                }
            }
            let directories = children.values().rev().map(|child| child.node);
            pending.extend(directories.filter(|child| tree.children(*child).is_some()));
        }
        layout
    }

    pub(super) fn place_of(&self, node: NodeId) -> Place {
        self.places[node.index()].expect("every node of the tree was placed")
    }

    pub(super) fn parent_of(&self, node: NodeId) -> NodeId {
        self.parents[node.index()]
    }

    fn place(&mut self, tree: &Tree, id: NodeId) {
        let node = tree.node(id);
        let size = match &node.kind {
            NodeKind::Directory(children) => directory::size(lengths_with_dots(children)),
            NodeKind::Symlink(target) => target.len() as u64,
            _ => 0,
        };
        let head = INODE_SIZE + xattr::body(&node.attributes).len() as u64;
        let tail = size % BLOCK;
        // A tail must share the block of its inode; links have nothing but a tail.
        let inlinable = tail != 0 && head + tail <= BLOCK;
        let layout = if inlinable { DataLayout::Inline } else { DataLayout::Plain };
        let mut offset = self.metadata_size;
        let length = head + if inlinable { tail } else { 0 };
        if inlinable && offset % BLOCK + length > BLOCK {
            offset = offset.next_multiple_of(BLOCK);
        }
        let place = Place { offset, layout, size, data: self.data_end };
        self.data_end = (self.data_end + place.in_blocks()).next_multiple_of(BLOCK);
        self.metadata_size = (offset + length).next_multiple_of(INODE_SIZE);
        self.places[id.index()] = Some(place);
        self.order.push(id);
    }
}

fn lengths_with_dots(children: &BTreeMap<Box<[u8]>, Child>) -> impl Iterator<Item = usize> {
    with_dots(children).map(|(name, _)| name.len())
}

/// What `.` and `..` stand for, and the children.
pub(super) enum Target {
    Own,
    Parent,
    Child(NodeId),
}

/// The names of a directory in the order of their bytes, `.` and `..` where they belong.
pub(super) fn with_dots(children: &BTreeMap<Box<[u8]>, Child>) -> impl Iterator<Item = (&[u8], Target)> {
    let before = |name: &[u8]| name < b"..".as_slice();
    let all = || children.iter().map(|(name, child)| (&**name, Target::Child(child.node)));
    // Between `.` and `..` lie the names that begin with `.` and a byte below `.`.
    let first = all().take_while(|(name, _)| *name < b".".as_slice());
    let between = all().filter(move |(name, _)| *name > b".".as_slice() && before(name));
    let last = all().filter(move |(name, _)| !before(name));
    first
        .chain([(b".".as_slice(), Target::Own)])
        .chain(between)
        .chain([(b"..".as_slice(), Target::Parent)])
        .chain(last)
}

pub(super) fn file_type(kind: &NodeKind) -> FileType {
    match kind {
        NodeKind::Directory(_) => FileType::Directory,
        NodeKind::File(_) => FileType::Regular,
        NodeKind::Symlink(_) => FileType::Symlink,
        NodeKind::CharacterDevice(_) => FileType::CharacterDevice,
        NodeKind::BlockDevice(_) => FileType::BlockDevice,
        NodeKind::Fifo => FileType::Fifo,
    }
}

//! The file tree of an image: layers go in from the lowest up, one merged tree comes out.
//!
//! The rules are those of a stack of directories merged by overlayfs, where each layer was unpacked by
//! itself: a name of an upper layer replaces what lower layers have, directories of both are merged,
//! and a symbolic link on the way to a name is never followed. No host paths, and no I/O but that of the
//! scratch room, where everything is kept that grows with the image. What a layer's files hold lies
//! elsewhere; the tree knows only where ([`Extent`], [`crate::scratch::Tail`]).

mod node;
mod path;
#[cfg(test)]
mod tests;

use std::io;

use hull_converter_protocol::{Algorithm, Digest};

use crate::attributes::Attributes;
use crate::scratch::{Child, Cursor, Index, PAGE, Pages, Region};
use node::RECORD;
pub(crate) use node::{Blob, Directory, Node, NodeKind};
pub(crate) use path::TreePath;

/// Most entries of all layers together; bounds time and room on disk.
pub(crate) const ENTRIES_MAX: u32 = 4 << 20;

/// Bytes of names, targets, attributes and the nodes themselves that one tree may hold.
pub(crate) const METADATA_MAX: usize = 512 << 20;

/// What a name costs beside its own length, in bytes.
const NAME_COST: usize = 16;

/// Names of the files that do not show lie in a directory of this number.
const HIDDEN: NodeId = NodeId(u32::MAX);

/// Where the blocks of a file lie in the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// In bytes; a multiple of the block size.
    pub(crate) start: u64,
    pub(crate) size: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NodeId(pub(crate) u32);

impl NodeId {
    pub(crate) const ROOT: NodeId = NodeId(0);
}

/// What every file has beside its content.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    pub(crate) attributes: Attributes,
    /// As the image will have them.
    pub(crate) xattrs: Vec<u8>,
}

/// What a layer puts at a path.
#[derive(Debug)]
pub(crate) enum New {
    Directory(Facts),
    Other(NodeKind, Facts),
    Symlink(Vec<u8>, Facts),
    HardLink(TreePath),
    /// One more name of something that was added unnamed.
    Again(NodeId),
}

#[derive(Debug)]
pub(crate) struct Tree<'a> {
    pages: Pages<'a>,
    names: Index,
    /// How many nodes there are, those that vanished included.
    nodes: u32,
    /// How many bytes of targets and attributes.
    bytes: u32,
    /// How many contents wait for [`Self::take_freed`].
    freed: u64,
    layer: u16,
    entries: u32,
    metadata: usize,
    hides: bool,
    /// The directories that the last entry's path led through.
    walked: Vec<(Box<[u8]>, NodeId)>,
}

/// Why an entry cannot be: the rest of a sentence about it.
pub(crate) type Refusal = String;

#[derive(Debug)]
pub(crate) enum Trouble {
    Refused(Refusal),
    /// The scratch room fails.
    Disk(io::Error),
}

impl From<Refusal> for Trouble {
    fn from(text: Refusal) -> Self {
        Trouble::Refused(text)
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Trouble::Disk(error)
    }
}

impl<'a> Tree<'a> {
    /// An empty root directory, and the lowest layer to come.
    pub(crate) fn new(mut pages: Pages<'a>) -> io::Result<Self> {
        let names = Index::new(&mut pages)?;
        let mut tree = Self {
            pages,
            names,
            nodes: 0,
            bytes: 0,
            freed: 0,
            layer: 0,
            entries: 0,
            metadata: 0,
            hides: false,
            walked: Vec::new(),
        };
        let kind = empty_directory(NodeId::ROOT);
        tree.append(&Node::new(kind, Attributes::of_implied_directory(), Blob::default()))?;
        Ok(tree)
    }

    /// Everything from here on belongs to the next layer up.
    pub(crate) fn next_layer(&mut self) {
        self.layer = self.layer.checked_add(1).expect("the number of layers was checked");
        self.walked.clear();
    }

    pub(crate) fn node(&mut self, id: NodeId) -> io::Result<Node> {
        let (page, start) = place(id);
        Ok(Node::decode(&self.pages.get(Region::Nodes, page)?[start..start + RECORD]))
    }

    pub(crate) fn set_node(&mut self, id: NodeId, node: &Node) -> io::Result<()> {
        let (page, start) = place(id);
        self.pages.get_mut(Region::Nodes, page)?[start..start + RECORD].copy_from_slice(&node.encode());
        Ok(())
    }

    /// The bytes of a target or of attributes.
    pub(crate) fn blob(&mut self, blob: Blob) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; blob.size as usize];
        self.pages.read(Region::Bytes, blob.start.into(), &mut bytes)?;
        Ok(bytes)
    }

    /// The names of a directory and then those of all with a higher number, each in the order of their bytes.
    pub(crate) fn names_from(&mut self, directory: NodeId) -> io::Result<Cursor> {
        self.names.cursor(&mut self.pages, directory, b"")
    }

    pub(crate) fn next_name(&mut self, cursor: &mut Cursor) -> io::Result<Option<(NodeId, Child)>> {
        cursor.next(&mut self.pages)
    }

    /// Contents that no name leads to any more, for the owner of the output to give back.
    pub(crate) fn take_freed(&mut self) -> io::Result<Option<Extent>> {
        let Some(last) = self.freed.checked_sub(1) else { return Ok(None) };
        let mut bytes = [0; 16];
        self.pages.read(Region::Freed, last * 16, &mut bytes)?;
        self.freed = last;
        let (start, size) = bytes.split_at(8);
        let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
        Ok(Some(Extent { start: number(start), size: number(size) }))
    }

    /// Puts an entry of the current layer at `path`.
    pub(crate) fn put(&mut self, path: &TreePath, new: New) -> Result<(), Trouble> {
        self.count_entry()?;
        let Some((name, parents)) = path.split_last() else { return self.put_root(new) };
        let parent = self.make_parents(parents)?;
        match new {
            New::Directory(facts) => self.put_directory(parent, name, &facts),
            New::Other(kind, facts) => {
                let node = self.add(kind, &facts)?;
                self.set_child(parent, name, node, false)
            }
            New::Symlink(target, facts) => {
                let target = self.keep(&target)?;
                let node = self.add(NodeKind::Symlink(target), &facts)?;
                self.set_child(parent, name, node, false)
            }
            New::HardLink(target) => {
                let node = self.find_linkable(&target)?;
                self.put_again(parent, name, node)
            }
            New::Again(node) => self.put_again(parent, name, node),
        }
    }

    /// Adds something that does not show; [`Self::hidden`] finds it until [`Self::forget_hidden`].
    pub(crate) fn hide(&mut self, path: &TreePath, new: New) -> Result<(), Trouble> {
        self.count_entry()?;
        self.hides = true;
        let node = match new {
            New::Other(kind, facts) => self.add(kind, &facts)?,
            New::Symlink(target, facts) => {
                let target = self.keep(&target)?;
                self.add(NodeKind::Symlink(target), &facts)?
            }
            New::HardLink(target) => {
                let node = match self.hidden(&target)? {
                    Some(node) => node,
                    None => self.find_linkable(&target)?,
                };
                self.count_name(node)?;
                node
            }
            New::Directory(_) | New::Again(_) => unreachable!("neither is hidden"),
        };
        self.set_child(HIDDEN, hidden_name(path).as_bytes(), node, false)
    }

    /// A file of the current layer that does not show.
    pub(crate) fn hidden(&mut self, path: &TreePath) -> io::Result<Option<NodeId>> {
        if !self.hides {
            return Ok(None);
        }
        let child = self.child(HIDDEN, hidden_name(path).as_bytes())?;
        Ok(child.map(|child| child.node))
    }

    /// Ends a layer with files that do not show.
    pub(crate) fn forget_hidden(&mut self) -> io::Result<()> {
        match std::mem::take(&mut self.hides) {
            true => self.empty(HIDDEN),
            false => Ok(()),
        }
    }

    /// Removes what lower layers have at `path` (`.wh.NAME` of the OCI image format, "Whiteouts").
    /// What the current layer has there stays, whichever came first.
    pub(crate) fn white_out(&mut self, path: &TreePath) -> Result<(), Trouble> {
        self.count_entry()?;
        let Some((name, parents)) = path.split_last() else {
            return Err(Refusal::from("it removes the root directory").into());
        };
        if let Some(parent) = self.find(parents)?
            && let Some(child) = self.child(parent, name)?
        {
            if child.layer != self.layer {
                self.remove_child(parent, name)?;
            } else if child.is_directory {
                self.prune(child.node)?;
            }
        }
        Ok(())
    }

    /// Removes what lower layers have inside the directory `path` (`.wh..wh..opq`).
    pub(crate) fn white_out_inside(&mut self, path: &TreePath) -> Result<(), Trouble> {
        self.count_entry()?;
        if let Some(node) = self.find(path.parts())?
            && is_directory(&self.node(node)?)
        {
            self.prune(node)?;
        }
        Ok(())
    }

    /// The node at a path of directories; links are not followed.
    fn find<'b>(&mut self, parts: impl IntoIterator<Item = &'b [u8]>) -> io::Result<Option<NodeId>> {
        let mut node = NodeId::ROOT;
        for part in parts {
            let Some(child) = self.child(node, part)? else { return Ok(None) };
            node = child.node;
        }
        Ok(Some(node))
    }

    fn child(&mut self, parent: NodeId, name: &[u8]) -> io::Result<Option<Child>> {
        self.names.get(&mut self.pages, parent, name)
    }

    fn put_root(&mut self, new: New) -> Result<(), Trouble> {
        let New::Directory(facts) = new else {
            return Err(Refusal::from("it puts something in the place of the root directory").into());
        };
        self.set_facts(NodeId::ROOT, &facts)
    }

    fn put_directory(&mut self, parent: NodeId, name: &[u8], facts: &Facts) -> Result<(), Trouble> {
        match self.child(parent, name)? {
            Some(child) if child.is_directory => {
                self.set_facts(child.node, facts)?;
                Ok(self.touch(parent, name, child)?)
            }
            _ => {
                let node = self.add(empty_directory(parent), facts)?;
                self.set_child(parent, name, node, true)
            }
        }
    }

    fn set_facts(&mut self, id: NodeId, facts: &Facts) -> Result<(), Trouble> {
        let xattrs = self.keep(&facts.xattrs)?;
        let node = Node { attributes: facts.attributes, xattrs, ..self.node(id)? };
        Ok(self.set_node(id, &node)?)
    }

    /// What a hard link to `target` would name.
    fn find_linkable(&mut self, target: &TreePath) -> Result<NodeId, Trouble> {
        let Some(node) = self.find(target.parts())? else {
            return Err(format!("its target `{target}` is not in the image").into());
        };
        match is_directory(&self.node(node)?) {
            false => Ok(node),
            true => Err(format!("its target `{target}` is a directory").into()),
        }
    }

    fn put_again(&mut self, parent: NodeId, name: &[u8], node: NodeId) -> Result<(), Trouble> {
        if let Some(child) = self.child(parent, name)?
            && child.node == node
        {
            return Ok(self.touch(parent, name, child)?);
        }
        // Counted first: what stands at `name` may be a directory that holds the target.
        self.count_name(node)?;
        self.set_child(parent, name, node, false)
    }

    /// Walks to a directory and creates what is missing. A lower layer's file or link on the way is
    /// replaced by a directory, as overlayfs would show it; one of the same layer is a contradiction.
    fn make_parents<'b>(&mut self, parts: impl IntoIterator<Item = &'b [u8]>) -> Result<NodeId, Trouble> {
        let mut node = NodeId::ROOT;
        for (depth, part) in parts.into_iter().enumerate() {
            if let Some((name, walked)) = self.walked.get(depth) {
                if **name == *part {
                    node = *walked;
                    continue;
                }
                self.walked.truncate(depth);
            }
            node = self.make_parent(node, part)?;
            self.walked.push((part.into(), node));
        }
        Ok(node)
    }

    fn make_parent(&mut self, node: NodeId, part: &[u8]) -> Result<NodeId, Trouble> {
        match self.child(node, part)? {
            Some(child) if child.is_directory => {
                self.touch(node, part, child)?;
                Ok(child.node)
            }
            Some(child) if child.layer == self.layer => {
                let what = match self.node(child.node)?.kind {
                    NodeKind::Symlink(_) => "a symbolic link",
                    _ => "not a directory",
                };
                Err(format!("`{}` on its way is {what}", hull_converter_protocol::shown(part)).into())
            }
            _ => {
                let facts = Facts { attributes: Attributes::of_implied_directory(), xattrs: Vec::new() };
                let new = self.add(empty_directory(node), &facts)?;
                // It replaces no directory, so the way there stays as it was walked.
                self.set_child(node, part, new, true)?;
                Ok(new)
            }
        }
    }

    fn touch(&mut self, parent: NodeId, name: &[u8], child: Child) -> io::Result<()> {
        if child.layer != self.layer {
            self.names.put(&mut self.pages, parent, name, Child { layer: self.layer, ..child })?;
        }
        Ok(())
    }

    fn add(&mut self, kind: NodeKind, facts: &Facts) -> Result<NodeId, Trouble> {
        self.charge(RECORD)?;
        let xattrs = self.keep(&facts.xattrs)?;
        Ok(self.append(&Node::new(kind, facts.attributes, xattrs))?)
    }

    fn append(&mut self, node: &Node) -> io::Result<NodeId> {
        let id = NodeId(self.nodes);
        self.nodes += 1;
        self.set_node(id, node)?;
        Ok(id)
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<Blob, Trouble> {
        self.charge(bytes.len())?;
        let size = u32::try_from(bytes.len()).expect("METADATA_MAX bounds it");
        let blob = Blob { start: self.bytes, size };
        self.pages.write(Region::Bytes, self.bytes.into(), bytes)?;
        self.bytes += size;
        Ok(blob)
    }

    fn set_child(
        &mut self,
        parent: NodeId,
        name: &[u8],
        node: NodeId,
        is_directory: bool,
    ) -> Result<(), Trouble> {
        self.charge(name.len() + NAME_COST)?;
        let child = Child { node, layer: self.layer, is_directory };
        // First what stood there goes, with all below it, for `node` may be its own or in it.
        if self.child(parent, name)?.is_some() {
            self.remove_child(parent, name)?;
        }
        self.names.put(&mut self.pages, parent, name, child)?;
        Ok(())
    }

    fn remove_child(&mut self, parent: NodeId, name: &[u8]) -> io::Result<()> {
        match self.names.remove(&mut self.pages, parent, name)? {
            Some(child) => self.unname(child.node),
            None => Ok(()),
        }
    }

    fn count_name(&mut self, id: NodeId) -> io::Result<()> {
        let node = self.node(id)?;
        self.set_node(id, &Node { names: node.names + 1, ..node })
    }

    /// Takes a name from a node, and if it was the last, from everything below.
    fn unname(&mut self, id: NodeId) -> io::Result<()> {
        let mut node = self.node(id)?;
        node.names -= 1;
        self.set_node(id, &node)?;
        match node.kind {
            _ if node.names > 0 => Ok(()),
            NodeKind::Directory(_) => self.empty(id),
            NodeKind::File(extent) if extent.size > 0 => self.free(extent),
            _ => Ok(()),
        }
    }

    /// Takes all names out of a directory.
    fn empty(&mut self, directory: NodeId) -> io::Result<()> {
        self.walked.clear();
        // Not recursive: a hostile tree is as deep as a path is long.
        let mut pending = vec![directory];
        while let Some(directory) = pending.last().copied() {
            let mut cursor = self.names.cursor(&mut self.pages, directory, b"")?;
            match cursor.next(&mut self.pages)? {
                Some((parent, child)) if parent == directory => {
                    self.names.remove(&mut self.pages, directory, cursor.name())?;
                    match child.is_directory {
                        true => pending.push(child.node),
                        false => self.unname(child.node)?,
                    }
                }
                _ => drop(pending.pop()),
            }
        }
        Ok(())
    }

    fn free(&mut self, extent: Extent) -> io::Result<()> {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&extent.start.to_le_bytes());
        bytes[8..].copy_from_slice(&extent.size.to_le_bytes());
        self.pages.write(Region::Freed, self.freed * 16, &bytes)?;
        self.freed += 1;
        Ok(())
    }

    /// Removes from a directory, and from those below it, every name that the current layer has not
    /// touched. Once a layer is enough: from then on it is the layer that adds.
    fn prune(&mut self, directory: NodeId) -> io::Result<()> {
        let mut pending = Vec::new();
        self.begin_to_prune(directory, &mut pending)?;
        while let Some((directory, name)) = pending.last_mut() {
            let directory = *directory;
            let mut cursor = self.names.cursor(&mut self.pages, directory, name)?;
            let mut next = cursor.next(&mut self.pages)?;
            if next.is_some_and(|(parent, _)| parent == directory) && cursor.name() == name {
                next = cursor.next(&mut self.pages)?;
            }
            let Some((_, child)) = next.filter(|(parent, _)| *parent == directory) else {
                pending.pop();
                continue;
            };
            cursor.name().clone_into(name);
            if child.layer != self.layer {
                self.remove_child(directory, cursor.name())?;
            } else if child.is_directory {
                self.begin_to_prune(child.node, &mut pending)?;
            }
        }
        Ok(())
    }

    fn begin_to_prune(&mut self, directory: NodeId, pending: &mut Vec<(NodeId, Vec<u8>)>) -> io::Result<()> {
        let node = self.node(directory)?;
        let pruned = self.layer + 1;
        if node.pruned != pruned {
            self.set_node(directory, &Node { pruned, ..node })?;
            pending.push((directory, Vec::new()));
        }
        Ok(())
    }

    fn count_entry(&mut self) -> Result<(), Refusal> {
        self.entries += 1;
        if self.entries > ENTRIES_MAX {
            return Err(format!("the image has more than {ENTRIES_MAX} entries"));
        }
        Ok(())
    }

    fn charge(&mut self, bytes: usize) -> Result<(), Refusal> {
        self.metadata += bytes;
        if self.metadata > METADATA_MAX {
            return Err(format!("the names and attributes of the image exceed {METADATA_MAX} bytes"));
        }
        Ok(())
    }
}

fn empty_directory(parent: NodeId) -> NodeKind {
    NodeKind::Directory(Directory { parent, directories: 0, size: 0 })
}

pub(crate) fn is_directory(node: &Node) -> bool {
    matches!(node.kind, NodeKind::Directory(_))
}

/// Of any length, so its digest stands for it.
fn hidden_name(path: &TreePath) -> String {
    Digest::of(Algorithm::Sha256, path.as_bytes()).hex().to_owned()
}

/// The page of a node's record, and where in it.
fn place(NodeId(id): NodeId) -> (u32, usize) {
    const IN_PAGE: u32 = (PAGE / RECORD) as u32;
    (id / IN_PAGE, (id % IN_PAGE) as usize * RECORD)
}

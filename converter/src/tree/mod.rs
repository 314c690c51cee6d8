//! The file tree of an image in memory: layers go in from the lowest up, one merged tree comes out.
//!
//! The rules are those of a stack of directories merged by overlayfs, where each layer was unpacked by
//! itself: a name of an upper layer replaces what lower layers have, directories of both are merged,
//! and a symbolic link on the way to a name is never followed. Pure: no I/O, no host paths. What a
//! layer's files hold lies elsewhere; the tree knows only where ([`Extent`]).

mod path;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::attributes::{Attributes, DeviceNumber, Xattr};
pub(crate) use path::TreePath;

/// Most entries of all layers together; bounds time, and with [`METADATA_MAX`] memory.
pub(crate) const ENTRIES_MAX: u32 = 4 << 20;

/// Bytes of names, targets, attributes and the nodes themselves that one tree may hold.
pub(crate) const METADATA_MAX: usize = 512 << 20;

/// What a node costs beside its names, roughly, in bytes.
const NODE_COST: usize = 200;

/// Where the blocks of a file lie in the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// In bytes; a multiple of the block size.
    pub(crate) start: u64,
    pub(crate) size: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NodeId(u32);

impl NodeId {
    pub(crate) const ROOT: NodeId = NodeId(0);

    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) kind: NodeKind,
    pub(crate) attributes: Attributes,
    /// Names that lead here; 0 once the node is gone.
    pub(crate) names: u32,
}

#[derive(Debug)]
pub(crate) enum NodeKind {
    Directory(BTreeMap<Box<[u8]>, Child>),
    File(Extent),
    Symlink(Box<[u8]>),
    CharacterDevice(DeviceNumber),
    BlockDevice(DeviceNumber),
    Fifo,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Child {
    pub(crate) node: NodeId,
    /// The last layer that had something at this name or below.
    layer: u16,
}

/// What a layer puts at a path.
#[derive(Debug)]
pub(crate) enum New {
    Directory(Attributes),
    Other(NodeKind, Attributes),
    HardLink(TreePath),
    /// One more name of something that was added unnamed.
    Again(NodeId),
}

#[derive(Debug)]
pub(crate) struct Tree {
    nodes: Vec<Node>,
    layer: u16,
    entries: u32,
    metadata: usize,
    /// Contents that no name leads to any more, for the owner of the output to give back.
    freed: Vec<Extent>,
}

/// Why an entry cannot be: the rest of a sentence about it.
pub(crate) type Refusal = String;

impl Tree {
    /// An empty root directory, and the lowest layer to come.
    pub(crate) fn new() -> Self {
        let attributes = Attributes::of_implied_directory();
        let root = Node { kind: NodeKind::Directory(BTreeMap::new()), attributes, names: 1 };
        Self { nodes: vec![root], layer: 0, entries: 0, metadata: 0, freed: Vec::new() }
    }

    /// Everything from here on belongs to the next layer up.
    pub(crate) fn next_layer(&mut self) {
        self.layer = self.layer.checked_add(1).expect("the number of layers was checked");
    }

    pub(crate) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    /// How many ids there are, those of vanished nodes included.
    pub(crate) fn ids(&self) -> usize {
        self.nodes.len()
    }

    pub(crate) fn children(&self, id: NodeId) -> Option<&BTreeMap<Box<[u8]>, Child>> {
        match &self.node(id).kind {
            NodeKind::Directory(children) => Some(children),
            _ => None,
        }
    }

    /// The contents that lost their last name since the last call.
    pub(crate) fn take_freed(&mut self) -> Vec<Extent> {
        std::mem::take(&mut self.freed)
    }

    /// Puts an entry of the current layer at `path`.
    pub(crate) fn put(&mut self, path: &TreePath, new: New) -> Result<(), Refusal> {
        self.count_entry()?;
        let Some((name, parents)) = path.split_last() else { return self.put_root(new) };
        let parent = self.make_parents(parents)?;
        match new {
            New::Directory(attributes) => self.put_directory(parent, name, attributes),
            New::Other(kind, attributes) => {
                let node = self.add(kind, attributes)?;
                self.set_child(parent, name, node)
            }
            New::HardLink(target) => {
                let node = self.find_linkable(&target)?;
                self.put_again(parent, name, node)
            }
            New::Again(node) => self.put_again(parent, name, node),
        }
    }

    /// Adds something that no name leads to yet. It stays until [`Self::let_go`].
    pub(crate) fn add_unnamed(&mut self, kind: NodeKind, attributes: Attributes) -> Result<NodeId, Refusal> {
        self.count_entry()?;
        self.add(kind, attributes)
    }

    /// Keeps a node until [`Self::let_go`], whatever happens to its names.
    pub(crate) fn hold(&mut self, node: NodeId) {
        self.nodes[node.index()].names += 1;
    }

    /// Ends what [`Self::add_unnamed`] or [`Self::hold`] began.
    pub(crate) fn let_go(&mut self, node: NodeId) {
        self.unname(node);
    }

    /// Removes what lower layers have at `path` (`.wh.NAME` of the OCI image format, "Whiteouts").
    /// What the current layer has there stays, whichever came first.
    pub(crate) fn white_out(&mut self, path: &TreePath) -> Result<(), Refusal> {
        self.count_entry()?;
        let Some((name, parents)) = path.split_last() else {
            return Err("it removes the root directory".into());
        };
        if let Some(parent) = self.find(parents)
            && let Some(child) = self.child(parent, name)
        {
            if child.layer == self.layer {
                self.prune(child.node);
            } else {
                self.remove_child(parent, name);
            }
        }
        Ok(())
    }

    /// Removes what lower layers have inside the directory `path` (`.wh..wh..opq`).
    pub(crate) fn white_out_inside(&mut self, path: &TreePath) -> Result<(), Refusal> {
        self.count_entry()?;
        if let Some(node) = self.find(path.parts()) {
            self.prune(node);
        }
        Ok(())
    }

    /// The node at a path of directories; links are not followed.
    fn find<'a>(&self, parts: impl IntoIterator<Item = &'a [u8]>) -> Option<NodeId> {
        parts.into_iter().try_fold(NodeId::ROOT, |node, part| Some(self.child(node, part)?.node))
    }

    fn child(&self, parent: NodeId, name: &[u8]) -> Option<Child> {
        self.children(parent)?.get(name).copied()
    }

    fn children_mut(&mut self, parent: NodeId) -> &mut BTreeMap<Box<[u8]>, Child> {
        match &mut self.nodes[parent.index()].kind {
            NodeKind::Directory(children) => children,
            _ => unreachable!("only directories become parents"),
        }
    }

    fn put_root(&mut self, new: New) -> Result<(), Refusal> {
        let New::Directory(attributes) = new else {
            return Err("it puts something in the place of the root directory".into());
        };
        self.charge(attributes_cost(&attributes))?;
        self.nodes[NodeId::ROOT.index()].attributes = attributes;
        Ok(())
    }

    fn put_directory(&mut self, parent: NodeId, name: &[u8], attributes: Attributes) -> Result<(), Refusal> {
        match self.child(parent, name) {
            Some(child) if self.children(child.node).is_some() => {
                self.charge(attributes_cost(&attributes))?;
                self.nodes[child.node.index()].attributes = attributes;
                self.touch(parent, name);
                Ok(())
            }
            _ => {
                let node = self.add(NodeKind::Directory(BTreeMap::new()), attributes)?;
                self.set_child(parent, name, node)
            }
        }
    }

    /// What a hard link to `target` would name.
    pub(crate) fn find_linkable(&self, target: &TreePath) -> Result<NodeId, Refusal> {
        let Some(node) = self.find(target.parts()) else {
            return Err(format!("its target `{target}` is not in the image"));
        };
        match self.children(node) {
            None => Ok(node),
            Some(_) => Err(format!("its target `{target}` is a directory")),
        }
    }

    fn put_again(&mut self, parent: NodeId, name: &[u8], node: NodeId) -> Result<(), Refusal> {
        if self.child(parent, name).is_some_and(|child| child.node == node) {
            self.touch(parent, name);
            return Ok(());
        }
        // Counted first: what stands at `name` may be a directory that holds the target.
        self.nodes[node.index()].names += 1;
        self.remove_child(parent, name);
        self.insert(parent, name, node)
    }

    /// Walks to a directory and creates what is missing. A lower layer's file or link on the way is
    /// replaced by a directory, as overlayfs would show it; one of the same layer is a contradiction.
    fn make_parents<'a>(&mut self, parts: impl IntoIterator<Item = &'a [u8]>) -> Result<NodeId, Refusal> {
        let mut node = NodeId::ROOT;
        for part in parts {
            let child = match self.child(node, part) {
                Some(child) if self.children(child.node).is_some() => {
                    self.touch(node, part);
                    child.node
                }
                Some(child) if child.layer == self.layer => {
                    let what = match self.node(child.node).kind {
                        NodeKind::Symlink(_) => "a symbolic link",
                        _ => "not a directory",
                    };
                    return Err(format!("`{}` on its way is {what}", hull_converter_protocol::shown(part)));
                }
                _ => {
                    let kind = NodeKind::Directory(BTreeMap::new());
                    let new = self.add(kind, Attributes::of_implied_directory())?;
                    self.set_child(node, part, new)?;
                    new
                }
            };
            node = child;
        }
        Ok(node)
    }

    fn touch(&mut self, parent: NodeId, name: &[u8]) {
        let layer = self.layer;
        if let Some(child) = self.children_mut(parent).get_mut(name) {
            child.layer = layer;
        }
    }

    fn add(&mut self, kind: NodeKind, attributes: Attributes) -> Result<NodeId, Refusal> {
        let target = if let NodeKind::Symlink(target) = &kind { target.len() } else { 0 };
        self.charge(NODE_COST + target + attributes_cost(&attributes))?;
        let id = NodeId(u32::try_from(self.nodes.len()).expect("METADATA_MAX bounds the nodes"));
        self.nodes.push(Node { kind, attributes, names: 1 });
        Ok(id)
    }

    fn set_child(&mut self, parent: NodeId, name: &[u8], node: NodeId) -> Result<(), Refusal> {
        self.remove_child(parent, name);
        self.insert(parent, name, node)
    }

    fn insert(&mut self, parent: NodeId, name: &[u8], node: NodeId) -> Result<(), Refusal> {
        self.charge(name.len() + size_of::<Child>())?;
        let child = Child { node, layer: self.layer };
        self.children_mut(parent).insert(name.into(), child);
        Ok(())
    }

    fn remove_child(&mut self, parent: NodeId, name: &[u8]) {
        if let Some(child) = self.children_mut(parent).remove(name) {
            self.unname(child.node);
        }
    }

    /// Takes a name from a node, and if it was the last, from everything below.
    fn unname(&mut self, node: NodeId) {
        // Not recursive: a hostile tree is as deep as a path is long.
        let mut pending = vec![node];
        while let Some(id) = pending.pop() {
            let node = &mut self.nodes[id.index()];
            node.names -= 1;
            if node.names > 0 {
                continue;
            }
            node.attributes.xattrs = Vec::new();
            match std::mem::replace(&mut node.kind, NodeKind::Fifo) {
                NodeKind::Directory(children) => pending.extend(children.values().map(|c| c.node)),
                NodeKind::File(extent) if extent.size > 0 => self.freed.push(extent),
                _ => (),
            }
        }
    }

    /// Removes from a directory, and from those below it, every name that the current layer has not
    /// touched.
    fn prune(&mut self, directory: NodeId) {
        let layer = self.layer;
        let mut pending = vec![directory];
        while let Some(id) = pending.pop() {
            if self.children(id).is_none() {
                continue;
            }
            let mut gone = Vec::new();
            self.children_mut(id).retain(|_, child| {
                let stays = child.layer == layer;
                if stays { &mut pending } else { &mut gone }.push(child.node);
                stays
            });
            gone.into_iter().for_each(|node| self.unname(node));
        }
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

fn attributes_cost(attributes: &Attributes) -> usize {
    attributes.xattrs.iter().map(|x| x.name.len() + x.value.len() + size_of::<Xattr>()).sum()
}

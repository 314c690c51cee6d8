//! Directory data: blocks of entries, each block sorted and complete in itself.

use std::io;

use super::format::{BLOCK, DIRENT_SIZE, FileType, put};
use super::layout::file_type;
use crate::tree::{Directory, NodeId, Tree};

/// What a directory says of itself before any name of it is written.
pub(super) struct Measured {
    /// Of its data, in bytes.
    pub(super) size: u64,
    /// How many directories are in it.
    pub(super) directories: u32,
}

pub(super) fn measure(tree: &mut Tree<'_>, id: NodeId, directory: Directory) -> io::Result<Measured> {
    let mut size = Size::default();
    let mut directories = 0;
    for_each_name(tree, id, directory, |_, name| {
        size.add(name.name.len());
        directories += u32::from(name.is_directory && !is_dots(name.name));
        Ok(())
    })?;
    Ok(Measured { size: size.total(), directories })
}

/// Gives each block of the directory's data to `take`, the last one as short as it is. All inodes have numbers.
pub(super) fn for_each_block(
    tree: &mut Tree<'_>,
    id: NodeId,
    directory: Directory,
    mut take: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut block = Block::default();
    for_each_name(tree, id, directory, |tree, name| {
        if !block.has_room(name.name) {
            let mut bytes = block.take();
            // Zeros end its last name.
            bytes.resize(usize::try_from(BLOCK).expect("a block is short"), 0);
            take(&bytes)?;
        }
        let node = tree.node(name.node)?;
        block.add(name.name, node.inode, file_type(&node.kind));
        Ok(())
    })?;
    take(&block.take())
}

struct Name<'a> {
    name: &'a [u8],
    node: NodeId,
    is_directory: bool,
}

/// The names of a directory in the order of their bytes, `.` and `..` where they belong.
fn for_each_name<'a>(
    tree: &mut Tree<'a>,
    id: NodeId,
    directory: Directory,
    mut take: impl FnMut(&mut Tree<'a>, Name<'_>) -> io::Result<()>,
) -> io::Result<()> {
    let dots: [(&[u8], NodeId); 2] = [(b".", id), (b"..", directory.parent)];
    let mut dots = dots.into_iter().peekable();
    let mut cursor = tree.names_from(id)?;
    while let Some((_, child)) = tree.next_name(&mut cursor)?.filter(|(parent, _)| *parent == id) {
        while let Some((name, node)) = dots.next_if(|(dot, _)| *dot < cursor.name()) {
            take(tree, Name { name, node, is_directory: true })?;
        }
        let name = Name { name: cursor.name(), node: child.node, is_directory: child.is_directory };
        take(tree, name)?;
    }
    dots.try_for_each(|(name, node)| take(tree, Name { name, node, is_directory: true }))
}

fn is_dots(name: &[u8]) -> bool {
    matches!(name, b"." | b"..")
}

/// How long the data of names is, which come in their order.
#[derive(Default)]
struct Size {
    full_blocks: u64,
    used: u64,
}

impl Size {
    fn add(&mut self, length: usize) {
        let need = (DIRENT_SIZE + length) as u64;
        if self.used + need > BLOCK {
            self.full_blocks += 1;
            self.used = 0;
        }
        self.used += need;
    }

    fn total(&self) -> u64 {
        self.full_blocks * BLOCK + self.used
    }
}

/// A block in the making.
#[derive(Default)]
struct Block {
    entries: Vec<(u32, FileType, usize)>,
    names: Vec<u8>,
}

impl Block {
    fn has_room(&self, name: &[u8]) -> bool {
        let used = self.entries.len() * DIRENT_SIZE + self.names.len();
        (used + DIRENT_SIZE + name.len()) as u64 <= BLOCK
    }

    fn add(&mut self, name: &[u8], inode: u32, file_type: FileType) {
        self.entries.push((inode, file_type, self.names.len()));
        self.names.extend_from_slice(name);
    }

    fn take(&mut self) -> Vec<u8> {
        let names_start = self.entries.len() * DIRENT_SIZE;
        let mut bytes = vec![0; names_start];
        for (index, (inode, file_type, offset)) in self.entries.drain(..).enumerate() {
            let start = index * DIRENT_SIZE;
            let offset = u16::try_from(names_start + offset).expect("a block is shorter than 64 KiB");
            put(&mut bytes, start, &u64::from(inode).to_le_bytes());
            put(&mut bytes, start + 8, &offset.to_le_bytes());
            put(&mut bytes, start + 10, &[file_type as u8]);
        }
        bytes.append(&mut self.names);
        bytes
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
                let (mut size, mut block, mut written) = (Size::default(), Block::default(), 0);
                for _ in 0..count {
                    size.add(length);
                    if !block.has_room(&name) {
                        assert!(block.take().len() as u64 <= BLOCK);
                        written += BLOCK;
                    }
                    block.add(&name, 7, FileType::Regular);
                }
                assert_eq!(size.total(), written + block.take().len() as u64, "{count} of {length}");
            }
        }
    }
}

//! Reads the file systems that `hull-converter` writes: flat files in blocks of 4 KiB, extended inodes,
//! attributes behind their inode (fs/erofs/erofs_fs.h of Linux). Whatever else EROFS can be is refused.
//!
//! Such a file is of our own making, but a disk can damage it: every number is checked before it is used.

use std::io;

const BLOCK: u64 = 4096;
const SUPER_OFFSET: u64 = 1024;
/// `EROFS_SUPER_MAGIC_V1`.
const MAGIC: u32 = 0xe0f5_e1e2;
/// Unit of inode numbers.
const SLOT: u64 = 32;
const INODE_SIZE: usize = 64;
const DIRENT_SIZE: usize = 12;
const XATTR_HEADER: usize = 12;

/// Longest directory or link that is read into memory: more than the converter accepts names for.
const OWN_DATA_MAX: u64 = 1 << 30;

/// Where the bytes come from.
pub(crate) trait Bytes {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

impl Bytes for std::fs::File {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(self, buffer, offset)
    }
}

impl Bytes for &[u8] {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(|_| wrong("a position is out of range"))?;
        let end = start.checked_add(buffer.len());
        let bytes = end.and_then(|end| self.get(start..end));
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// A file system.
pub(crate) struct Erofs<B> {
    bytes: B,
    metadata: u64,
    root: u64,
    inodes: u64,
}

/// A file, a directory, a link, a device.
#[derive(Debug)]
pub(crate) struct Inode {
    pub(crate) kind: Kind,
    /// The low twelve bits of `st_mode`.
    pub(crate) permissions: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) seconds: i64,
    pub(crate) nanoseconds: u32,
    pub(crate) links: u32,
    /// Whole names, `security.capability` say.
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    data: Data,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    File,
    Symlink,
    /// Major and minor number.
    CharacterDevice(u32, u32),
    BlockDevice(u32, u32),
    Fifo,
}

#[derive(Clone, Copy, Debug)]
struct Data {
    size: u64,
    /// Where the part in blocks begins, and how long it is.
    start: u64,
    in_blocks: u64,
    /// Where the rest begins.
    inline: u64,
}

/// A name in a directory.
#[derive(Debug)]
pub(crate) struct Name {
    pub(crate) name: Vec<u8>,
    pub(crate) inode: u64,
}

impl<B: Bytes> Erofs<B> {
    pub(crate) fn open(bytes: B) -> io::Result<Self> {
        let mut head = [0; 64];
        bytes.read_exact_at(&mut head, SUPER_OFFSET)?;
        // No incompatible feature, 4 KiB blocks.
        if u32_at(&head, 0) != MAGIC || head[12] != 12 {
            return Err(wrong("it is no file system of this kind"));
        }
        let metadata = u64::from(u32_at(&head, 40)) * BLOCK;
        Ok(Self { bytes, metadata, root: u64::from(u16_at(&head, 14)), inodes: u64_at(&head, 16) })
    }

    pub(crate) fn bytes(&self) -> &B {
        &self.bytes
    }

    pub(crate) fn root(&self) -> u64 {
        self.root
    }

    /// How many inodes it says it has.
    pub(crate) fn inodes(&self) -> u64 {
        self.inodes
    }

    pub(crate) fn inode(&self, number: u64) -> io::Result<Inode> {
        let offset = number.checked_mul(SLOT).and_then(|offset| offset.checked_add(self.metadata));
        let offset = offset.ok_or_else(|| wrong("an inode number is out of range"))?;
        let mut head = [0; INODE_SIZE];
        self.bytes.read_exact_at(&mut head, offset)?;
        let format = u16_at(&head, 0);
        let xattrs_size = match u64::from(u16_at(&head, 2)) {
            0 => 0,
            count => XATTR_HEADER as u64 + (count - 1) * 4,
        };
        let behind =
            offset.checked_add(INODE_SIZE as u64).ok_or_else(|| wrong("an inode is out of range"))?;
        let inline = behind.checked_add(xattrs_size).ok_or_else(|| wrong("an inode is out of range"))?;
        let (mode, size, union) = (u16_at(&head, 4), u64_at(&head, 8), u32_at(&head, 16));
        let in_blocks = match format {
            0b001 => size,
            0b101 => size / BLOCK * BLOCK,
            _ => return Err(wrong("an inode has a format that hull does not write")),
        };
        let (major, minor) = ((union >> 8) & 0xfff, (union & 0xff) | ((union >> 12) & 0xf_ff00));
        let kind = match mode & 0o170_000 {
            0o040_000 => Kind::Directory,
            0o100_000 => Kind::File,
            0o120_000 => Kind::Symlink,
            0o020_000 => Kind::CharacterDevice(major, minor),
            0o060_000 => Kind::BlockDevice(major, minor),
            0o010_000 => Kind::Fifo,
            _ => return Err(wrong("an inode is of no known type")),
        };
        Ok(Inode {
            kind,
            permissions: mode & 0o7777,
            uid: u32_at(&head, 24),
            gid: u32_at(&head, 28),
            seconds: i64::from_le_bytes(array(&head, 32)),
            nanoseconds: u32_at(&head, 40),
            links: u32_at(&head, 44),
            xattrs: self.xattrs(behind, xattrs_size)?,
            data: Data { size, start: u64::from(union) * BLOCK, in_blocks, inline },
        })
    }

    fn xattrs(&self, offset: u64, size: u64) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        if size == 0 {
            return Ok(Vec::new());
        }
        let mut body = vec![0; usize::try_from(size).expect("it was counted in 16 bits")];
        self.bytes.read_exact_at(&mut body, offset)?;
        if body[4] != 0 {
            return Err(wrong("an inode shares attributes with others"));
        }
        let mut rest = &body[XATTR_HEADER..];
        let mut xattrs = Vec::new();
        while let Some((head, after)) = rest.split_at_checked(4) {
            let (name_len, value_len) = (usize::from(head[0]), usize::from(u16_at(head, 2)));
            let prefix: &[u8] = match head[1] {
                1 => b"user.",
                2 => b"system.posix_acl_access",
                3 => b"system.posix_acl_default",
                4 => b"trusted.",
                6 => b"security.",
                _ => return Err(wrong("an attribute is of no known namespace")),
            };
            let long = || wrong("an attribute is longer than its place");
            let (name, after) = after.split_at_checked(name_len).ok_or_else(long)?;
            let (value, _) = after.split_at_checked(value_len).ok_or_else(long)?;
            xattrs.push(([prefix, name].concat(), value.to_vec()));
            let used = (4 + name_len + value_len).next_multiple_of(4);
            rest = rest.get(used..).ok_or_else(long)?;
        }
        Ok(xattrs)
    }

    /// Where a link leads.
    pub(crate) fn target(&self, link: &Inode) -> io::Result<Vec<u8>> {
        self.own_data(link)
    }

    /// The names in a directory, without `.` and `..`; none of them could lead anywhere else.
    pub(crate) fn names(&self, directory: &Inode) -> io::Result<Vec<Name>> {
        let data = self.own_data(directory)?;
        let mut names = Vec::new();
        for block in data.chunks(usize::try_from(BLOCK).expect("it is short")) {
            names_in(block, &mut names)?;
        }
        Ok(names)
    }

    fn own_data(&self, inode: &Inode) -> io::Result<Vec<u8>> {
        let Data { size, start, in_blocks, inline } = inode.data;
        if size > OWN_DATA_MAX {
            return Err(wrong("a directory or a link is too long"));
        }
        let mut data = Vec::new();
        // In pieces, so that a size that lies ends at the file's end and not in memory.
        for (mut from, mut left) in [(start, in_blocks), (inline, size - in_blocks)] {
            while left > 0 {
                let piece = left.min(BLOCK);
                let old = data.len();
                data.resize(old + usize::try_from(piece).expect("a block is short"), 0);
                self.bytes.read_exact_at(&mut data[old..], from)?;
                from = from.checked_add(piece).ok_or_else(|| wrong("data is out of range"))?;
                left -= piece;
            }
        }
        Ok(data)
    }
}

/// A part of a file's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// In the content.
    pub(crate) at: u64,
    /// In the file system.
    pub(crate) start: u64,
    pub(crate) size: u64,
}

impl Inode {
    /// The size of a file's content, and where it lies: in blocks, and what is left beside the inode.
    pub(crate) fn content(&self) -> (u64, [Piece; 2]) {
        let Data { size, start, in_blocks, inline } = self.data;
        let left = size - in_blocks;
        (size, [Piece { at: 0, start, size: in_blocks }, Piece { at: in_blocks, start: inline, size: left }])
    }
}

fn names_in(block: &[u8], names: &mut Vec<Name>) -> io::Result<()> {
    let entry = |index: usize| block.get(index * DIRENT_SIZE..(index + 1) * DIRENT_SIZE);
    let no_name = || wrong("a name lies outside of its directory");
    let first = entry(0).ok_or_else(no_name)?;
    let count = usize::from(u16_at(first, 8)) / DIRENT_SIZE;
    for index in 0..count {
        let start = usize::from(u16_at(entry(index).ok_or_else(no_name)?, 8));
        let end = match index + 1 == count {
            true => block.len(),
            false => usize::from(u16_at(entry(index + 1).ok_or_else(no_name)?, 8)),
        };
        let name = block.get(start..end).ok_or_else(no_name)?;
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        match name {
            b"." | b".." => continue,
            name if name.is_empty() || name.contains(&b'/') => return Err(wrong("a name is none")),
            name => {
                let inode = u64_at(entry(index).ok_or_else(no_name)?, 0);
                names.push(Name { name: name.to_vec(), inode });
            }
        }
    }
    Ok(())
}

fn wrong(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

fn array<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    bytes[offset..offset + N].try_into().expect("the range has that length")
}

fn u16_at(bytes: &[u8], offset: usize) -> u16 {
    u16::from_le_bytes(array(bytes, offset))
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(array(bytes, offset))
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(array(bytes, offset))
}

/// Reads everything there is.
pub(crate) fn read_all(bytes: &[u8]) -> io::Result<()> {
    let erofs = Erofs::open(bytes)?;
    let mut seen = std::collections::BTreeSet::new();
    let mut pending = vec![erofs.root()];
    while let Some(number) = pending.pop().filter(|_| seen.len() as u64 <= erofs.inodes()) {
        if !seen.insert(number) {
            continue;
        }
        let inode = erofs.inode(number)?;
        match inode.kind {
            Kind::Directory => pending.extend(erofs.names(&inode)?.into_iter().map(|name| name.inode)),
            Kind::Symlink => drop(erofs.target(&inode)?),
            Kind::File => drop(inode.content()),
            _ => (),
        }
    }
    Ok(())
}

/// For the fuzzer: reads everything in a file system that hull made, which must be sound, and gives each file's
/// content to `content`.
pub(crate) fn read_sound(bytes: &[u8], mut content: impl FnMut(&[u8])) -> io::Result<()> {
    let erofs = Erofs::open(bytes)?;
    let mut links = std::collections::BTreeMap::new();
    // A directory's own name and its `.`; the root has no name, but its `..`.
    let mut pending = vec![erofs.root()];
    links.insert(erofs.root(), 2);
    while let Some(number) = pending.pop() {
        let names = erofs.names(&erofs.inode(number)?)?;
        assert!(names.is_sorted_by(|a, b| a.name < b.name), "names are sorted, each there once");
        for name in names {
            let inode = erofs.inode(name.inode)?;
            match inode.kind {
                Kind::Directory => {
                    assert_eq!(links.insert(name.inode, 2), None, "a directory has one name");
                    *links.get_mut(&number).expect("it was met") += 1;
                    pending.push(name.inode);
                    continue;
                }
                Kind::Symlink => assert!(!erofs.target(&inode)?.is_empty(), "a link leads somewhere"),
                Kind::File => {
                    let (size, pieces) = inode.content();
                    let mut whole = vec![0; usize::try_from(size).expect("a fuzzer's files are short")];
                    for piece in pieces {
                        let range = piece.at as usize..(piece.at + piece.size) as usize;
                        bytes.read_exact_at(&mut whole[range], piece.start)?;
                    }
                    content(&whole);
                }
                _ => (),
            }
            *links.entry(name.inode).or_insert(0) += 1;
        }
    }
    assert_eq!(links.len() as u64, erofs.inodes(), "there are as many inodes as it says");
    for (number, count) in links {
        assert_eq!(erofs.inode(number)?.links, count, "inode {number} has as many names as it says");
    }
    Ok(())
}

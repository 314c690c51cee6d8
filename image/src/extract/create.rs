//! Makes files, each with one name in an open directory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, SeekFrom, Timespec, Timestamps, Uid, XattrFlags,
    chownat, fchmod, ftruncate, linkat, lsetxattr, makedev, mkdirat, mknodat, openat, openat2, seek,
    symlinkat, utimensat,
};
use rustix::io::Errno;

use super::erofs::{self, Erofs, Inode, Piece};
use crate::digest::ImageId;
use crate::error::{shown, way_out, writing};
use crate::{Error, Kind};

const COPY_SIZE: usize = 1 << 20;

/// A file made for nobody but us, until its attributes are set.
const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);

/// Writes everything in a file system below `root`, an empty directory.
pub(super) fn tree(id: &ImageId, file_system: &File, root: BorrowedFd<'_>) -> Result<(), Error> {
    let erofs = Erofs::open(file_system.try_clone().map_err(|e| unreadable(id, e))?);
    let erofs = erofs.map_err(|e| unreadable(id, e))?;
    let mut writer = Writer { id, erofs, root, first_names: BTreeMap::new(), directories: Vec::new() };
    writer.write()
}

/// Writes a short file beside the tree.
pub(super) fn document(folder: BorrowedFd<'_>, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mode = PRIVATE | Mode::RGRP | Mode::ROTH;
    let mut file = File::from(openat(folder, name, NEW_FILE, mode)?);
    file.write_all(bytes)
}

const NEW_FILE: OFlags =
    OFlags::CREATE.union(OFlags::EXCL).union(OFlags::WRONLY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

struct Writer<'a> {
    id: &'a ImageId,
    erofs: Erofs<File>,
    root: BorrowedFd<'a>,
    /// Of inodes with several names, where the first one is.
    first_names: BTreeMap<u64, Place>,
    /// All directories, parents first. They get their attributes last: what is made in one changes its time,
    /// and could not be made in one that is read-only.
    directories: Vec<(Vec<u8>, Inode)>,
}

/// A directory's path below the root, and a name in it.
#[derive(Clone)]
struct Place {
    folder: Vec<u8>,
    name: Vec<u8>,
}

impl Place {
    fn path(&self) -> Vec<u8> {
        match &*self.folder {
            b"" => self.name.clone(),
            folder => [folder, b"/", &self.name].concat(),
        }
    }
}

impl Writer<'_> {
    fn write(&mut self) -> Result<(), Error> {
        let root = self.erofs.root();
        let inode = self.inode(root)?;
        self.directories.push((Vec::new(), inode));
        let mut next = 0;
        while next < self.directories.len() {
            self.fill(next)?;
            next += 1;
        }
        while let Some((path, inode)) = self.directories.pop() {
            let done = self.open(&path).and_then(|folder| Made::Open(folder.as_fd()).finish(&inode));
            done.map_err(|step| self.failed(&path, step))?;
        }
        Ok(())
    }

    fn fill(&mut self, index: usize) -> Result<(), Error> {
        let (path, inode) = &self.directories[index];
        let (path, names) = (path.clone(), self.erofs.names(inode).map_err(|e| unreadable(self.id, e))?);
        let folder = self.open(&path).map_err(|step| self.failed(&path, step))?;
        for name in names {
            let inode = self.inode(name.inode)?;
            let place = Place { folder: path.clone(), name: name.name };
            self.make(folder.as_fd(), &place, name.inode, &inode)
                .map_err(|step| self.failed(&place.path(), step))?;
            if inode.kind == erofs::Kind::Directory {
                // Each has one name. A damaged file system may say otherwise, and never end.
                if self.directories.len() as u64 >= self.erofs.inodes() {
                    let error = io::Error::new(io::ErrorKind::InvalidData, "it has too many directories");
                    return Err(unreadable(self.id, error));
                }
                self.directories.push((place.path(), inode));
            }
        }
        Ok(())
    }

    fn make(
        &mut self,
        folder: BorrowedFd<'_>,
        place: &Place,
        number: u64,
        inode: &Inode,
    ) -> Result<(), Failed> {
        let name = &*place.name;
        if inode.kind == erofs::Kind::Directory {
            return mkdirat(folder, name, Mode::RWXU).map_err(|e| step("make it", e));
        }
        if let Some(first) = self.first_names.get(&number) {
            let from = self.open(&first.folder)?;
            let linked = linkat(from.as_fd(), &*first.name, folder, name, AtFlags::empty());
            return linked.map_err(|e| step("make it a hard link", e));
        }
        if inode.links > 1 {
            self.first_names.insert(number, place.clone());
        }
        let node = |kind, device| {
            let made = mknodat(folder, name, kind, Mode::empty(), device);
            made.map_err(|e| step("make the device", e))
        };
        match inode.kind {
            erofs::Kind::File => {
                let file = openat(folder, name, NEW_FILE, PRIVATE).map_err(|e| step("make it", e))?;
                let file = File::from(file);
                self.copy(inode, &file).map_err(|e| Failed { what: "write its content".into(), cause: e })?;
                return Made::Open(file.as_fd()).finish(inode);
            }
            erofs::Kind::Symlink => {
                let target = self
                    .erofs
                    .target(inode)
                    .map_err(|e| Failed { what: "read its target".into(), cause: e })?;
                symlinkat(&*target, folder, name).map_err(|e| step("make it", e))?;
            }
            erofs::Kind::CharacterDevice(major, minor) => {
                node(FileType::CharacterDevice, makedev(major, minor))?;
            }
            erofs::Kind::BlockDevice(major, minor) => node(FileType::BlockDevice, makedev(major, minor))?,
            erofs::Kind::Fifo => node(FileType::Fifo, 0)?,
            erofs::Kind::Directory => unreachable!("it was made above"),
        }
        Made::Named(folder, name).finish(inode)
    }

    /// Copies a file's content; its holes become holes.
    fn copy(&self, inode: &Inode, file: &File) -> io::Result<()> {
        let (size, pieces) = inode.content();
        ftruncate(file, size)?;
        pieces.into_iter().filter(|piece| piece.size > 0).try_for_each(|piece| self.copy_piece(piece, file))
    }

    fn copy_piece(&self, Piece { at, start, size }: Piece, file: &File) -> io::Result<()> {
        let end = start.checked_add(size).ok_or(io::ErrorKind::InvalidData)?;
        let source = self.erofs.bytes();
        let mut buffer = vec![0; COPY_SIZE.min(usize::try_from(size).unwrap_or(COPY_SIZE))];
        let mut position = start;
        while position < end {
            let data = match seek(source, SeekFrom::Data(position)) {
                Ok(data) if data < end => data,
                // Nothing but a hole is left.
                Ok(_) | Err(Errno::NXIO) => return Ok(()),
                Err(e) => return Err(e.into()),
            };
            let hole = seek(source, SeekFrom::Hole(data))?.min(end);
            position = data;
            while position < hole {
                let left = usize::try_from(hole - position).unwrap_or(usize::MAX);
                let bytes = &mut buffer[..left.min(COPY_SIZE)];
                source.read_exact_at(bytes, position)?;
                file.write_all_at(bytes, at + (position - start))?;
                position += bytes.len() as u64;
            }
        }
        Ok(())
    }

    /// Opens a directory below the root, where no link is followed.
    fn open(&self, path: &[u8]) -> Result<OwnedFd, Failed> {
        let path = if path.is_empty() { b".".as_slice() } else { path };
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        loop {
            match openat2(self.root, path, flags, Mode::empty(), resolve) {
                // Somebody renamed something on the way, says openat2(2), somewhere on this host.
                Err(Errno::AGAIN) => (),
                opened => return opened.map_err(|e| step("open it", e)),
            }
        }
    }

    fn inode(&self, number: u64) -> Result<Inode, Error> {
        self.erofs.inode(number).map_err(|e| unreadable(self.id, e))
    }

    fn failed(&self, path: &[u8], Failed { what, cause }: Failed) -> Error {
        let hint = match cause.kind() {
            io::ErrorKind::PermissionDenied => {
                " (only root makes files that belong to others, devices and file capabilities: run it as root)"
            }
            _ => way_out(&cause),
        };
        let text = format!("extract image {}: `{}`: {what}{hint}", self.id, shown(path));
        Error::because(writing(&cause), text, cause)
    }
}

/// A file whose attributes are to be set.
enum Made<'a> {
    Open(BorrowedFd<'a>),
    /// A link or a device, which is not opened.
    Named(BorrowedFd<'a>, &'a [u8]),
}

impl Made<'_> {
    /// In this order: a new owner takes set-uid bits and capabilities away, and everything sets the time.
    fn finish(&self, inode: &Inode) -> Result<(), Failed> {
        let owner = (Some(Uid::from_raw(inode.uid)), Some(Gid::from_raw(inode.gid)));
        let owned = match self {
            Made::Open(file) => rustix::fs::fchown(file, owner.0, owner.1),
            Made::Named(folder, name) => chownat(folder, *name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW),
        };
        owned.map_err(|e| step(&format!("give it to user {} and group {}", inode.uid, inode.gid), e))?;
        for (name, value) in &inode.xattrs {
            self.set_xattr(name, value)
                .map_err(|e| step(&format!("set its attribute `{}`", shown(name)), e))?;
        }
        let mode = Mode::from_raw_mode(u32::from(inode.permissions));
        match self {
            Made::Open(file) => fchmod(file, mode).map_err(|e| step("set its mode", e))?,
            // Links have none.
            Made::Named(..) if inode.kind == erofs::Kind::Symlink => (),
            Made::Named(folder, name) => {
                // It is no link, and nobody else can put one in its place.
                rustix::fs::chmodat(folder, *name, mode, AtFlags::empty())
                    .map_err(|e| step("set its mode", e))?;
            }
        }
        let time = Timespec { tv_sec: inode.seconds, tv_nsec: i64::from(inode.nanoseconds) };
        let times = Timestamps { last_access: time, last_modification: time };
        let timed = match self {
            Made::Open(file) => rustix::fs::futimens(file, &times),
            Made::Named(folder, name) => utimensat(folder, *name, &times, AtFlags::SYMLINK_NOFOLLOW),
        };
        timed.map_err(|e| step("set its time", e))
    }

    fn set_xattr(&self, name: &[u8], value: &[u8]) -> rustix::io::Result<()> {
        match self {
            Made::Open(file) => rustix::fs::fsetxattr(file, name, value, XattrFlags::empty()),
            // No call takes a directory and a name.
            Made::Named(folder, file) => {
                let path = [format!("/proc/self/fd/{}/", folder.as_raw_fd()).as_bytes(), file].concat();
                lsetxattr(&*path, name, value, XattrFlags::empty())
            }
        }
    }
}

/// What could not be done to a file.
struct Failed {
    what: String,
    cause: io::Error,
}

fn step(what: &str, errno: Errno) -> Failed {
    Failed { what: what.to_owned(), cause: errno.into() }
}

fn unreadable(id: &ImageId, error: io::Error) -> Error {
    let text = format!("read the file system of image {id} (hull image verify rebuilds it)");
    Error::because(Kind::Corrupt, text, error)
}

//! An empty volume begins with what the image has at its mount point, as Docker has it.
//!
//! The image is a stranger's: its links are copied and never followed, and how deep it goes is bounded. How much
//! it is, the volume's own size bounds.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{
    AtFlags, Dir, FileType, FlockOperation, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
    chownat, fchmod, fchown, fgetxattr, flistxattr, flock, fsetxattr, fstat, futimens, linkat, mkdirat,
    mknodat, openat, readlinkat, statat, symlinkat, utimensat,
};
use rustix::io::Errno;

/// Deepest directory that is copied; each level holds four descriptors.
const DEPTH_MAX: usize = 100;

/// Bytes that are moved at a time, and the size of the smallest hole that is kept.
const CHUNK: usize = 64 << 10;

/// Longest value of an extended attribute, and longest list of their names (`XATTR_SIZE_MAX` and `XATTR_LIST_MAX`
/// of linux/limits.h).
const ATTRIBUTE_MAX: usize = 64 << 10;

/// Fills the volume, if nothing is in it, from the directory; both may be open for a look only.
pub(crate) fn begin_with(volume: BorrowedFd<'_>, image: BorrowedFd<'_>) -> io::Result<()> {
    let to = directory(volume, c".")?;
    // The pod's apps start side by side, and one of them is the first.
    flock(&to, FlockOperation::LockExclusive)?;
    if names(to.as_fd())?.next().is_some() {
        return Ok(());
    }
    let from = directory(image, c".")?;
    let mut copying = Copying { top: to.as_fd(), links: BTreeMap::new() };
    copying.children(from.as_fd(), to.as_fd(), &[], 0)?;
    dress(from.as_fd(), to.as_fd())
}

fn directory(at: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(at, name, flags, Mode::empty())
}

fn names(dir: BorrowedFd<'_>) -> io::Result<impl Iterator<Item = io::Result<CString>>> {
    let own = |name: &CStr| name == c"." || name == c"..";
    Ok(Dir::read_from(dir)?.filter_map(move |entry| match entry {
        Ok(entry) => (!own(entry.file_name())).then(|| Ok(entry.file_name().to_owned())),
        Err(why) => Some(Err(why.into())),
    }))
}

struct Copying<'a> {
    /// The volume.
    top: BorrowedFd<'a>,
    /// Where a file with several names is already, from the volume's top, by device and inode.
    links: BTreeMap<(u64, u64), CString>,
}

impl Copying<'_> {
    fn children(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        path: &[u8],
        depth: usize,
    ) -> io::Result<()> {
        if depth > DEPTH_MAX {
            return Err(io::Error::other(format!("it is deeper than {DEPTH_MAX} directories")));
        }
        for name in names(from)? {
            let name = name?;
            let path = if path.is_empty() {
                name.to_bytes().to_vec()
            } else {
                [path, b"/", name.to_bytes()].concat()
            };
            let copied = self.entry(from, to, &name, &path, depth);
            copied.map_err(|why| {
                io::Error::new(why.kind(), format!("{}: {why}", String::from_utf8_lossy(&path)))
            })?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &CStr,
        path: &[u8],
        depth: usize,
    ) -> io::Result<()> {
        let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory {
            mkdirat(to, name, Mode::RWXU)?;
            let (from, to) = (directory(from, name)?, directory(to, name)?);
            self.children(from.as_fd(), to.as_fd(), path, depth + 1)?;
            return dress(from.as_fd(), to.as_fd());
        }
        if stat.st_nlink > 1 {
            let key = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&key) {
                return Ok(linkat(self.top, first, to, name, AtFlags::empty())?);
            }
            self.links.insert(key, CString::new(path).expect("names of files have no NUL"));
        }
        match kind {
            FileType::RegularFile => regular(from, to, name),
            FileType::Symlink => {
                symlinkat(readlinkat(from, name, vec![])?, to, name)?;
                own_at(to, name, &stat)
            }
            kind => {
                mknodat(to, name, kind, Mode::from_raw_mode(stat.st_mode), stat.st_rdev)?;
                own_at(to, name, &stat)
            }
        }
    }
}

fn regular(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let mut source = File::from(openat(from, name, flags | OFlags::RDONLY, Mode::empty())?);
    let new = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
    let target = File::from(openat(to, name, flags | new, Mode::RUSR | Mode::WUSR)?);
    let mut chunk = vec![0; CHUNK];
    let mut len = 0;
    loop {
        let count = match source.read(&mut chunk) {
            Ok(0) => break,
            Err(why) if why.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        };
        // What is not written stays a hole.
        if chunk[..count].iter().any(|byte| *byte != 0) {
            target.write_all_at(&chunk[..count], len)?;
        }
        len += count as u64;
    }
    target.set_len(len)?;
    (&target).flush()?;
    dress(source.as_fd(), target.as_fd())
}

/// Owner, attributes, mode and times, in the order in which none undoes another.
fn dress(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let stat = fstat(from)?;
    fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    attributes(from, to)?;
    fchmod(to, Mode::from_raw_mode(stat.st_mode))?;
    Ok(futimens(to, &times(&stat))?)
}

fn attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let mut list = vec![0_u8; ATTRIBUTE_MAX];
    let count = match flistxattr(from, &mut list[..]) {
        Err(Errno::OPNOTSUPP) => return Ok(()),
        other => other?,
    };
    let mut value = vec![0_u8; ATTRIBUTE_MAX];
    for name in list[..count].split_inclusive(|byte| *byte == 0) {
        let name = CStr::from_bytes_with_nul(name).map_err(io::Error::other)?;
        let len = fgetxattr(from, name, &mut value[..])?;
        match fsetxattr(to, name, &value[..len], XattrFlags::empty()) {
            // A file system without attributes of that kind, as tmpfs before Linux 6.6.
            Err(Errno::OPNOTSUPP) => (),
            other => other?,
        }
    }
    Ok(())
}

fn own_at(to: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(utimensat(to, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)?)
}

fn times(stat: &Stat) -> Timestamps {
    let time = |seconds: i64, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).expect("below a thousand million"),
    };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
    use std::path::Path;

    use super::*;

    fn begin(volume: &Path, image: &Path) -> io::Result<()> {
        let look = |path: &Path| File::open(path).unwrap();
        begin_with(look(volume).as_fd(), look(image).as_fd())
    }

    #[test]
    fn everything_comes_along_as_it_was() {
        let (image, volume) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let at = |name: &str| image.path().join(name);
        fs::create_dir(at("dir")).unwrap();
        fs::write(at("dir/file"), "text").unwrap();
        chown(at("dir/file"), Some(7), Some(8)).expect("these tests need root");
        fs::set_permissions(at("dir/file"), fs::Permissions::from_mode(0o4751)).unwrap();
        fs::hard_link(at("dir/file"), at("other")).unwrap();
        symlink("/etc/passwd", at("link")).unwrap();
        nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let hole = File::create(at("hole")).unwrap();
        hole.set_len(10 << 20).unwrap();
        hole.write_all_at(b"end", (10 << 20) - 3).unwrap();
        fsetxattr(File::open(at("other")).unwrap(), "security.test", b"value", XattrFlags::empty()).unwrap();
        fs::set_permissions(image.path(), fs::Permissions::from_mode(0o1777)).unwrap();

        begin(volume.path(), image.path()).unwrap();
        let at = |name: &str| volume.path().join(name);
        let file = fs::metadata(at("dir/file")).unwrap();
        assert_eq!((file.uid(), file.gid(), file.mode() & 0o7777, file.nlink()), (7, 8, 0o4751, 2));
        assert_eq!(file.mtime_nsec(), fs::metadata(image.path().join("other")).unwrap().mtime_nsec());
        assert_eq!(fs::metadata(at("other")).unwrap().ino(), file.ino());
        assert_eq!(fs::read_link(at("link")).unwrap(), Path::new("/etc/passwd"));
        let hole = fs::metadata(at("hole")).unwrap();
        assert!(hole.len() == 10 << 20 && hole.blocks() < 1000, "{} blocks", hole.blocks());
        assert_eq!(fs::metadata(volume.path()).unwrap().mode() & 0o7777, 0o1777);
        let mut value = [0; 5];
        fgetxattr(File::open(at("other")).unwrap(), "security.test", &mut value[..]).unwrap();
        assert_eq!(&value, b"value");
    }

    #[test]
    fn a_volume_with_something_in_it_is_left_alone() {
        let (image, volume) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(image.path().join("new"), "").unwrap();
        fs::write(volume.path().join("old"), "").unwrap();
        begin(volume.path(), image.path()).unwrap();
        assert!(!volume.path().join("new").exists());
    }

    #[test]
    fn depth_is_bounded() {
        let (image, volume) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir_all(image.path().join("d/".repeat(DEPTH_MAX + 2))).unwrap();
        assert!(begin(volume.path(), image.path()).unwrap_err().to_string().contains("deeper"));
    }
}

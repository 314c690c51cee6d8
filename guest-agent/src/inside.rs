//! Paths inside an app's root. The image decides what lies there, so no path is ever followed out of
//! it, and nothing is mounted where the image put a symbolic link.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, mkdirat, mknodat};

/// Most directories that one path may make: `PATH_MAX` over two bytes a name.
const DEPTH_MAX: usize = 2048;

/// A directory that paths are resolved in as if it were `/`.
#[derive(Debug)]
pub(crate) struct Root(OwnedFd);

impl Root {
    pub(crate) fn open(path: &str) -> nix::Result<Self> {
        let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC);
        openat2(AT_FDCWD, path, how).map(Self)
    }

    /// Opens what `path` leads to, symbolic links followed within the root. Links of procfs, which lead
    /// anywhere, are refused.
    pub(crate) fn follow(&self, path: &str, flags: OFlag) -> nix::Result<OwnedFd> {
        self.resolve(path, flags, ResolveFlag::RESOLVE_NO_MAGICLINKS)
    }

    /// Opens `path` if no part of it is a symbolic link.
    pub(crate) fn exactly(&self, path: &str, flags: OFlag) -> nix::Result<OwnedFd> {
        self.resolve(path, flags, ResolveFlag::RESOLVE_NO_SYMLINKS)
    }

    fn resolve(&self, path: &str, flags: OFlag, how: ResolveFlag) -> nix::Result<OwnedFd> {
        let mode =
            if flags.contains(OFlag::O_CREAT) { Mode::from_bits_truncate(0o644) } else { Mode::empty() };
        // With O_PATH nothing is opened that could become our terminal, and openat2 is strict.
        let no_terminal = if flags.contains(OFlag::O_PATH) { OFlag::empty() } else { OFlag::O_NOCTTY };
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC | no_terminal)
            .mode(mode)
            .resolve(how | ResolveFlag::RESOLVE_IN_ROOT);
        openat2(&self.0, path, how)
    }

    /// Opens a directory to mount on, and makes it if it is missing.
    pub(crate) fn mount_point(&self, name: &str) -> nix::Result<Place> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        match self.exactly(name, flags) {
            Err(Errno::ENOENT) => {
                mkdirat(&self.0, name, Mode::from_bits_truncate(0o755))?;
                self.exactly(name, flags).map(Place)
            }
            other => other.map(Place),
        }
    }

    /// Opens the directory `path`, and makes what is missing of it.
    pub(crate) fn make_directories(&self, path: &str) -> nix::Result<OwnedFd> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        match self.follow(path, flags) {
            Err(Errno::ENOENT) => (),
            other => return other,
        }
        let names: Vec<_> = path.split('/').filter(|name| !name.is_empty()).collect();
        if names.len() > DEPTH_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let mut so_far = String::from("/");
        let mut dir = self.follow("/", flags)?;
        for name in names {
            so_far.push_str(name);
            dir = match self.follow(&so_far, flags) {
                Err(Errno::ENOENT) => {
                    mkdirat(&dir, name, Mode::from_bits_truncate(0o755))?;
                    self.follow(&so_far, flags)?
                }
                other => other?,
            };
            so_far.push('/');
        }
        Ok(dir)
    }

    /// Opens the file `path`, a device node included, and makes an empty one if it is missing.
    pub(crate) fn make_file(&self, path: &str) -> nix::Result<OwnedFd> {
        match self.follow(path, OFlag::O_PATH) {
            Err(Errno::ENOENT) => (),
            Ok(found) if is_directory(&fstat(&found)?) => return Err(Errno::EISDIR),
            other => return other,
        }
        let (parent, name) = path.rsplit_once('/').ok_or(Errno::EINVAL)?;
        let dir = self.make_directories(if parent.is_empty() { "/" } else { parent })?;
        // A link to nowhere is not followed: it would be somebody else's choice where the file is.
        mknodat(&dir, name, SFlag::S_IFREG, Mode::from_bits_truncate(0o644), 0)?;
        self.follow(path, OFlag::O_PATH | OFlag::O_NOFOLLOW)
    }

    /// The first bytes of a regular file; none if it cannot be read.
    pub(crate) fn head(&self, path: &str, len_max: usize) -> Vec<u8> {
        let mut bytes = vec![];
        if let Ok(fd) = self.follow(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK)
            && fstat(&fd).is_ok_and(|stat| is_regular(&stat))
        {
            let limit = u64::try_from(len_max).unwrap_or(u64::MAX);
            let _ = File::from(fd).take(limit).read_to_end(&mut bytes); // What was read is what there is.
        }
        bytes
    }

    /// The content of a small regular file; `None` if there is none.
    pub(crate) fn read(&self, path: &str, len_max: usize) -> io::Result<Option<Vec<u8>>> {
        // Without O_NONBLOCK a fifo of the image would hold us for ever.
        let fd = match self.follow(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
            other => other?,
        };
        if !is_regular(&fstat(&fd)?) {
            return Err(io::Error::new(ErrorKind::InvalidInput, "not a regular file"));
        }
        let limit = u64::try_from(len_max).unwrap_or(u64::MAX);
        let mut bytes = vec![];
        File::from(fd).take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
        match bytes.len() > len_max {
            true => Err(io::Error::new(ErrorKind::FileTooLarge, format!("longer than {len_max} bytes"))),
            false => Ok(Some(bytes)),
        }
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

pub(crate) fn is_regular(stat: &FileStat) -> bool {
    kind(stat) == SFlag::S_IFREG
}

pub(crate) fn is_directory(stat: &FileStat) -> bool {
    kind(stat) == SFlag::S_IFDIR
}

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

/// A file or directory that was found in a root and is mounted on. Needs `/proc`.
#[derive(Debug)]
pub(crate) struct Place(pub(crate) OwnedFd);

impl Place {
    /// Mounts a new file system here.
    pub(crate) fn mount(&self, kind: &str, flags: MsFlags, options: &str) -> nix::Result<()> {
        mount(Some(kind), self.path().as_str(), Some(kind), flags, Some(options))
    }

    /// Mounts `source` here once more.
    pub(crate) fn bind(&self, source: &Path) -> nix::Result<()> {
        mount(Some(source), self.path().as_str(), None::<&str>, MsFlags::MS_BIND, None::<&str>)
    }

    /// Mounts another place here once more.
    pub(crate) fn bind_place(&self, source: &Place) -> nix::Result<()> {
        self.bind(Path::new(&source.path()))
    }

    /// Mounts this place on itself, so that the copy can have flags of its own.
    pub(crate) fn bind_itself(&self) -> nix::Result<()> {
        self.bind_place(self)
    }

    /// Changes the flags of the mount whose root this is.
    pub(crate) fn remount(&self, flags: MsFlags) -> nix::Result<()> {
        let flags = flags | MsFlags::MS_REMOUNT | MsFlags::MS_BIND;
        mount(None::<&str>, self.path().as_str(), None::<&str>, flags, None::<&str>)
    }

    fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.0.as_raw_fd())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn root() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path().to_str().unwrap()).unwrap();
        (dir, root)
    }

    #[test]
    fn links_do_not_lead_out() {
        let (dir, root) = root();
        fs::create_dir(dir.path().join("etc")).unwrap();
        symlink("/etc", dir.path().join("absolute")).unwrap();
        symlink("../../../../../../etc", dir.path().join("relative")).unwrap();
        for link in ["absolute", "relative"] {
            fs::write(dir.path().join("etc/here"), "inside").unwrap();
            assert_eq!(root.read(&format!("{link}/here"), 100).unwrap().unwrap(), b"inside", "{link}");
            assert_eq!(root.read(&format!("{link}/passwd"), 1 << 20).unwrap(), None, "{link}");
        }
    }

    #[test]
    fn nothing_is_mounted_on_a_link() {
        let (dir, root) = root();
        fs::create_dir(dir.path().join("real")).unwrap();
        symlink("/real", dir.path().join("proc")).unwrap();
        assert_eq!(root.mount_point("proc").unwrap_err(), Errno::ELOOP);
        assert!(root.mount_point("sys").is_ok());
        assert!(dir.path().join("sys").is_dir());
    }

    #[test]
    fn directories_are_made_inside() {
        let (dir, root) = root();
        fs::create_dir(dir.path().join("srv")).unwrap();
        symlink("/srv", dir.path().join("data")).unwrap();
        root.make_directories("/data/a//b").unwrap();
        assert!(dir.path().join("srv/a/b").is_dir());
        root.make_directories("/../../x").unwrap();
        assert!(dir.path().join("x").is_dir());
        symlink("/nowhere", dir.path().join("dangling")).unwrap();
        assert!(root.make_directories("/dangling/a").is_err());
    }

    #[test]
    fn only_small_regular_files_are_read() {
        let (dir, root) = root();
        fs::write(dir.path().join("file"), "12345").unwrap();
        assert!(root.read("file", 5).unwrap().is_some());
        assert!(root.read("file", 4).is_err());
        nix::unistd::mkfifo(&dir.path().join("fifo"), Mode::S_IRWXU).unwrap();
        assert!(root.read("fifo", 5).is_err());
        assert!(root.read("", 5).is_err() || root.read("", 5).unwrap().is_none());
    }
}

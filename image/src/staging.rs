//! What a user gets outside of the store: made beside its place, put there when it is whole.
//!
//! The place beside it, `.NAME.hull`, is always the same and locked by whoever writes there. What a killed one
//! has left is found and removed by the next that writes to the same place.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use rustix::fs::{CWD, Mode, OFlags, RenameFlags, open, renameat_with};
use rustix::io::Errno;

use crate::error::{way_out, writing};
use crate::{Error, Kind};

/// What is to become of what is at the place already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// It stays, and nothing is written.
    Keep,
    /// It is replaced, at once and as a whole.
    Replace,
}

/// Something in the making. Dropped before [`Staged::commit`], it leaves nothing.
#[derive(Debug)]
pub struct Staged {
    target: PathBuf,
    path: PathBuf,
    lock: Flock<File>,
    existing: Existing,
    committed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    File,
    Folder,
}

impl Staged {
    /// An empty file that only we can read yet.
    pub fn file(target: &Path, existing: Existing) -> Result<Self, Error> {
        Self::new(target, existing, What::File)
    }

    /// An empty folder that nobody else can enter yet.
    pub(crate) fn folder(target: &Path, existing: Existing) -> Result<Self, Error> {
        Self::new(target, existing, What::Folder)
    }

    fn new(target: &Path, existing: Existing, what: What) -> Result<Self, Error> {
        let doing = || format!("write {}", target.display());
        let refused = |text: &str| Error::new(Kind::Host, format!("{}: {text}", doing()));
        match fs::symlink_metadata(target) {
            Ok(_) if existing == Existing::Keep => return Err(exists(target)),
            Ok(there) if there.is_dir() != (what == What::Folder) => {
                return Err(refused(match what {
                    What::File => "a folder is there, which a file does not replace",
                    What::Folder => "something is there that is no folder, which a folder does not replace",
                }));
            }
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(Error::because(Kind::Host, doing(), e));
            }
            _ => (),
        }
        let name = target.file_name().ok_or_else(|| refused("its last part is no name"))?;
        let mut hidden = OsString::from(".");
        hidden.push(name);
        hidden.push(".hull");
        let path = parent(target).join(hidden);
        match create(&path, what).map_err(|e| cannot_write(target, e))? {
            Some(lock) => Ok(Self { target: target.to_owned(), path, lock, existing, committed: false }),
            None => Err(refused("another hull is writing there")),
        }
    }

    /// The file, or the folder.
    pub fn handle(&self) -> &File {
        &self.lock
    }

    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// Puts it in its place.
    pub fn commit(mut self) -> Result<(), Error> {
        let is_folder = self.lock.metadata().is_ok_and(|ours| ours.is_dir());
        let rename = |flags| renameat_with(CWD, &self.path, CWD, &self.target, flags);
        let moved = match rename(RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) if self.existing == Existing::Keep => return Err(exists(&self.target)),
            Err(Errno::EXIST) if is_folder => rename(RenameFlags::EXCHANGE).inspect(|()| {
                // What was there has our place now. The next that writes there would remove it too.
                let _ = fs::remove_dir_all(&self.path);
            }),
            // Not every file system knows these flags; that nothing is there was looked at before.
            Err(Errno::EXIST | Errno::INVAL) => rename(RenameFlags::empty()),
            moved => moved,
        };
        moved.map_err(|e| cannot_write(&self.target, e.into()))?;
        self.committed = true;
        let parent = parent(&self.target);
        File::open(parent).and_then(|folder| folder.sync_all()).map_err(|e| cannot_write(&self.target, e))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.committed {
            let _ = remove(&self.path); // The next that writes there tries again.
        }
    }
}

/// Makes the place and locks it; `None` if somebody else has it.
fn create(path: &Path, what: What) -> io::Result<Option<Flock<File>>> {
    loop {
        let made = match what {
            What::Folder => rustix::fs::mkdir(path, Mode::RWXU),
            What::File => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                open(path, flags, Mode::RUSR | Mode::WUSR).map(drop)
            }
        };
        let is_new = match made {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(e) => return Err(e.into()),
        };
        let access = if is_new && what == What::File { OFlags::RDWR } else { OFlags::RDONLY };
        let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match open(path, flags, Mode::empty()) {
            Err(Errno::NOENT) => continue,
            opened => File::from(opened?),
        };
        let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => return Ok(None),
            Err((_, errno)) => return Err(errno.into()),
        };
        // Whoever had the lock before us may have renamed or removed it.
        let (ours, there) = (lock.metadata()?, fs::symlink_metadata(path));
        let is_ours = there.is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino()));
        if is_ours && is_new {
            return Ok(Some(lock));
        }
        if is_ours {
            remove(path)?;
        }
    }
}

fn remove(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

fn parent(target: &Path) -> &Path {
    let parent = target.parent().filter(|parent| *parent.as_os_str() != *OsStr::new(""));
    parent.unwrap_or(Path::new("."))
}

fn exists(target: &Path) -> Error {
    let text = format!("write {}: it exists already (--overwrite replaces it)", target.display());
    Error::new(Kind::Host, text)
}

pub(crate) fn cannot_write(target: &Path, error: io::Error) -> Error {
    let doing = format!("write {}{}", target.display(), way_out(&error));
    Error::because(writing(&error), doing, error)
}

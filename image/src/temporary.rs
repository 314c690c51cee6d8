//! Files that exist under a temporary name until they are whole.
//!
//! Whoever makes one holds an exclusive flock on it. The kernel drops the lock when its holder dies,
//! so a file in `tmp/` that can be locked belongs to nobody: [`sweep`] removes it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

use nix::fcntl::{Flock, FlockArg};

use crate::digest::ImageId;

/// What the store's files may be: written by their owner, read by the group that may use hull.
pub(crate) const FILE_MODE: u32 = 0o640;

/// A file that vanishes when it is dropped, unless it was committed.
pub(crate) struct Temporary {
    file: Flock<File>,
    path: PathBuf,
    committed: bool,
}

impl Temporary {
    pub(crate) fn create(folder: &Path) -> io::Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        loop {
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            // The time keeps names from ever coming back when process numbers do.
            let now = UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos());
            let path = folder.join(format!("{}-{now}-{count}", std::process::id()));
            let mut options = OpenOptions::new();
            let file = match options.read(true).write(true).create_new(true).mode(FILE_MODE).open(&path) {
                // A process of that number lived before us, or lives in another pid namespace.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
                opened => opened?,
            };
            let file = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
            // A sweep may have come between the creation and the lock.
            if file.metadata()?.nlink() != 0 {
                return Ok(Self { file, path, committed: false });
            }
        }
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Makes the file durable under its own name, replacing what was there.
    pub(crate) fn commit(mut self, path: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.path, path)?;
        self.committed = true;
        sync_folder(path.parent().expect("a file of the store lies in a folder"))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.committed {
            let _ = fs::remove_file(&self.path); // The next sweep tries again.
        }
    }
}

pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Excludes others from making the same image while it lives.
pub(crate) struct ImageLock {
    path: PathBuf,
    // Dropped after the file is gone: who waits for the lock then finds it unlinked and starts anew.
    _file: Flock<File>,
}

impl ImageLock {
    /// Waits until nobody else makes the image.
    pub(crate) fn acquire(folder: &Path, id: &ImageId) -> io::Result<Self> {
        let path = folder.join(format!("{id}.lock"));
        loop {
            let mut options = OpenOptions::new();
            let file = options.write(true).create(true).truncate(false).mode(FILE_MODE).open(&path)?;
            let file = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
            if file.metadata()?.nlink() != 0 {
                return Ok(Self { path, _file: file });
            }
        }
    }
}

impl Drop for ImageLock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path); // The next sweep tries again.
    }
}

/// Removes what dead processes have left, and says how much. What cannot be removed does no harm.
pub(crate) fn sweep(folder: &Path) -> io::Result<usize> {
    let mut removed = 0;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let Ok(file) = File::open(&path) else { continue };
        let Ok(held) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else { continue };
        // Names are given up only under the lock: a file that still has one has this one.
        if held.metadata()?.nlink() != 0 {
            // It fails if the file was committed between our `open` and our lock.
            removed += usize::from(fs::remove_file(&path).is_ok());
        }
    }
    Ok(removed)
}

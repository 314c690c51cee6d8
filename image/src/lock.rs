//! The store's lock: shared by all who rely on images staying, exclusive for who removes some.
//!
//! It is taken before any [`crate::temporary::ImageLock`]. Nobody waits for it while holding one, and
//! a second shared lock never waits for a removal that waits for the first, so holds may nest.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::temporary::FILE_MODE;

/// While it lives, no image, blob or name of the store is removed.
///
/// Whoever makes a pod keeps one from before an image is looked up until the pod's directory refers to it.
#[derive(Debug)]
pub struct Hold {
    _file: Flock<File>,
}

/// While it lives, nobody else holds the store.
#[derive(Debug)]
pub(crate) struct Exclusive {
    _file: Flock<File>,
}

impl Hold {
    pub(crate) fn acquire(path: &Path) -> io::Result<Self> {
        Ok(Self { _file: lock(path, FlockArg::LockShared)? })
    }
}

impl Exclusive {
    /// Waits until every [`Hold`] is gone.
    pub(crate) fn acquire(path: &Path) -> io::Result<Self> {
        Ok(Self { _file: lock(path, FlockArg::LockExclusive)? })
    }
}

fn lock(path: &Path, how: FlockArg) -> io::Result<Flock<File>> {
    // Reading is enough to lock, and is what a store gives to those who may only look at it.
    let mut file = match File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(false).mode(FILE_MODE).open(path)?
        }
        opened => opened?,
    };
    loop {
        match Flock::lock(file, how) {
            Ok(locked) => return Ok(locked),
            Err((again, Errno::EINTR)) => file = again,
            Err((_, errno)) => return Err(errno.into()),
        }
    }
}

//! A user id that no other VMM on this host has now.
//!
//! The range is a file, and an id one byte of it: who holds the lock on the byte has the id. The kernel gives it
//! back when the holder dies, however that happens.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use hull_errors::Doing;
use hull_pod::PodId;
use hull_pod::contract::IdRange;
use hull_stage1::Kind;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

use crate::Error;

/// Of the whole host, whatever data directories there are; gone with the next boot.
const FOLDER: &str = "/run/hull";

/// An id, held as long as this lives.
#[derive(Debug)]
pub(crate) struct OwnId {
    id: u32,
    _lock: File,
}

impl OwnId {
    /// Takes one of `range`.
    pub(crate) fn take(range: IdRange, pod: &PodId) -> Result<Self, Error> {
        Self::take_in(Path::new(FOLDER), range, pod)
    }

    fn take_in(folder: &Path, range: IdRange, pod: &PodId) -> Result<Self, Error> {
        let IdRange { first, count } = range;
        let doing = || format!("take one of the {count} user ids from {first} on for the virtual machine");
        if !range.is_valid() {
            return Err(Error::new(Kind::Contract, format!("{}: there are no such ids", doing())));
        }
        let file = open(folder).doing(Kind::Host, doing)?;
        // Each pod begins elsewhere, so that it finds a free one soon.
        let start =
            pod.as_str().bytes().fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        for step in 0..count {
            let id = first + start.wrapping_add(step) % count;
            if lock(&file, id).doing(Kind::Host, doing)? {
                return Ok(Self { id, _lock: file });
            }
        }
        let why = format!("{}: all are taken; name a larger range in ids.d of the settings", doing());
        Err(Error::new(Kind::Host, why))
    }

    pub(crate) fn number(&self) -> u32 {
        self.id
    }
}

fn open(folder: &Path) -> io::Result<File> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(why) if why.kind() != io::ErrorKind::AlreadyExists => return Err(why),
        _ => (),
    }
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    options.open(folder.join("vmm-ids"))
}

/// Locks one byte for this open file; false if another holds it.
fn lock(file: &File, byte: u32) -> Result<bool, Errno> {
    let flock = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: byte.into(),
        l_len: 1,
        l_pid: 0,
    };
    match fcntl(file, FcntlArg::F_OFD_SETLK(&flock)) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(why) => Err(why),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const RANGE: IdRange = IdRange { first: 1000, count: 20 };

    fn take(folder: &Path) -> Result<OwnId, Error> {
        OwnId::take_in(folder, RANGE, &PodId::random().unwrap())
    }

    #[test]
    fn no_two_have_the_same_and_each_is_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut all: Vec<_> = (0..20).map(|_| take(folder.path()).unwrap()).collect();
        let numbers: BTreeSet<u32> = all.iter().map(OwnId::number).collect();
        assert_eq!(numbers, (1000..1020).collect());
        let why = take(folder.path()).unwrap_err().to_string();
        assert!(why.contains("all are taken") && why.contains("ids.d"), "{why}");
        let given_back = all.remove(7).number();
        assert_eq!(take(folder.path()).unwrap().number(), given_back);
    }

    #[test]
    fn a_range_that_has_no_ids_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for (first, count) in [(0, 1), (1, 0), (u32::MAX, 1), (2, u32::MAX)] {
            let range = IdRange { first, count };
            let why = OwnId::take_in(folder.path(), range, &PodId::random().unwrap()).unwrap_err();
            assert_eq!(*why.kind(), Kind::Contract, "{first} {count}");
        }
    }
}

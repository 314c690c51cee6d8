//! What the store remembers in JSON: one record an image, one for each archive file that was imported.

use std::fs::{self, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::config::ImageConfig;
use crate::digest::{Algorithm, Digest, ImageId};
use crate::temporary::Temporary;

/// Raised whenever a record or the conversion changes; images of another version are made anew.
pub(crate) const FORMAT: u32 = 1;

/// `manifests/ID.json`. Written last: an image with a record is whole.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ImageRecord {
    pub(crate) format: u32,
    pub(crate) id: ImageId,
    pub(crate) name: String,
    /// Length of the EROFS file, so that a truncated one is noticed.
    pub(crate) erofs_size: u64,
    /// The blobs that the image was made of.
    pub(crate) layers: Vec<Digest>,
    pub(crate) config: ImageConfig,
}

/// `refs/HASH.json`: which image an archive file held when it was in this state.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileRecord {
    format: u32,
    key: FileKey,
    state: FileState,
    id: ImageId,
}

/// What was asked for: a file, in which format, and which of its images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileKey {
    /// Canonical.
    pub(crate) path: PathBuf,
    pub(crate) format: String,
    pub(crate) tag: Option<String>,
}

/// A file's identity and times: when none of it has changed, neither has the content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileState {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileState {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether a change from now on is sure to show in the times. Those advance with the kernel's tick,
    /// which is at most 10 ms long (CONFIG_HZ=100).
    fn is_settled(&self) -> bool {
        const TICKS: Duration = Duration::from_millis(20);
        let (Ok(seconds), Ok(nanoseconds)) = (u64::try_from(self.changed.0), u64::try_from(self.changed.1))
        else {
            return false;
        };
        let changed = Duration::from_secs(seconds) + Duration::from_nanos(nanoseconds);
        UNIX_EPOCH.elapsed().is_ok_and(|now| now > changed.saturating_add(TICKS))
    }
}

/// The folder of file records. They only save time: one that cannot be used is as good as none.
#[derive(Debug)]
pub(crate) struct FileRecords {
    folder: PathBuf,
    temporary: PathBuf,
}

impl FileRecords {
    pub(crate) fn new(folder: PathBuf, temporary: PathBuf) -> Self {
        Self { folder, temporary }
    }

    pub(crate) fn get(&self, key: &FileKey, state: &FileState) -> Option<ImageId> {
        let record: FileRecord = read(&self.path(key)?).ok()?;
        let same = record.format == FORMAT && record.key == *key && record.state == *state;
        same.then_some(record.id)
    }

    pub(crate) fn put(&self, key: FileKey, state: FileState, id: ImageId) -> io::Result<()> {
        let Some(path) = self.path(&key).filter(|_| state.is_settled()) else { return Ok(()) };
        write(&FileRecord { format: FORMAT, key, state, id }, &self.temporary, &path)
    }

    /// `None` for paths that are no text, which JSON cannot hold.
    fn path(&self, key: &FileKey) -> Option<PathBuf> {
        let text = serde_json::to_vec(key).ok()?;
        Some(self.folder.join(format!("{}.json", Digest::of(Algorithm::Sha256, &text).hex())))
    }
}

pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

pub(crate) fn write<T: Serialize>(record: &T, temporary: &Path, path: &Path) -> io::Result<()> {
    let file = Temporary::create(temporary)?;
    file.file().write_all(&serde_json::to_vec_pretty(record)?)?;
    file.commit(path)
}

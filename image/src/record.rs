//! What the store remembers in JSON: one record an image, one for each archive file that was imported.
//!
//! Records are written whole by [`write`], so one that cannot be read was damaged, or written by another
//! version of hull. Neither is an error: the image is made anew, from the blobs that are there.

use std::collections::BTreeSet;
use std::fs::{self, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::config::ImageConfig;
use crate::convert::Flavour;
use crate::digest::{Algorithm, Digest, ImageId};
use crate::temporary::Temporary;

/// Raised whenever a record changes; images with a record of another version are fetched anew.
pub(crate) const FORMAT: u32 = 2;

/// Raised whenever the converter makes another file system of the same layers. One that another version made is
/// made anew when it is wanted, from the blobs that are there. 1: every file in blocks; 2: short ones beside
/// their inodes.
pub(crate) const CONVERSION: u32 = 2;

/// `manifests/ID.json`. Written last: an image with a record is whole. The file's time of modification is
/// when the image was last used.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ImageRecord {
    pub(crate) format: u32,
    /// Which conversion made the file system.
    #[serde(default = "first_conversion")]
    pub(crate) conversion: u32,
    pub(crate) id: ImageId,
    /// The name it came by first.
    pub(crate) name: String,
    pub(crate) kind: ImageKind,
    pub(crate) imported: SystemTime,
    /// Which of the file systems that such an image can have it is (see [`tree_of`]); none for one that is alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tree: Option<String>,
    /// Length of the EROFS file, so that a truncated one is noticed.
    pub(crate) erofs_size: u64,
    /// The blobs that say what the image is: the one the id stands for, then others.
    pub(crate) documents: Vec<Digest>,
    /// What the file system was made of, the lowest layer first.
    pub(crate) layers: Vec<LayerRecord>,
    pub(crate) config: ImageConfig,
}

/// That of records which do not say.
fn first_conversion() -> u32 {
    1
}

/// A layer, such that it can be converted again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LayerRecord {
    pub(crate) blob: Digest,
    pub(crate) flavour: Flavour,
}

/// What an image was before it became one of the store's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageKind {
    /// An App Container Image; its id is that of the uncompressed archive.
    Aci,
    /// Has a manifest of OCI's or Docker's making; its id is that of the manifest.
    Oci,
    /// From `docker save`, which writes no manifest; its id is that of the configuration.
    Docker,
}

impl ImageRecord {
    /// Whether it is the record of that image, written by this version of hull.
    pub(crate) fn is_of(&self, id: &ImageId) -> bool {
        self.format == FORMAT && self.id == *id
    }

    /// The file that its file system is. Each conversion has a name of its own, so that a pod which was prepared
    /// with an older one keeps that.
    pub(crate) fn erofs_name(&self) -> String {
        let tree = self.tree.as_ref().map(|tree| format!(".{tree}")).unwrap_or_default();
        let conversion = match self.conversion {
            1 => String::new(),
            conversion => format!(".{conversion}"),
        };
        format!("{}{tree}{conversion}.erofs", self.id)
    }

    /// All blobs that the image needs.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = &Digest> {
        self.documents.iter().chain(self.layers.iter().map(|layer| &layer.blob))
    }
}

/// What tells the file system made of these layers from others of the same image: images that lie on others have
/// another one whenever a name among those leads elsewhere.
pub(crate) fn tree_of(layers: &[LayerRecord]) -> Option<String> {
    if layers.len() < 2 {
        return None;
    }
    let text = serde_json::to_vec(layers).expect("digests and lists of paths are JSON");
    Some(Digest::of(Algorithm::Sha256, &text).hex()[..TREE_LEN].to_owned())
}

/// As many hex digits as nobody finds two trees for.
const TREE_LEN: usize = 32;

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

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn get(&self, key: &FileKey, state: &FileState) -> Option<ImageId> {
        let record: FileRecord = read(&self.path(key)?).ok()??;
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

impl FileRecord {
    /// The image that the file still holds; `None` if it has changed since, or is gone.
    pub(crate) fn current_image(&self) -> Option<&ImageId> {
        let state = FileState::of(&fs::metadata(&self.key.path).ok()?);
        (self.format == FORMAT && self.state == state).then_some(&self.id)
    }
}

/// A record; `None` if it is not there or cannot be understood.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(text) => Ok(parse(&text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// What a record says; `None` if it cannot be understood.
pub(crate) fn parse<T: DeserializeOwned>(text: &[u8]) -> Option<T> {
    serde_json::from_slice(text).ok()
}

pub(crate) fn write<T: Serialize>(record: &T, temporary: &Path, path: &Path) -> io::Result<()> {
    let file = Temporary::create(temporary)?;
    file.file().write_all(&serde_json::to_vec_pretty(record)?)?;
    file.commit(path)
}

/// Whether there was such a record.
pub(crate) fn remove(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

/// Every digest that a record names, whichever version wrote it; `None` for what is no record at all.
/// So that nothing an image of another version needs is taken for garbage.
pub(crate) fn digests(text: &[u8]) -> Option<BTreeSet<Digest>> {
    let mut pending = vec![serde_json::from_slice::<serde_json::Value>(text).ok()?];
    let mut found = BTreeSet::new();
    while let Some(value) = pending.pop() {
        match value {
            // An image's id is the digest of a blob, written with a dash.
            serde_json::Value::String(text) => found.extend(text.replacen('-', ":", 1).parse::<Digest>()),
            serde_json::Value::Array(inside) => pending.extend(inside),
            serde_json::Value::Object(inside) => pending.extend(inside.into_iter().map(|(_, value)| value)),
            _ => (),
        }
    }
    Some(found)
}

/// A way in for the fuzzer.
pub(crate) fn fuzz(bytes: &[u8]) {
    let named = digests(bytes);
    if let Some(record) = parse::<ImageRecord>(bytes) {
        let named = named.expect("a record is JSON");
        assert!(record.blobs().all(|digest| named.contains(digest)), "no blob of an image is garbage");
    }
    let _ = parse::<FileRecord>(bytes); // Refusing is right; panicking is not.
}

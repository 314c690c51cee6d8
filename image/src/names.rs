//! Names: what `docker://…`, a URL or `example.com/app,version=1` led to when it was last fetched.

use std::path::{Path, PathBuf};
use std::time::SystemTime;
use std::{fs, io};

use serde::{Deserialize, Serialize};

use crate::digest::{Algorithm, Digest, ImageId};
use crate::record;

/// Raised whenever the record changes. One of another version is as good as none: the name is fetched
/// again, which transfers nothing that the store has.
const FORMAT: u32 = 1;

/// `names/HASH.json`.
#[derive(Serialize, Deserialize)]
struct NameRecord<N> {
    format: u32,
    #[serde(flatten)]
    named: N,
}

/// What a name led to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedImage {
    /// In its canonical form.
    pub name: String,
    pub image: ImageId,
    /// What the server said the name stands for, `sha256:HEX` say: an index, perhaps, not the image itself.
    pub digest: Option<String>,
    /// When the server was last asked, successfully.
    pub fetched: SystemTime,
    /// The server need not be asked again before.
    pub fresh_until: Option<SystemTime>,
    /// The `ETag` that came with it.
    pub etag: Option<String>,
    /// It was fetched with everything checked that the settings ask for.
    #[serde(default)]
    pub admitted: bool,
    /// What the policy asked for then. An image that was admitted by another rule than there is now is asked about
    /// again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The name says no version, so it leads to the newest that there was.
    pub latest: bool,
}

impl NamedImage {
    /// A name that was fetched just now.
    pub fn new(name: impl Into<String>, image: ImageId) -> Self {
        let (name, fetched) = (name.into(), SystemTime::now());
        Self {
            name,
            image,
            digest: None,
            fetched,
            fresh_until: None,
            etag: None,
            admitted: false,
            rule: None,
            latest: false,
        }
    }
}

/// The folder of names.
#[derive(Debug)]
pub(crate) struct Names {
    folder: PathBuf,
    temporary: PathBuf,
}

impl Names {
    pub(crate) fn new(folder: PathBuf, temporary: PathBuf) -> Self {
        Self { folder, temporary }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn get(&self, name: &str) -> io::Result<Option<NamedImage>> {
        Ok(read(&self.path(name))?.filter(|named| named.name == name))
    }

    pub(crate) fn put(&self, named: &NamedImage) -> io::Result<()> {
        let record = NameRecord { format: FORMAT, named };
        record::write(&record, &self.temporary, &self.path(&named.name))
    }

    /// Whether there was such a name.
    pub(crate) fn remove(&self, name: &str) -> io::Result<bool> {
        record::remove(&self.path(name))
    }

    /// All names, in the order of their bytes.
    pub(crate) fn list(&self) -> io::Result<Vec<NamedImage>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            all.extend(read(&entry?.path())?);
        }
        all.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{}.json", Digest::of(Algorithm::Sha256, name.as_bytes()).hex()))
    }
}

/// A name's record; `None` if it is not there or cannot be understood.
pub(crate) fn read(path: &Path) -> io::Result<Option<NamedImage>> {
    let record: Option<NameRecord<NamedImage>> = record::read(path)?;
    Ok(record.filter(|record| record.format == FORMAT).map(|record| record.named))
}

/// A way in for the fuzzer.
pub(crate) fn fuzz(bytes: &[u8]) {
    let _ = record::parse::<NameRecord<NamedImage>>(bytes); // Refusing is right; panicking is not.
}

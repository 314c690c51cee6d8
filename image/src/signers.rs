//! By whose keys the App Container Images of the store were signed when they came.
//!
//! `signers/DIGEST.FINGERPRINT` is an empty file: the uncompressed archive of that digest came with a signature by
//! that key. The signature itself is of the compressed archive, which is not kept. An image without such a file came
//! unsigned, as the user wanted it, or by an older version of hull.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::digest::{Digest, ImageId};
use crate::temporary::sync_folder;

/// The folder of these files.
#[derive(Debug)]
pub(crate) struct Signers {
    folder: PathBuf,
}

impl Signers {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Notes, durably, by which key an archive was signed.
    pub(crate) fn put(&self, archive: &Digest, fingerprint: &str) -> io::Result<()> {
        File::create(self.folder.join(format!("{}.{fingerprint}", ImageId::from(archive))))?;
        sync_folder(&self.folder)
    }

    /// The fingerprints of the keys that signed an archive.
    pub(crate) fn of(&self, archive: &Digest) -> io::Result<Vec<String>> {
        let (id, mut found) = (ImageId::from(archive), Vec::new());
        for entry in fs::read_dir(&self.folder)? {
            let file = entry?.file_name();
            let key = file.to_str().and_then(|file| file.strip_prefix(id.as_str())?.strip_prefix('.'));
            found.extend(key.map(str::to_owned));
        }
        Ok(found)
    }

    /// The archive of a file in the folder.
    pub(crate) fn archive_of(file: &str) -> Option<Digest> {
        let id: ImageId = file.split_once('.')?.0.parse().ok()?;
        Some(Digest::from(&id))
    }
}

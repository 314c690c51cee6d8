//! Which images are App Container Images of a name, so that nobody reads the records of all others to find them.
//!
//! `aci/HASH.ID` is an empty file. It is there before the image's record, and goes after it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::digest::{Algorithm, Digest, ImageId};
use crate::temporary::sync_folder;

/// The folder of these files.
#[derive(Debug)]
pub(crate) struct Acis {
    folder: PathBuf,
}

impl Acis {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Notes, durably, that `id` is an image of that name (without labels).
    pub(crate) fn put(&self, name: &str, id: &ImageId) -> io::Result<()> {
        File::create(self.folder.join(format!("{}.{id}", hash(name))))?;
        sync_folder(&self.folder)
    }

    /// The images of that name; their records may be gone.
    pub(crate) fn get(&self, name: &str) -> io::Result<Vec<ImageId>> {
        let (hash, mut found) = (hash(name), Vec::new());
        for entry in fs::read_dir(&self.folder)? {
            let file = entry?.file_name();
            let of_name = file.to_str().and_then(|file| file.strip_prefix(&hash)?.strip_prefix('.'));
            found.extend(of_name.and_then(|id| id.parse().ok()));
        }
        Ok(found)
    }

    /// The image of a file in the folder.
    pub(crate) fn image_of(file: &str) -> Option<ImageId> {
        file.split_once('.')?.1.parse().ok()
    }
}

fn hash(name: &str) -> String {
    Digest::of(Algorithm::Sha256, name.as_bytes()).hex().to_owned()
}

//! What is in the store: the list of images, and which of them a user means.

use std::collections::BTreeMap;
use std::fs::{self, File, FileTimes};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

use hull_errors::Doing;

use crate::config::ImageConfig;
use crate::digest::{Digest, IdPrefix, ImageId};
use crate::record::{ImageKind, ImageRecord};
use crate::store::{Image, Store};
use crate::{Error, Kind, appc, registry};

/// What a list of images shows of one.
#[derive(Clone, Debug)]
pub struct ImageInfo {
    pub id: ImageId,
    /// The name it came by first.
    pub name: String,
    /// All names that lead to it now, in their canonical form.
    pub names: Vec<String>,
    /// One of them says no version.
    pub latest: bool,
    pub kind: ImageKind,
    pub imported: SystemTime,
    pub last_used: SystemTime,
    /// What it takes on disk: its blobs, those shared with other images too, and its file system.
    pub size_bytes: u64,
    pub config: ImageConfig,
}

/// What an image says of itself, as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Documents {
    /// The manifest of an ACI or an OCI image; the configuration of an image of `docker save`, which has none.
    pub manifest: Vec<u8>,
    /// The configuration, where it is another document.
    pub config: Option<Vec<u8>>,
}

impl Store {
    /// All images that this version of hull can use, in the order of their ids.
    ///
    /// # Errors
    /// [`Kind::Host`].
    pub fn list(&self) -> Result<Vec<ImageInfo>, Error> {
        let mut names: BTreeMap<ImageId, Vec<(String, bool)>> = BTreeMap::new();
        for named in self.names().list().doing(Kind::Host, || "list the names of images".into())? {
            names.entry(named.image).or_default().push((named.name, named.latest));
        }
        let mut list = Vec::new();
        for id in self.ids()? {
            // Gone since, or of another version.
            let Some(record) = self.record(&id)? else { continue };
            let Some(last_used) =
                last_used(&self.record_path(&id)).doing(Kind::Host, || format!("look at {id}"))?
            else {
                continue;
            };
            let names = names.remove(&id).unwrap_or_default();
            list.push(ImageInfo {
                size_bytes: self.size_of(&record),
                latest: names.iter().any(|(_, latest)| *latest),
                names: names.into_iter().map(|(name, _)| name).collect(),
                id,
                name: record.name,
                kind: record.kind,
                imported: record.imported,
                last_used,
                config: record.config,
            });
        }
        Ok(list)
    }

    /// The image that a user means: by its id or the beginning of it, by a name that was fetched, or by the
    /// name that is in it. Of several the newest counts, but before it, where no version is asked for, one
    /// that was fetched without.
    ///
    /// # Errors
    /// [`Kind::NotFound`], or [`Kind::Ambiguous`] for the beginning of several ids.
    pub fn lookup(&self, text: &str) -> Result<Image, Error> {
        if let Some(prefix) = IdPrefix::parse(text) {
            return self.get_by_prefix(&prefix);
        }
        let of_registry = registry::Name::parse(text.strip_prefix("docker://").unwrap_or(text)).ok();
        let canonical = of_registry.as_ref().map(|name| format!("docker://{name}"));
        for name in [Some(text), canonical.as_deref()].into_iter().flatten() {
            if let Some(named) = self.named(name)? {
                return self.get(&named.image);
            }
        }
        let of_registry = |info: &ImageInfo| {
            let own = of_registry.is_some().then(|| registry::Name::parse(&info.name).ok()).flatten();
            info.kind != ImageKind::Aci && own.is_some() && own == of_registry
        };
        let appc = appc::Name::parse(text).ok();
        let fits = |info: &ImageInfo| {
            info.name == text || of_registry(info) || appc.as_ref().is_some_and(|name| is_aci(info, name))
        };
        let any_version = appc.as_ref().is_some_and(|name| name.version().is_none());
        match self.newest(fits, any_version)? {
            Some(id) => self.get(&id),
            None => {
                let text = crate::error::shown(text.as_bytes());
                let text = format!(
                    "find image `{text}`: the store has none of that id or name (hull image list shows all)"
                );
                Err(Error::new(Kind::NotFound, text))
            }
        }
    }

    /// The image of the store that an App Container name means: the labels asked for are among its own.
    pub(crate) fn find_aci(&self, name: &appc::Name) -> Result<Option<Image>, Error> {
        let ids = self.acis().get(name.name()).doing(Kind::Host, || format!("look for image {name}"))?;
        let mut fitting = Vec::new();
        for id in ids {
            let record = self.record(&id)?;
            let record = record.filter(|record| {
                let own = aci_name(&record.name, &record.config.labels);
                record.kind == ImageKind::Aci && is_wanted(own, &record.config.labels, name)
            });
            fitting.extend(record.map(|record| (false, record)));
        }
        if fitting.len() > 1 && name.version().is_none() {
            let names = self.names().list().doing(Kind::Host, || "list the names of images".into())?;
            for (latest, record) in &mut fitting {
                *latest = names.iter().any(|named| named.latest && named.image == record.id);
            }
        }
        let newest = fitting.into_iter().max_by_key(|(latest, record)| (*latest, record.imported));
        newest.map(|(_, record)| self.usable(record)).transpose()
    }

    fn newest(&self, fits: impl Fn(&ImageInfo) -> bool, any_version: bool) -> Result<Option<ImageId>, Error> {
        let fitting = self.list()?.into_iter().filter(fits);
        Ok(fitting.max_by_key(|info| (any_version && info.latest, info.imported)).map(|info| info.id))
    }

    /// Notes that an image is used now. It is no error if that cannot be noted: whoever may not write may
    /// not remove either, and what is in use is not removed however long ago its use began.
    pub fn touch(&self, id: &ImageId) {
        if let Ok(record) = File::options().write(true).open(self.record_path(id)) {
            let _ = record.set_times(FileTimes::new().set_modified(SystemTime::now())); // As said above.
        }
    }

    /// What an image says of itself, unchanged.
    ///
    /// # Errors
    /// [`Kind::NotFound`] for an image that is not in the store, [`Kind::Corrupt`] for one of damaged blobs.
    pub fn documents(&self, id: &ImageId) -> Result<Documents, Error> {
        let _hold = self.hold()?;
        let record = self.known_record(id)?;
        let read = |digest: &Digest| {
            let blob = self.blobs().get(digest)?.ok_or_else(|| missing(id, digest))?;
            Ok(blob.document()?.as_slice().to_vec())
        };
        Ok(match &*record.documents {
            [] => {
                let digest = Digest::from(id);
                let blob = self.blobs().get(&digest)?.ok_or_else(|| missing(id, &digest))?;
                Documents {
                    manifest: self.converter().manifest(blob.file(), &format!("image {id}"))?.into_bytes(),
                    config: None,
                }
            }
            [manifest] => Documents { manifest: read(manifest)?, config: None },
            [manifest, config, ..] => Documents { manifest: read(manifest)?, config: Some(read(config)?) },
        })
    }

    pub(crate) fn known_record(&self, id: &ImageId) -> Result<ImageRecord, Error> {
        self.record(id)?.ok_or_else(|| Error::new(Kind::NotFound, format!("find image {id} in the store")))
    }

    fn size_of(&self, record: &ImageRecord) -> u64 {
        let blobs = record.blobs().map(|digest| self.blobs().path(digest));
        let files = blobs.chain([self.erofs_of(record)]);
        files.filter_map(|path| fs::metadata(path).ok()).map(|file| on_disk(&file)).sum()
    }
}

/// What a file takes on disk: images have holes.
pub(crate) fn on_disk(file: &fs::Metadata) -> u64 {
    file.blocks() * 512 // Whatever the file system's block is, `st_blocks` counts these (inode(7)).
}

/// `None` if the record is gone.
pub(crate) fn last_used(record: &Path) -> io::Result<Option<SystemTime>> {
    match fs::metadata(record) {
        Ok(file) => file.modified().map(Some),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn is_aci(info: &ImageInfo, wanted: &appc::Name) -> bool {
    let labels = &info.config.labels;
    info.kind == ImageKind::Aci && is_wanted(aci_name(&info.name, labels), labels, wanted)
}

fn is_wanted(own: &str, labels: &BTreeMap<String, String>, wanted: &appc::Name) -> bool {
    own == wanted.name()
        && wanted.labels().all(|(name, value)| labels.get(name).is_some_and(|own| own == value))
}

/// The name of an App Container Image without its version, with which the one that is shown ends.
pub(crate) fn aci_name<'a>(shown: &'a str, labels: &BTreeMap<String, String>) -> &'a str {
    let version = labels.get("version");
    version.and_then(|version| shown.strip_suffix(version.as_str())?.strip_suffix(':')).unwrap_or(shown)
}

pub(crate) fn missing(id: &ImageId, blob: &Digest) -> Error {
    let text = format!("read image {id}: its blob {blob} is missing; fetch the image again");
    Error::new(Kind::Corrupt, text)
}

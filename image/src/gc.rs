//! What leaves the store: images that a user removes, and everything that nobody needs any more.
//!
//! All is decided and done under the exclusive lock, so that nobody finds an image that is about to go. An
//! image's record goes first, and durably: what a crash leaves is garbage, never half an image.

use std::collections::BTreeSet;
use std::error::Error as StdError;
use std::fs::{self, Metadata};
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use hull_errors::Doing;

use crate::acis::Acis;
use crate::catalog::{last_used, on_disk};
use crate::digest::{Algorithm, Digest, ImageId};
use crate::record::{FileRecord, ImageRecord};
use crate::signers::Signers;
use crate::store::Store;
use crate::temporary::{sweep, sync_folder};
use crate::{Error, Kind, names, record};

/// What became of an image that was to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// It is gone, and so many bytes of disk with it.
    Removed { freed_bytes: u64 },
    /// A pod uses it, so it stays.
    InUse,
    /// The store has no such image.
    Missing,
}

/// What a collection removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GcReport {
    /// Images that nobody used for long, or that this version of hull could not use.
    pub images: Vec<ImageId>,
    /// File systems without an image.
    pub erofs: usize,
    /// Blobs that no image needs.
    pub blobs: usize,
    /// Names and URLs that led nowhere.
    pub names: usize,
    /// Records of archive files that are gone or have changed.
    pub files: usize,
    /// What dead processes had left.
    pub temporary: usize,
    /// Of disk, downloads that nobody went on with included.
    pub freed_bytes: u64,
}

impl Store {
    /// Removes images, but for those in use. `in_use` is asked while nobody can begin to use one.
    ///
    /// # Errors
    /// [`Kind::Host`] if something cannot be removed or `in_use` fails; what was removed by then is gone.
    pub fn remove<E: StdError + Send + Sync + 'static>(
        &self,
        ids: &[ImageId],
        in_use: impl FnOnce() -> Result<BTreeSet<ImageId>, E>,
    ) -> Result<Vec<Removal>, Error> {
        let _lock = self.exclusive()?;
        let in_use = ask(in_use)?;
        let mut going = BTreeSet::new();
        let mut records = Vec::new();
        for id in ids {
            let path = self.record_path(id);
            let exists = path.try_exists().doing(Kind::Host, || format!("look at {}", path.display()))?;
            records.push(exists && !in_use.contains(id) && going.insert(id.clone()));
        }
        let needed = self.needed_blobs(&going)?;
        let mut removals = Vec::new();
        for (id, goes) in ids.iter().zip(records) {
            removals.push(match goes {
                true => Removal::Removed { freed_bytes: self.remove_image(id, &needed)? },
                false if in_use.contains(id) => Removal::InUse,
                false => Removal::Missing,
            });
        }
        let mut report = GcReport::default();
        self.collect_names(&mut report)?;
        self.collect_remotes(&mut report)?;
        self.collect_acis()?;
        self.collect_signers()?;
        Ok(removals)
    }

    /// Removes what nobody needs: images that no pod uses and that were not used for `grace`, blobs of no
    /// image that are as old, and everything that leads nowhere. `in_use` is asked while nobody can begin to
    /// use an image.
    ///
    /// # Errors
    /// [`Kind::Host`] if something cannot be removed or `in_use` fails; what was removed by then is gone.
    pub fn gc<E: StdError + Send + Sync + 'static>(
        &self,
        grace: Duration,
        in_use: impl FnOnce() -> Result<BTreeSet<ImageId>, E>,
    ) -> Result<GcReport, Error> {
        let swept = sweep(self.temporary());
        let temporary = swept.doing(Kind::Host, || format!("clean up {}", self.temporary().display()))?;
        let freed_bytes = self.partials().remove_older(grace);
        let freed_bytes = freed_bytes.doing(Kind::Host, || "remove downloads that were given up".into())?;
        let mut report = GcReport { temporary, freed_bytes, ..GcReport::default() };
        {
            let _lock = self.exclusive()?;
            let in_use = ask(in_use)?;
            self.collect_images(grace, &in_use, &mut report)?;
            self.collect_erofs(&in_use, &mut report)?;
            self.collect_blobs(grace, &mut report)?;
            self.collect_names(&mut report)?;
            self.collect_remotes(&mut report)?;
            self.collect_acis()?;
            self.collect_signers()?;
        }
        // These records only save time, and their files may lie on a server that does not answer.
        self.collect_files(&mut report)?;
        Ok(report)
    }

    /// What a collection would remove at once, whatever is in use: it leads nowhere.
    pub(crate) fn garbage(&self) -> Result<Vec<String>, Error> {
        let mut found = Vec::new();
        let needed = self.needed_blobs(&BTreeSet::new())?;
        each_file(&self.folder().join("erofs"), |name, _, _| {
            if !image_of(name).is_some_and(|id| self.has_file_system(&id, name)) {
                found.push(format!("file system {name}: no image has it"));
            }
            Ok(())
        })?;
        for algorithm in Algorithm::ALL {
            each_file(&self.folder().join("blobs").join(algorithm.name()), |name, _, _| {
                if !Digest::new(algorithm, name).is_some_and(|digest| needed.contains(&digest)) {
                    found.push(format!("blob {}:{name}: no image needs it", algorithm.name()));
                }
                Ok(())
            })?;
        }
        each_file(self.names().folder(), |file, path, _| {
            let named = names::read(path).doing(Kind::Host, || format!("read {}", path.display()))?;
            if !named.is_some_and(|named| self.record_path(&named.image).exists()) {
                found.push(format!("name {file}: it leads nowhere"));
            }
            Ok(())
        })?;
        each_file(self.temporary(), |name, _, _| {
            found.push(format!("temporary file {name}"));
            Ok(())
        })?;
        Ok(found)
    }

    fn collect_images(
        &self,
        grace: Duration,
        in_use: &BTreeSet<ImageId>,
        report: &mut GcReport,
    ) -> Result<(), Error> {
        for id in self.ids()?.into_iter().filter(|id| !in_use.contains(id)) {
            let path = self.record_path(&id);
            let used = last_used(&path).doing(Kind::Host, || format!("look at {}", path.display()))?;
            let old = used.is_some_and(|used| age(used) >= grace);
            if old || !self.leads_to_image(&id)? {
                report.freed_bytes += remove(&path)?;
                report.images.push(id);
            }
        }
        self.sync_records()
    }

    /// Whether an image's record can be read, by whichever version, and its file system is there.
    fn leads_to_image(&self, id: &ImageId) -> Result<bool, Error> {
        let Some(text) = self.record_text(id)? else { return Ok(false) };
        Ok(match record::parse::<ImageRecord>(&text) {
            Some(record) => self.erofs_of(&record).exists(),
            None => record::digests(&text).is_some(),
        })
    }

    /// Whether an image has the file system of that name, and not another one by now.
    fn has_file_system(&self, id: &ImageId, name: &str) -> bool {
        match record::read::<ImageRecord>(&self.record_path(id)) {
            Ok(Some(record)) => record.erofs_name() == name,
            // One of another version, which says that in other words.
            _ => self.record_path(id).exists(),
        }
    }

    fn collect_erofs(&self, in_use: &BTreeSet<ImageId>, report: &mut GcReport) -> Result<(), Error> {
        each_file(&self.folder().join("erofs"), |name, path, _| {
            let Some(id) = image_of(name) else { return Ok(()) };
            // A pod that uses the image may have been prepared when it had this one.
            if !self.has_file_system(&id, name) && !in_use.contains(&id) {
                report.freed_bytes += remove(path)?;
                report.erofs += 1;
            }
            Ok(())
        })
    }

    fn collect_blobs(&self, grace: Duration, report: &mut GcReport) -> Result<(), Error> {
        let needed = self.needed_blobs(&BTreeSet::new())?;
        for algorithm in Algorithm::ALL {
            each_file(&self.folder().join("blobs").join(algorithm.name()), |name, path, file| {
                let Some(digest) = Digest::new(algorithm, name) else { return Ok(()) };
                // A fetch that failed is tried again soon, and need not begin anew.
                let old = file.modified().is_ok_and(|modified| age(modified) >= grace);
                if old && !needed.contains(&digest) {
                    report.freed_bytes += remove(path)?;
                    report.blobs += 1;
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// What says that a URL or a name held a blob that is gone.
    fn collect_remotes(&self, report: &mut GcReport) -> Result<(), Error> {
        each_file(&self.folder().join("remote"), |_, path, _| {
            let text = fs::read(path).doing(Kind::Host, || format!("read {}", path.display()))?;
            let blobs = record::digests(&text).unwrap_or_default();
            if !blobs.iter().any(|digest| self.blobs().path(digest).exists()) {
                report.freed_bytes += remove(path)?;
                report.names += 1;
            }
            Ok(())
        })
    }

    fn collect_acis(&self) -> Result<(), Error> {
        each_file(self.acis().folder(), |name, path, _| {
            match Acis::image_of(name).is_some_and(|id| self.record_path(&id).exists()) {
                true => Ok(()),
                false => remove(path).map(drop),
            }
        })
    }

    fn collect_signers(&self) -> Result<(), Error> {
        each_file(self.signers().folder(), |name, path, _| {
            match Signers::archive_of(name).is_some_and(|digest| self.blobs().path(&digest).exists()) {
                true => Ok(()),
                false => remove(path).map(drop),
            }
        })
    }

    fn collect_names(&self, report: &mut GcReport) -> Result<(), Error> {
        each_file(self.names().folder(), |_, path, _| {
            let named = names::read(path).doing(Kind::Host, || format!("read {}", path.display()))?;
            if !named.is_some_and(|named| self.record_path(&named.image).exists()) {
                report.freed_bytes += remove(path)?;
                report.names += 1;
            }
            Ok(())
        })
    }

    fn collect_files(&self, report: &mut GcReport) -> Result<(), Error> {
        each_file(self.files().folder(), |_, path, _| {
            let read = record::read::<FileRecord>(path);
            let file = read.doing(Kind::Host, || format!("read {}", path.display()))?;
            let image = file.as_ref().and_then(FileRecord::current_image);
            if !image.is_some_and(|id| self.record_path(id).exists()) {
                report.freed_bytes += remove(path)?;
                report.files += 1;
            }
            Ok(())
        })
    }

    /// Removes one image and its blobs, but for those in `needed`.
    fn remove_image(&self, id: &ImageId, needed: &BTreeSet<Digest>) -> Result<u64, Error> {
        let blobs = self.digests_of(id)?.unwrap_or_default();
        let mut freed = remove(&self.record_path(id))?;
        self.sync_records()?;
        each_file(&self.erofs_folder(), |name, path, _| {
            if image_of(name).as_ref() == Some(id) {
                freed += remove(path)?;
            }
            Ok(())
        })?;
        for digest in blobs.difference(needed) {
            freed += remove(&self.blobs().path(digest))?;
        }
        Ok(freed)
    }

    /// The blobs of all images but those `without`.
    fn needed_blobs(&self, without: &BTreeSet<ImageId>) -> Result<BTreeSet<Digest>, Error> {
        let mut needed = BTreeSet::new();
        for id in self.ids()?.into_iter().filter(|id| !without.contains(id)) {
            needed.extend(self.digests_of(&id)?.into_iter().flatten());
        }
        Ok(needed)
    }

    /// The blobs that an image's record names; `None` for what is no record.
    fn digests_of(&self, id: &ImageId) -> Result<Option<BTreeSet<Digest>>, Error> {
        Ok(self.record_text(id)?.and_then(|text| record::digests(&text)))
    }

    fn record_text(&self, id: &ImageId) -> Result<Option<Vec<u8>>, Error> {
        match fs::read(self.record_path(id)) {
            Ok(text) => Ok(Some(text)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::because(Kind::Host, format!("read the record of image {id}"), e)),
        }
    }

    /// Makes sure that no record comes back after a power cut while what it needs does not.
    fn sync_records(&self) -> Result<(), Error> {
        let folder = self.records_folder();
        sync_folder(&folder).doing(Kind::Host, || format!("write {} to disk", folder.display()))
    }
}

fn ask<E: StdError + Send + Sync + 'static>(
    in_use: impl FnOnce() -> Result<BTreeSet<ImageId>, E>,
) -> Result<BTreeSet<ImageId>, Error> {
    in_use().doing(Kind::Host, || "find out which images are in use".into())
}

/// Whose file system a file of that name is.
fn image_of(name: &str) -> Option<ImageId> {
    let name = name.strip_suffix(".erofs")?;
    name.split('.').next()?.parse().ok()
}

/// How long ago; nothing for times to come, which a clock that was set back leaves.
fn age(time: SystemTime) -> Duration {
    time.elapsed().unwrap_or_default()
}

/// Removes a file, if it is there, and says how much disk that gives back.
fn remove(path: &Path) -> Result<u64, Error> {
    let freed = fs::symlink_metadata(path).map_or(0, |file| on_disk(&file));
    record::remove(path).doing(Kind::Host, || format!("remove {}", path.display()))?;
    Ok(freed)
}

fn each_file(
    folder: &Path,
    mut visit: impl FnMut(&str, &Path, &Metadata) -> Result<(), Error>,
) -> Result<(), Error> {
    let doing = || format!("list {}", folder.display());
    for entry in fs::read_dir(folder).doing(Kind::Host, doing)? {
        let entry = entry.doing(Kind::Host, doing)?;
        // Another collection may have been here first.
        let Ok(metadata) = entry.metadata() else { continue };
        if let Some(name) = entry.file_name().to_str().filter(|_| metadata.is_file()) {
            visit(name, &entry.path(), &metadata)?;
        }
    }
    Ok(())
}

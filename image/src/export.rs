//! Images on their way out: as the archive they came in, or as an OCI layout, in a folder or an archive.
//!
//! The same image and tag give the same bytes. Every blob is hashed again on its way.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use hull_converter_protocol::BUFFER_SIZE;
use hull_errors::Doing;
use rustix::fs::{Mode, OFlags, mkdirat, openat};
use serde_json::{Value, json};

use crate::catalog::missing;
use crate::digest::{Algorithm, Digest, Hasher, ImageId};
use crate::oci;
use crate::record::{ImageKind, ImageRecord};
use crate::staging::{Existing, Staged, cannot_write};
use crate::store::Store;
use crate::{Error, Kind};

/// Where an image goes, and as what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExportTo {
    /// A path: an ACI as the uncompressed archive that it is, other images as an OCI archive.
    Path(PathBuf),
    /// `oci:FOLDER[:TAG]`
    OciLayout { path: PathBuf, tag: Option<String> },
    /// `oci-archive:FILE[:TAG]`
    OciArchive { path: PathBuf, tag: Option<String> },
}

impl FromStr for ExportTo {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let located = |rest: &str| {
            let (path, tag) = rest.split_once(':').map_or((rest, None), |(path, tag)| (path, Some(tag)));
            let refused =
                |text: &str| Err(Error::new(Kind::NotFound, format!("read output `{rest}`: {text}")));
            match (path, tag) {
                ("", _) => refused("the path is empty"),
                (_, Some("")) => refused("the tag is empty"),
                (path, tag) => Ok((PathBuf::from(path), tag.map(str::to_owned))),
            }
        };
        if let Some(rest) = text.strip_prefix("oci:") {
            return located(rest).map(|(path, tag)| Self::OciLayout { path, tag });
        }
        if let Some(rest) = text.strip_prefix("oci-archive:") {
            return located(rest).map(|(path, tag)| Self::OciArchive { path, tag });
        }
        Ok(Self::Path(text.into()))
    }
}

impl Store {
    /// Writes an image to a place outside of the store. What is there appears whole, or not at all.
    ///
    /// # Errors
    /// [`Kind::NotFound`] for an image that is not in the store, [`Kind::Unsupported`] for a format that it
    /// cannot have, [`Kind::Corrupt`] if a blob is damaged, [`Kind::Host`] for whatever is in the way.
    pub fn export(&self, id: &ImageId, to: &ExportTo, existing: Existing) -> Result<(), Error> {
        let _hold = self.hold()?;
        let record = self.known_record(id)?;
        match (to, record.kind) {
            (ExportTo::Path(path), ImageKind::Aci) => {
                let output = Staged::file(path, existing)?;
                self.copy_blob(id, &Digest::from(id), path, &mut output.handle())?;
                finish(output)
            }
            (ExportTo::Path(path), _) => self.oci_archive(&record, path, None, existing),
            (_, ImageKind::Aci) => {
                let text = format!(
                    "export image {id}: it is an App Container Image, which no OCI layout can hold; \
                     name a file without `oci:` or `oci-archive:`"
                );
                Err(Error::new(Kind::Unsupported, text))
            }
            (ExportTo::OciArchive { path, tag }, _) => {
                self.oci_archive(&record, path, tag.as_deref(), existing)
            }
            (ExportTo::OciLayout { path, tag }, _) => {
                self.oci_layout(&record, path, tag.as_deref(), existing)
            }
        }
    }

    fn oci_archive(
        &self,
        record: &ImageRecord,
        path: &Path,
        tag: Option<&str>,
        existing: Existing,
    ) -> Result<(), Error> {
        let layout = self.layout(record, tag)?;
        let output = Staged::file(path, existing)?;
        let mut tar = tar::Builder::new(io::BufWriter::with_capacity(BUFFER_SIZE, output.handle()));
        let failed = |e| cannot_write(path, e);
        for folder in layout.folders() {
            let header = header(tar::EntryType::Directory, 0o755, 0);
            append(&mut tar, header, &format!("{folder}/"), &mut io::empty()).map_err(failed)?;
        }
        for (name, bytes) in &layout.documents {
            let header = header(tar::EntryType::Regular, 0o644, bytes.len() as u64);
            append(&mut tar, header, name, &mut &**bytes).map_err(failed)?;
        }
        for blob in &layout.blobs {
            let file = self.blobs().get(blob)?.ok_or_else(|| missing(&record.id, blob))?;
            let size = file.file().metadata().doing(Kind::Host, || format!("look at blob {blob}"))?.len();
            let header = header(tar::EntryType::Regular, 0o644, size);
            let mut hashing = Hashing { inner: file.reader(), hasher: Hasher::new(blob.algorithm()) };
            append(&mut tar, header, &blob_path(blob), &mut hashing).map_err(failed)?;
            check(&record.id, blob, hashing.hasher)?;
        }
        tar.into_inner().and_then(|mut buffered| buffered.flush()).map_err(failed)?;
        finish(output)
    }

    fn oci_layout(
        &self,
        record: &ImageRecord,
        path: &Path,
        tag: Option<&str>,
        existing: Existing,
    ) -> Result<(), Error> {
        let layout = self.layout(record, tag)?;
        let output = Staged::folder(path, existing)?;
        let failed = |e: rustix::io::Errno| cannot_write(path, e.into());
        let top = output.handle();
        for folder in layout.folders() {
            mkdirat(top, folder, Mode::from_raw_mode(0o755)).map_err(failed)?;
        }
        let create = |name: &str| {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            openat(top, name, flags, Mode::from_raw_mode(0o644)).map(std::fs::File::from).map_err(failed)
        };
        for (name, bytes) in &layout.documents {
            let mut file = create(name)?;
            file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|e| cannot_write(path, e))?;
        }
        for blob in &layout.blobs {
            let mut file = create(&blob_path(blob))?;
            self.copy_blob(&record.id, blob, path, &mut file)?;
            file.sync_all().map_err(|e| cannot_write(path, e))?;
        }
        rustix::fs::fchmod(top, Mode::from_raw_mode(0o755)).map_err(failed)?;
        output.commit()
    }

    fn layout(&self, record: &ImageRecord, tag: Option<&str>) -> Result<Layout, Error> {
        let mut blobs: Vec<_> = record.blobs().cloned().collect();
        let mut documents = vec![("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec())];
        let id = &record.id;
        let manifest = match record.kind {
            ImageKind::Docker => {
                let bytes = self.manifest_made(record)?;
                let digest = Digest::of(Algorithm::Sha256, &bytes);
                let manifest = descriptor(oci::MANIFEST, &digest, bytes.len() as u64, tag);
                documents.push((blob_path(&digest), bytes));
                manifest
            }
            _ => {
                let digest = Digest::from(id);
                let bytes = self.blobs().get(&digest)?.ok_or_else(|| missing(id, &digest))?.document()?;
                let media_type = oci::media_type_of(bytes.as_slice());
                descriptor(media_type, &digest, bytes.as_slice().len() as u64, tag)
            }
        };
        let index = json!({"schemaVersion": 2, "mediaType": oci::INDEX, "manifests": [manifest]});
        documents.insert(1, ("index.json".into(), index.to_string().into_bytes()));
        blobs.sort_unstable();
        blobs.dedup();
        Ok(Layout { documents, blobs })
    }

    /// The manifest of an image that came without one; its layers are not compressed.
    fn manifest_made(&self, record: &ImageRecord) -> Result<Vec<u8>, Error> {
        let size = |digest: &Digest| {
            let size = self.blobs().path(digest).metadata().map(|file| file.len());
            size.doing(Kind::Host, || format!("look at blob {digest}"))
        };
        let config = Digest::from(&record.id);
        let layers = record
            .layers
            .iter()
            .map(|layer| Ok(descriptor(oci::LAYER, &layer.blob, size(&layer.blob)?, None)));
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": oci::MANIFEST,
            "config": descriptor(oci::CONFIG, &config, size(&config)?, None),
            "layers": layers.collect::<Result<Vec<_>, Error>>()?,
        });
        Ok(manifest.to_string().into_bytes())
    }

    fn copy_blob(
        &self,
        id: &ImageId,
        digest: &Digest,
        path: &Path,
        output: &mut dyn Write,
    ) -> Result<(), Error> {
        let blob = self.blobs().get(digest)?.ok_or_else(|| missing(id, digest))?;
        let mut hashing = Hashing { inner: blob.reader(), hasher: Hasher::new(digest.algorithm()) };
        let mut buffer = vec![0; BUFFER_SIZE];
        loop {
            let count = hashing.read(&mut buffer).doing(Kind::Host, || format!("read blob {digest}"))?;
            if count == 0 {
                return check(id, digest, hashing.hasher);
            }
            output.write_all(&buffer[..count]).map_err(|e| cannot_write(path, e))?;
        }
    }
}

/// What an OCI layout of one image holds.
struct Layout {
    /// Files that the store does not have, in the order in which readers want them.
    documents: Vec<(String, Vec<u8>)>,
    blobs: Vec<Digest>,
}

impl Layout {
    fn folders(&self) -> impl Iterator<Item = &'static str> {
        let sha512 = self.blobs.iter().any(|blob| blob.algorithm() == Algorithm::Sha512);
        ["blobs", "blobs/sha256"].into_iter().chain(sha512.then_some("blobs/sha512"))
    }
}

/// OCI image-spec, "Content Descriptors".
fn descriptor(media_type: &str, digest: &Digest, size: u64, tag: Option<&str>) -> Value {
    let mut descriptor = json!({"mediaType": media_type, "digest": digest, "size": size});
    if let Some(tag) = tag {
        descriptor["annotations"] = json!({oci::REF_NAME: tag});
    }
    descriptor
}

struct Hashing<R> {
    inner: R,
    hasher: Hasher,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

fn check(id: &ImageId, digest: &Digest, hasher: Hasher) -> Result<(), Error> {
    if hasher.finish() == *digest {
        return Ok(());
    }
    let text = format!("export image {id}: its blob {digest} is damaged (hull image verify {id} says more)");
    Err(Error::new(Kind::Corrupt, text))
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

/// Nobody's, of no time: what differs between two exports would make them different files.
fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn append(
    tar: &mut tar::Builder<impl Write>,
    mut header: tar::Header,
    path: &str,
    content: &mut dyn Read,
) -> io::Result<()> {
    tar.append_data(&mut header, path, content)
}

/// Readable as any file that the user makes; then it gets its name.
fn finish(output: Staged) -> Result<(), Error> {
    let file = output.handle();
    let done = rustix::fs::fchmod(file, Mode::from_raw_mode(0o644)).map_err(io::Error::from);
    done.and_then(|()| file.sync_all()).map_err(|e| cannot_write(output.target(), e))?;
    output.commit()
}

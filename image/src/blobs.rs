//! Blobs by digest, and the only place where a [`Verified`] is born.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use hull_converter_protocol::BUFFER_SIZE;
pub(crate) use hull_converter_protocol::{DOCUMENT_MAX, UNCOMPRESSED_MAX as BLOB_MAX};
use hull_errors::Doing;

use crate::digest::{Algorithm, Digest, Hasher, IdPrefix};
use crate::error::{reading, way_out, writing};
use crate::temporary::Temporary;
use crate::transport::partial::Complete;
use crate::{Error, Kind};

/// A blob of the store: bytes *we* hashed while we wrote them, to a file that only we may write.
///
/// Fields are private and the type is not `Clone`: holding one is the proof. Layers and documents are
/// parsed from nothing else.
#[derive(Debug)]
pub(crate) struct Verified {
    file: File,
    digest: Digest,
}

impl Verified {
    pub(crate) fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The bytes, from the first.
    pub(crate) fn reader(self) -> File {
        self.file
    }

    /// The bytes, without giving the proof away; where the file is read next must not be changed.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// A short document, whole.
    pub(crate) fn document(mut self) -> Result<VerifiedBytes, Error> {
        let doing = || format!("read blob {}", self.digest);
        let size = self.file.metadata().doing(Kind::Host, doing)?.len();
        if size > DOCUMENT_MAX {
            return Err(too_long(&self.digest, size));
        }
        let mut bytes = Vec::new();
        self.file.read_to_end(&mut bytes).doing(Kind::Host, doing)?;
        Ok(VerifiedBytes(bytes))
    }
}

/// The bytes of a document whose digest was found right.
pub(crate) struct VerifiedBytes(Vec<u8>);

impl VerifiedBytes {
    /// Reads `size` bytes of `source` into memory and compares their digest with `want`.
    pub(crate) fn read(source: &mut dyn Read, want: &Digest, size: u64) -> Result<Self, Error> {
        if size > DOCUMENT_MAX {
            return Err(too_long(want, size));
        }
        let mut bytes = Vec::new();
        let read = source.take(size + 1).read_to_end(&mut bytes);
        read.doing(Kind::Host, || format!("read blob {want}"))?;
        check_size(want, bytes.len() as u64, Some(size))?;
        check_digest(want, &Digest::of(want.algorithm(), &bytes))?;
        Ok(Self(bytes))
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.0
    }
}

fn too_long(digest: &Digest, size: u64) -> Error {
    Error::new(
        Kind::TooLarge,
        format!("read document {digest}: it has {size} bytes, at most {DOCUMENT_MAX} are accepted"),
    )
}

/// What became of a blob since it was stored.
pub(crate) enum Checked {
    Right(Verified),
    /// It has this digest now, and was removed.
    Damaged(Digest),
    Missing,
}

/// The part of the store that holds blobs as they came.
#[derive(Debug)]
pub(crate) struct Blobs {
    folder: PathBuf,
    temporary: PathBuf,
}

impl Blobs {
    pub(crate) fn new(folder: PathBuf, temporary: PathBuf) -> Self {
        Self { folder, temporary }
    }

    pub(crate) fn path(&self, digest: &Digest) -> PathBuf {
        self.folder.join(digest.algorithm().name()).join(digest.hex())
    }

    /// The blob, if the store has it.
    pub(crate) fn get(&self, digest: &Digest) -> Result<Option<Verified>, Error> {
        match File::open(self.path(digest)) {
            Ok(file) => Ok(Some(Verified { file, digest: digest.clone() })),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::because(Kind::Host, format!("open blob {digest}"), e)),
        }
    }

    /// The blobs whose ids begin so.
    pub(crate) fn beginning(&self, prefix: &IdPrefix) -> Result<Vec<Digest>, Error> {
        let (name, start) = prefix.as_str().split_once('-').expect("the beginning of an id has a dash");
        let algorithm = Algorithm::by_name(name).expect("the beginning of an id names its algorithm");
        let folder = self.folder.join(name);
        let doing = || format!("list {}", folder.display());
        let mut found = Vec::new();
        for entry in fs::read_dir(&folder).doing(Kind::Host, doing)? {
            let name = entry.doing(Kind::Host, doing)?.file_name();
            let name = name.to_str().filter(|name| name.starts_with(start));
            found.extend(name.and_then(|name| Digest::new(algorithm, name)));
        }
        Ok(found)
    }

    /// Hashes a blob again. A damaged one is removed: it is worth nothing to anybody.
    pub(crate) fn check(&self, digest: &Digest) -> Result<Checked, Error> {
        let Some(blob) = self.get(digest)? else { return Ok(Checked::Missing) };
        let doing = || format!("read blob {digest}");
        let mut hasher = Hasher::new(digest.algorithm());
        let mut buffer = vec![0; BUFFER_SIZE];
        let mut position = 0;
        loop {
            let count = blob.file.read_at(&mut buffer, position).doing(Kind::Host, doing)?;
            if count == 0 {
                break;
            }
            hasher.update(&buffer[..count]);
            position += count as u64;
        }
        let got = hasher.finish();
        if got == *digest {
            return Ok(Checked::Right(blob));
        }
        fs::remove_file(self.path(digest)).doing(Kind::Host, || format!("remove damaged blob {digest}"))?;
        Ok(Checked::Damaged(got))
    }

    /// Copies a blob into the store while hashing it. A wrong digest or size leaves nothing.
    pub(crate) fn add(
        &self,
        source: &mut dyn Read,
        want: &Digest,
        size: Option<u64>,
    ) -> Result<Verified, Error> {
        let limit = size.unwrap_or(BLOB_MAX);
        let (temporary, got, count) = self.copy(source, want.algorithm(), limit, &want.to_string())?;
        check_size(want, count, size)?;
        check_digest(want, &got)?;
        self.keep(temporary, got)
    }

    /// Copies `source` into the store under the digest it turns out to have.
    pub(crate) fn add_whatever(
        &self,
        source: &mut dyn Read,
        algorithm: Algorithm,
        name: &str,
    ) -> Result<Verified, Error> {
        let (temporary, got, count) = self.copy(source, algorithm, BLOB_MAX, name)?;
        check_length(name, count)?;
        self.keep(temporary, got)
    }

    /// An unnamed file in the store's folder: room for something that is looked at and thrown away.
    pub(crate) fn scratch(&self, source: &mut dyn Read, name: &str) -> Result<File, Error> {
        let (temporary, _, count) = self.copy(source, Algorithm::Sha256, BLOB_MAX, name)?;
        check_length(name, count)?;
        temporary.file().try_clone().doing(Kind::Host, || format!("keep {name}"))
    }

    /// Copies at most `limit` bytes (and one more, so that too long is noticed).
    fn copy(
        &self,
        source: &mut dyn Read,
        algorithm: Algorithm,
        limit: u64,
        name: &str,
    ) -> Result<(Temporary, Digest, u64), Error> {
        let cannot_write = |e| cannot_write(&self.folder, name, e);
        let temporary = Temporary::create(&self.temporary).map_err(cannot_write)?;
        let mut source = source.take(limit.saturating_add(1));
        let (mut hasher, mut total) = (Hasher::new(algorithm), 0);
        let mut buffer = vec![0; BUFFER_SIZE];
        loop {
            let count = match source.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(cannot_read(name, e)),
            };
            hasher.update(&buffer[..count]);
            temporary.file().write_all(&buffer[..count]).map_err(cannot_write)?;
            total += count as u64;
        }
        Ok((temporary, hasher.finish(), total))
    }

    /// Takes a finished download into the store.
    pub(crate) fn adopt(&self, complete: Complete, want: &Digest) -> Result<Verified, Error> {
        check_digest(want, complete.digest())?;
        let path = self.path(want);
        complete.commit(&path).map_err(|e| cannot_write(&self.folder, &want.to_string(), e))?;
        let file = File::open(path).doing(Kind::Host, || format!("open blob {want}"))?;
        Ok(Verified { file, digest: want.clone() })
    }

    fn keep(&self, temporary: Temporary, digest: Digest) -> Result<Verified, Error> {
        let path = self.path(&digest);
        temporary.commit(&path).map_err(|e| cannot_write(&self.folder, &digest.to_string(), e))?;
        let file = File::open(path).doing(Kind::Host, || format!("open blob {digest}"))?;
        Ok(Verified { file, digest })
    }

    /// The folders that must exist.
    pub(crate) fn folders(&self) -> [PathBuf; 2] {
        Algorithm::ALL.map(|algorithm| self.folder.join(algorithm.name()))
    }
}

fn cannot_read(name: &str, error: io::Error) -> Error {
    Error::because(reading(&error), format!("read {name}"), error)
}

/// An error of the store's disk; a full one comes with the way out.
pub(crate) fn cannot_write(folder: &Path, what: &str, error: io::Error) -> Error {
    let doing = format!("write {what} to the image store {}{}", folder.display(), way_out(&error));
    Error::because(writing(&error), doing, error)
}

fn check_length(name: &str, length: u64) -> Result<(), Error> {
    if length <= BLOB_MAX {
        return Ok(());
    }
    Err(Error::new(Kind::TooLarge, format!("read {name}: more than {BLOB_MAX} bytes")))
}

fn check_size(digest: &Digest, got: u64, want: Option<u64>) -> Result<(), Error> {
    match want {
        Some(want) if got > want => {
            Err(Error::new(Kind::Corrupt, format!("blob {digest} has more than the {want} bytes announced")))
        }
        Some(want) if got < want => {
            Err(Error::new(Kind::Corrupt, format!("blob {digest} has {got} bytes, {want} were announced")))
        }
        _ => Ok(()),
    }
}

fn check_digest(want: &Digest, got: &Digest) -> Result<(), Error> {
    if want == got {
        return Ok(());
    }
    Err(Error::new(Kind::Corrupt, format!("blob {want} has another digest: {got}")))
}

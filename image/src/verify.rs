//! Whether an image is still what it was: its blobs by their digests, its file system by making it again.
//!
//! Conversion is deterministic, so the file system needs no digest of its own, whose making every fetch would
//! pay for: it is made again from the blobs and compared, and if it differs the new one is there already.

use std::fs::File;
use std::io::{self, Read};

use hull_errors::Doing;

use crate::blobs::Checked;
use crate::convert::Layer;
use crate::digest::{Digest, ImageId};
use crate::record::{self, CONVERSION, ImageRecord};
use crate::store::Store;
use crate::{Error, Kind};

/// How much of two files is compared at a time.
const PIECE_SIZE: usize = 1 << 20;

/// What [`Store::verify`] found of an image whose blobs are right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verification {
    /// All is as it should be.
    Good,
    /// The file system was not, for this reason; now it is.
    Rebuilt { why: String },
}

/// What [`Store::check`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// What contradicts itself; no interruption leaves such a thing. Fetching the image again helps.
    pub broken: Vec<String>,
    /// What nobody needs: an interruption may leave it, a collection removes it.
    pub garbage: Vec<String>,
}

impl Store {
    /// Compares an image with what it must be, and makes its file system anew if it differs. Damaged blobs
    /// are removed, and with them the image counts as not there: a fetch brings what is missing.
    ///
    /// # Errors
    /// [`Kind::NotFound`] for an image that is not in the store, [`Kind::Corrupt`] if blobs of it are damaged
    /// or missing.
    pub fn verify(&self, id: &ImageId) -> Result<Verification, Error> {
        let _hold = self.hold()?;
        let _lock = self.lock_image(id)?;
        let record = self.own_record(id)?;
        let record =
            record.ok_or_else(|| Error::new(Kind::NotFound, format!("find image {id} in the store")))?;
        let layers = self.checked_layers(&record)?;
        let anew = self.converted(id, layers)?;
        let path = self.erofs_of(&record);
        let why = match File::open(&path) {
            _ if record.conversion != CONVERSION => Some("another version of hull had made it".to_owned()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Some("its file system is missing".to_owned()),
            opened => {
                let doing = || format!("compare the file system of image {id}");
                difference(&opened.doing(Kind::Host, doing)?, anew.file()).doing(Kind::Host, doing)?
            }
        };
        let Some(why) = why else { return Ok(Verification::Good) };
        self.put(record, anew)?;
        Ok(Verification::Rebuilt { why })
    }

    /// Compares what the store remembers with what is there, without reading contents: that is for
    /// [`Store::verify`].
    ///
    /// # Errors
    /// [`Kind::Host`] if the store cannot be read.
    pub fn check(&self) -> Result<Findings, Error> {
        let _hold = self.hold()?;
        let mut found = Findings { garbage: self.garbage()?, ..Findings::default() };
        for id in self.ids()? {
            match self.own_record(&id)? {
                Some(record) => found.broken.extend(self.contradiction(&record)),
                None => found.garbage.push(format!("record of image {id}: damaged, or of another version")),
            }
        }
        Ok(found)
    }

    /// A record of this version, whether or not the image is whole.
    fn own_record(&self, id: &ImageId) -> Result<Option<ImageRecord>, Error> {
        let record: Option<ImageRecord> = record::read(&self.record_path(id))
            .doing(Kind::Host, || format!("read the record of image {id}"))?;
        Ok(record.filter(|record| record.is_of(id)))
    }

    fn contradiction(&self, record: &ImageRecord) -> Option<String> {
        let id = &record.id;
        match self.erofs_of(record).metadata() {
            Err(_) => return Some(format!("image {id}: its file system is missing")),
            Ok(file) if file.len() != record.erofs_size => {
                let (got, want) = (file.len(), record.erofs_size);
                return Some(format!("image {id}: its file system has {got} bytes, not {want}"));
            }
            Ok(_) => (),
        }
        let gone = record.blobs().find(|digest| !self.blobs().path(digest).is_file())?;
        Some(format!("image {id}: its blob {gone} is missing"))
    }

    fn checked_layers(&self, record: &ImageRecord) -> Result<Vec<Layer>, Error> {
        let mut wrong = Vec::new();
        let mut check = |digest: &Digest| match self.blobs().check(digest)? {
            Checked::Right(blob) => Ok(Some(blob)),
            Checked::Damaged(got) => {
                wrong.push(format!("blob {digest} has another digest now, {got}"));
                Ok(None)
            }
            Checked::Missing => {
                wrong.push(format!("blob {digest} is missing"));
                Ok(None)
            }
        };
        for document in &record.documents {
            check(document)?;
        }
        let mut layers = Vec::new();
        for layer in &record.layers {
            let blob = check(&layer.blob)?;
            layers.extend(blob.map(|blob| Layer { blob, flavour: layer.flavour.clone() }));
        }
        if wrong.is_empty() {
            return Ok(layers);
        }
        let text = format!("verify image {}: {}; fetch the image again", record.id, wrong.join(", "));
        Err(Error::new(Kind::Corrupt, text))
    }
}

/// In which way the first file is not the second.
fn difference(got: &File, want: &File) -> io::Result<Option<String>> {
    let (got_len, want_len) = (got.metadata()?.len(), want.metadata()?.len());
    if got_len != want_len {
        return Ok(Some(format!("its file system has {got_len} bytes, not {want_len}")));
    }
    let (mut got, mut want) = (Whole { file: got, position: 0 }, Whole { file: want, position: 0 });
    let mut pieces = (Vec::with_capacity(PIECE_SIZE), Vec::with_capacity(PIECE_SIZE));
    loop {
        pieces.0.clear();
        pieces.1.clear();
        let start = got.position;
        got.by_ref().take(PIECE_SIZE as u64).read_to_end(&mut pieces.0)?;
        want.by_ref().take(PIECE_SIZE as u64).read_to_end(&mut pieces.1)?;
        if pieces.0 != pieces.1 {
            let same = pieces.0.iter().zip(&pieces.1).take_while(|(a, b)| a == b).count();
            return Ok(Some(format!("its file system differs at byte {}", start + same as u64)));
        }
        if pieces.0.is_empty() {
            return Ok(None);
        }
    }
}

/// A file from its beginning, wherever its descriptor stands.
struct Whole<'a> {
    file: &'a File,
    position: u64,
}

impl Read for Whole<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = std::os::unix::fs::FileExt::read_at(self.file, buffer, self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}

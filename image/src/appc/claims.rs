//! What an image must be like, as whoever asks for it says.

use super::Name;
use crate::aci::Manifest;
use crate::blobs::BLOB_MAX;
use crate::{Error, Kind};

/// What is known of an image before it is there.
#[derive(Clone, Copy, Default)]
pub(super) struct Claims<'a> {
    /// The name and the labels asked for; nobody says which a URL leads to.
    pub(super) name: Option<&'a Name>,
    /// What the image that lies on it says its size is (appc spec, "Image Manifest Schema": the size "SHOULD" match,
    /// "to mitigate endless data attacks"). Whether compressed or not is not specified: either will do.
    pub(super) size: Option<u64>,
}

impl Claims<'_> {
    /// Most bytes that are downloaded. Compressed bytes can be a little more than those inside.
    pub(super) fn download_max(&self) -> u64 {
        let little_more = |size: u64| size.saturating_add(size / 64).saturating_add(4096);
        self.size.map_or(BLOB_MAX, |size| little_more(size).min(BLOB_MAX))
    }

    /// Checks an archive of so many bytes that has so many when it is uncompressed.
    pub(super) fn check_size(&self, archive: u64, plain: u64, address: &str) -> Result<(), Error> {
        match self.size {
            Some(size) if size != archive && size != plain => {
                let text = format!(
                    "fetch {address}: it has {archive} bytes ({plain} uncompressed), the image that depends on it \
                     says {size}"
                );
                Err(Error::new(Kind::Corrupt, text))
            }
            _ => Ok(()),
        }
    }

    /// Checks whether an archive is the image that was asked for; the words are rkt's.
    pub(super) fn check_name(&self, manifest: &Manifest, address: &str) -> Result<(), Error> {
        let Some(name) = self.name else { return Ok(()) };
        let wrong = |why: String| {
            let text = format!("fetch image {name}: {address} holds another one: {why}");
            Error::new(Kind::Corrupt, text)
        };
        if manifest.name().as_str() != name.name() {
            return Err(wrong(format!(
                "{:?} expected but {:?} found",
                name.name(),
                manifest.name().as_str()
            )));
        }
        for (label, value) in name.labels() {
            match manifest.labels().get(label) {
                None => {
                    return Err(wrong(format!(
                        "requested label {label:?} not provided by the image manifest (with value {value:?})"
                    )));
                }
                Some(own) if own != value => {
                    return Err(wrong(format!(
                        "requested value for label {label:?}: {value:?} differs from fetched aci label value: \
                         {own:?}"
                    )));
                }
                Some(_) => (),
            }
        }
        Ok(())
    }
}

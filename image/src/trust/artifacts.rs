//! The registry, as far as trust needs it.

use crate::Error;
use crate::digest::Digest;

/// Where the signatures of a registry's image are found.
pub(crate) trait Artifacts {
    /// The bytes of a manifest by tag or digest, at most [`crate::blobs::DOCUMENT_MAX`] of them; for a digest,
    /// checked against it. `None` if the registry has none.
    ///
    /// # Errors
    /// [`crate::Kind::Network`], [`crate::Kind::Unauthorized`], [`crate::Kind::Corrupt`].
    fn manifest(&self, reference: &str) -> Result<Option<Vec<u8>>, Error>;

    /// Manifests that name `subject` as theirs (distribution-spec v1.1, "Listing Referrers"), each as the digest and
    /// the `artifactType`; the fallback tag is asked where the registry knows no referrers.
    ///
    /// # Errors
    /// As [`Artifacts::manifest`].
    fn referrers(&self, subject: &Digest) -> Result<Vec<(Digest, String)>, Error>;

    /// A short blob, checked against its digest.
    ///
    /// # Errors
    /// As [`Artifacts::manifest`]; [`crate::Kind::TooLarge`] for one of more than `DOCUMENT_MAX` bytes.
    fn blob(&self, digest: &Digest, size: u64) -> Result<Vec<u8>, Error>;
}

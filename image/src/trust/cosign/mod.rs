//! Signatures that cosign makes with a key, found in the registry beside the image.
//!
//! Why not the `sigstore` crate: what is needed here is two JSON documents and one `verify` of a cryptography library
//! that the program has anyway (ring, by way of TLS; ed25519-dalek, by way of OpenPGP, for the hashed kind of Ed25519). The crate is about Fulcio, Rekor and TUF, which an offline
//! check with a key never asks; it brings an HTTP client, an asynchronous interface, X.509 and a second copy of the
//! registry client with it, and its signatures do not stop where the policy of containers-policy.json(5) needs to
//! look: at the name in the payload. What it would spare is the 300 lines of this folder. Should signatures without
//! a key be wanted, with all that then has to be known of certificates and logs, the crate is the way.
//!
//! Two forms are read: the tag `ALGORITHM-HEX.sig` whose manifest has a layer for each signature, and manifests with
//! the image as their subject that hold a bundle (cosign 3). A registry may hold any number of signatures by anybody,
//! so one that counts is enough; how many are looked at is bounded, and each is verified before its content is read.

mod bundle;
mod key;
mod payload;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::Deserialize;

pub(crate) use self::bundle::Bundle;
use self::bundle::{MEDIA_TYPE, decoded, made_by_any};
pub(crate) use self::key::{KEY_FILE_MAX, Key};
pub(crate) use self::payload::Claim;
use super::artifacts::Artifacts;
use crate::digest::Digest;
use crate::{Error, Kind};

/// Most signatures of one image that are looked at, in either form.
pub(crate) const SIGNATURES_MAX: usize = 64;

/// Longest payload or bundle.
const PAYLOAD_MAX: u64 = 64 << 10;

/// The layers of a `.sig` manifest that are signatures, and where the signature is.
const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";

/// What the fallback index of cosign calls a bundle: the kind of the manifest's empty configuration.
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// OCI image-spec v1.1, "Image Manifest": the parts that matter here.
#[derive(Deserialize)]
struct Manifest {
    layers: Vec<Descriptor>,
    subject: Option<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: Digest,
    size: u64,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// Looks for a signature of `subject` by one of `keys` whose name `accepts` takes. The inner error is every reason
/// for which there is none.
///
/// # Errors
/// The registry's, if it could not be asked.
pub(super) fn find(
    artifacts: &dyn Artifacts,
    subject: &Digest,
    keys: &[Key],
    accepts: &dyn Fn(Option<&str>) -> Result<(), String>,
) -> Result<Result<(), Vec<String>>, Error> {
    let search = Search { artifacts, subject, keys, accepts };
    let mut reasons = Vec::new();
    if search.in_tag(&mut reasons)? || search.in_referrers(&mut reasons)? {
        return Ok(Ok(()));
    }
    reasons.dedup();
    Ok(Err(reasons))
}

struct Search<'a> {
    artifacts: &'a dyn Artifacts,
    subject: &'a Digest,
    keys: &'a [Key],
    accepts: &'a dyn Fn(Option<&str>) -> Result<(), String>,
}

impl Search<'_> {
    fn in_tag(&self, reasons: &mut Vec<String>) -> Result<bool, Error> {
        let tag = format!("{}-{}.sig", self.subject.algorithm().name(), self.subject.hex());
        let Some(bytes) = self.artifacts.manifest(&tag)? else { return Ok(false) };
        let layers = match serde_json::from_slice::<Manifest>(&bytes) {
            Ok(manifest) => manifest.layers,
            Err(e) => {
                reasons.push(format!("the manifest `{tag}` is malformed: {e}"));
                return Ok(false);
            }
        };
        if layers.len() > SIGNATURES_MAX {
            reasons
                .push(format!("`{tag}` has {} signatures, the first {SIGNATURES_MAX} count", layers.len()));
        }
        for layer in layers.iter().take(SIGNATURES_MAX) {
            match self.simple_signing(layer) {
                Ok(()) => return Ok(true),
                Err(Refusal::Signature(reason)) => reasons.push(reason),
                Err(Refusal::Registry(error)) => return Err(error),
            }
        }
        Ok(false)
    }

    fn simple_signing(&self, layer: &Descriptor) -> Result<(), Refusal> {
        if layer.media_type != SIMPLE_SIGNING {
            return Err(format!("it is a `{}`", layer.media_type.escape_debug()).into());
        }
        let signature = layer.annotations.get(SIGNATURE).ok_or("it has no signature")?;
        let payload = self.short_blob(layer)?;
        made_by_any(self.keys, &decoded(signature)?, &payload)?;
        Ok(self.check(&Claim::of_simple_signing(&payload)?)?)
    }

    fn in_referrers(&self, reasons: &mut Vec<String>) -> Result<bool, Error> {
        let referrers = self.artifacts.referrers(self.subject)?;
        let bundles = referrers
            .iter()
            .filter(|(_, kind)| kind.is_empty() || kind == EMPTY || kind.starts_with(MEDIA_TYPE))
            .collect::<Vec<_>>();
        if bundles.len() > SIGNATURES_MAX {
            reasons.push(format!("there are {} bundles, the first {SIGNATURES_MAX} count", bundles.len()));
        }
        for (digest, _) in bundles.into_iter().take(SIGNATURES_MAX) {
            match self.referrer(digest) {
                Ok(()) => return Ok(true),
                Err(Refusal::Signature(reason)) => reasons.push(reason),
                Err(Refusal::Registry(error)) => return Err(error),
            }
        }
        Ok(false)
    }

    fn referrer(&self, digest: &Digest) -> Result<(), Refusal> {
        let bytes = self.artifacts.manifest(&digest.to_string())?.ok_or("its manifest is gone")?;
        let manifest: Manifest =
            serde_json::from_slice(&bytes).map_err(|e| format!("its manifest is malformed: {e}"))?;
        if manifest.subject.is_none_or(|subject| subject.digest != *self.subject) {
            return Err("its manifest is about something else".to_owned().into());
        }
        let [layer] = &*manifest.layers else {
            return Err(format!("its manifest has {} layers, not one", manifest.layers.len()).into());
        };
        if !layer.media_type.starts_with(MEDIA_TYPE) {
            return Err(format!("it is a `{}`", layer.media_type.escape_debug()).into());
        }
        let bundle = Bundle::parse(&self.short_blob(layer)?)?;
        let mut failed = None;
        let claim = bundle.claim(self.keys, self.subject, || {
            let manifest = self.artifacts.manifest(&self.subject.to_string());
            match manifest {
                Ok(bytes) => bytes.ok_or_else(|| "what it signs is gone".into()),
                Err(error) => {
                    failed = Some(error);
                    Err(String::new())
                }
            }
        });
        match failed {
            Some(error) => Err(Refusal::Registry(error)),
            None => Ok(self.check(&claim?)?),
        }
    }

    fn check(&self, claim: &Claim) -> Result<(), String> {
        if claim.digest != *self.subject {
            return Err(format!("it is for another image, {}", claim.digest));
        }
        (self.accepts)(claim.name.as_deref())
    }

    fn short_blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>, Refusal> {
        if descriptor.size > PAYLOAD_MAX {
            return Err(format!("it has {} bytes, at most {PAYLOAD_MAX} are read", descriptor.size).into());
        }
        Ok(self.artifacts.blob(&descriptor.digest, descriptor.size)?)
    }
}

/// Why one signature does not count.
enum Refusal {
    Signature(String),
    /// Nothing is known of it.
    Registry(Error),
}

impl From<String> for Refusal {
    fn from(reason: String) -> Self {
        Refusal::Signature(reason)
    }
}

impl From<&str> for Refusal {
    fn from(reason: &str) -> Self {
        Refusal::Signature(reason.to_owned())
    }
}

impl From<Error> for Refusal {
    /// What the registry has and is wrong is the signature's fault: others may be right.
    fn from(error: Error) -> Self {
        match error.kind() {
            Kind::Corrupt | Kind::TooLarge | Kind::NotFound => Refusal::Signature(hull_errors::chain(&error)),
            _ => Refusal::Registry(error),
        }
    }
}

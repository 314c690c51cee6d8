//! Sigstore bundles (protobuf-specs, `sigstore_bundle.proto`), as far as a key makes them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::key::Key;
use super::payload::Claim;
use crate::digest::{Algorithm, Digest};

/// Media types of bundles begin so.
pub(super) const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle";

/// How that of version 0.3 was and is written.
const KNOWN: [&str; 2] =
    ["application/vnd.dev.sigstore.bundle.v0.3+json", "application/vnd.dev.sigstore.bundle+json;version=0.3"];

const IN_TOTO: &str = "application/vnd.in-toto+json";

/// A bundle; what it has of transparency logs and time stamps is for others.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Bundle {
    media_type: String,
    verification_material: Material,
    dsse_envelope: Option<Envelope>,
    message_signature: Option<MessageSignature>,
}

/// With what to verify: a key that we must know, or a certificate that only a certificate authority vouches for.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Material {
    public_key: Option<PublicKey>,
    certificate: Option<serde::de::IgnoredAny>,
    x509_certificate_chain: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct PublicKey {}

/// Dead Simple Signing Envelope v1.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<EnvelopeSignature>,
}

#[derive(Deserialize)]
struct EnvelopeSignature {
    sig: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MessageSignature {
    message_digest: Option<MessageDigest>,
    signature: String,
}

#[derive(Deserialize)]
struct MessageDigest {
    algorithm: String,
    digest: String,
}

impl Bundle {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let bundle: Self =
            serde_json::from_slice(bytes).map_err(|e| format!("its bundle is malformed: {e}"))?;
        if !KNOWN.contains(&&*bundle.media_type) {
            let shown = bundle.media_type.escape_debug();
            return Err(format!("its bundle is a `{shown}`, only version 0.3 is supported"));
        }
        let material = &bundle.verification_material;
        if material.certificate.is_some() || material.x509_certificate_chain.is_some() {
            return Err("it was made without a key (by a certificate), which is not supported".into());
        }
        if material.public_key.is_none() {
            return Err("its bundle does not say that a key made it".into());
        }
        Ok(bundle)
    }

    /// What a key says with it; `message` is what the bundle is for, if that is what was signed.
    pub(crate) fn claim(
        &self,
        keys: &[Key],
        subject: &Digest,
        message: impl FnOnce() -> Result<Vec<u8>, String>,
    ) -> Result<Claim, String> {
        match (&self.dsse_envelope, &self.message_signature) {
            (Some(envelope), None) => envelope.claim(keys),
            (None, Some(signature)) => {
                signature.check_digest(subject)?;
                made_by_any(keys, &decoded(&signature.signature)?, &message()?)?;
                Ok(Claim { digest: subject.clone(), name: None })
            }
            _ => Err("its bundle has not one signature".into()),
        }
    }
}

impl Envelope {
    fn claim(&self, keys: &[Key]) -> Result<Claim, String> {
        if self.payload_type != IN_TOTO {
            let shown = self.payload_type.escape_debug();
            return Err(format!("its envelope holds `{shown}`, not `{IN_TOTO}`"));
        }
        let [signature] = &*self.signatures else {
            return Err(format!("its envelope has {} signatures, not one", self.signatures.len()));
        };
        let payload = decoded(&self.payload)?;
        // DSSE v1, "PAE": lengths and type are signed as well.
        let mut signed =
            format!("DSSEv1 {} {} {} ", self.payload_type.len(), self.payload_type, payload.len())
                .into_bytes();
        signed.extend_from_slice(&payload);
        made_by_any(keys, &decoded(&signature.sig)?, &signed)?;
        Claim::of_statement(&payload)
    }
}

impl MessageSignature {
    /// The digest in a bundle is a hint, but one that is wrong tells what the signature was made for.
    fn check_digest(&self, subject: &Digest) -> Result<(), String> {
        let Some(MessageDigest { algorithm, digest }) = &self.message_digest else { return Ok(()) };
        if algorithm != "SHA2_256" || subject.algorithm() != Algorithm::Sha256 {
            return Ok(());
        }
        let hex: String = decoded(digest)?.iter().map(|b| format!("{b:02x}")).collect();
        if hex == subject.hex() { Ok(()) } else { Err(format!("it is for sha256:{hex}")) }
    }
}

/// Whether one of the keys made it.
pub(super) fn made_by_any(keys: &[Key], signature: &[u8], message: &[u8]) -> Result<(), String> {
    let made = keys.iter().any(|key| key.made(signature, message));
    made.then_some(())
        .ok_or_else(|| "it was not made by the key of the policy, or not over what it is with".into())
}

pub(super) fn decoded(text: &str) -> Result<Vec<u8>, String> {
    STANDARD.decode(text).map_err(|e| format!("it is malformed: {e}"))
}

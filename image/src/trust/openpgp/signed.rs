//! Detached signatures: what counts as one, and what it proves.
//!
//! A signature counts if a key of the key store made it over the bytes of the file, by algorithms that Sequoia's
//! `StandardPolicy` takes, and if both the key and the signature are valid *now*. OpenPGP would let a key that has
//! expired or was retired vouch for what it signed before; but when it signed is what the signer says, and an old
//! key that leaked would sign for ever with yesterday's date. Keys that are still used get their expiry extended.
//!
//! Of several signatures in one file one that counts is enough, for the others could have been left out as well:
//! projects that change keys sign with the old and the new one.

use std::fs::File;
use std::time::{Duration, SystemTime};

use hull_converter_protocol::Window;
use sequoia_openpgp::cert::amalgamation::key::ValidErasedKeyAmalgamation;
use sequoia_openpgp::cert::amalgamation::{ValidAmalgamation, ValidateAmalgamation};
use sequoia_openpgp::packet::key::PublicParts;
use sequoia_openpgp::packet::{Signature, Tag};
use sequoia_openpgp::parse::stream::{
    DetachedVerifierBuilder, GoodChecksum, MessageLayer, MessageStructure, VerificationError,
    VerificationHelper, VerificationResult,
};
use sequoia_openpgp::parse::{PacketParser, Parse};
use sequoia_openpgp::policy::{HashAlgoSecurity, Policy, StandardPolicy};
use sequoia_openpgp::types::{RevocationStatus, SignatureType};
use sequoia_openpgp::{Cert, KeyHandle};

use super::SIGNATURE_MAX;
use super::keys::printable;
use super::keystore::{Keystore, Said};
use super::packets::{self, Content};
use super::scope::Scope;
use crate::{Error, Kind};

/// Most signatures in one file.
const SIGNATURES_MAX: usize = 16;

/// How far a signer's clock may be ahead of ours.
const AHEAD_MAX: Duration = Duration::from_secs(300);

/// A file whose signature was made by keys of the key store. That it may be used as the image of some name is
/// said by [`Signed::covers`] alone.
#[derive(Clone, Debug)]
pub struct Signed {
    what: String,
    signers: Vec<Signer>,
}

/// Who made a signature that counts.
#[derive(Clone, Debug)]
pub struct Signer {
    fingerprint: String,
    user_ids: Vec<String>,
    created: SystemTime,
    said: Vec<(Scope, Said)>,
}

impl Signer {
    /// Of the key as a whole, in lower case hex.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The user ids of the key, safe for a terminal.
    pub fn user_ids(&self) -> &[String] {
        &self.user_ids
    }

    /// When the signature says that it was made.
    pub fn created(&self) -> SystemTime {
        self.created
    }

    fn may_sign(&self, image: &str) -> bool {
        may_sign(&self.said, image)
    }

    fn described(&self) -> String {
        match self.user_ids.first() {
            Some(id) => format!("{} ({id})", self.fingerprint),
            None => self.fingerprint.clone(),
        }
    }
}

/// Whether a key of which this is said, the last thing counting most, may sign images of that name.
pub(super) fn may_sign(said: &[(Scope, Said)], image: &str) -> bool {
    let last = said.iter().rfind(|(scope, _)| scope.covers(image));
    last.is_some_and(|(_, said)| *said == Said::Trusted)
}

impl Signed {
    /// Whether one of the keys is trusted to sign the image of this name; of several, who signed last.
    ///
    /// # Errors
    /// [`Kind::Untrusted`] with what the keys are trusted for, and how to trust them for this.
    pub fn covers(&self, image: &str) -> Result<&Signer, Error> {
        let may_sign = self.signers.iter().filter(|signer| signer.may_sign(image));
        if let Some(signer) = may_sign.max_by_key(|signer| signer.created) {
            return Ok(signer);
        }
        let signer = self.signers.first().expect("a `Signed` has a signer");
        let masked = |scope: &Scope| {
            let masks = signer.said.iter().filter(|(_, said)| *said == Said::Masked);
            masks.into_iter().any(|(mask, _)| mask == scope)
        };
        let trusted = signer.said.iter().filter(|(_, said)| *said == Said::Trusted);
        let mut scopes: Vec<_> =
            trusted.filter(|(scope, _)| !masked(scope)).map(|(scope, _)| scope.to_string()).collect();
        scopes.dedup();
        let scopes = if scopes.is_empty() { "nothing, it is masked".to_owned() } else { scopes.join(", ") };
        let text = format!(
            "trust {} as image `{}`: it is signed by the key {}, which is trusted for {scopes} and not for that \
             name (if that key should sign it: `hull trust --prefix={} FILE-OF-THE-KEY`)",
            self.what,
            image.escape_debug(),
            signer.described(),
            image.escape_debug(),
        );
        Err(Error::new(Kind::Untrusted, text))
    }
}

pub(super) fn verify(
    keystore: &Keystore,
    signature: &[u8],
    file: &File,
    what: &str,
    now: SystemTime,
) -> Result<Signed, Error> {
    let refused = |cause: &str| {
        let text = format!("check the OpenPGP signature of {what}: {cause}");
        Error::new(Kind::Untrusted, text)
    };
    if signature.len() > SIGNATURE_MAX {
        return Err(refused(&format!("it has more than {SIGNATURE_MAX} bytes")));
    }
    let blocks = packets::of_file(signature, Content::Signature).map_err(|cause| refused(&cause))?;
    let [block] = <[Vec<u8>; 1]>::try_from(blocks).map_err(|_| refused("it is not one block"))?;
    let policy = StandardPolicy::at(now);
    let judge = Judge { keystore, policy: &policy, now, count: 0, signers: Vec::new(), reasons: Vec::new() };
    let judge = judged(judge, &block, file).map_err(|cause| refused(&cause))?;
    if judge.signers.is_empty() {
        return Err(refused(&judge.reasons.join("; ")));
    }
    Ok(Signed { what: what.to_owned(), signers: judge.signers })
}

fn judged<'a>(judge: Judge<'a>, block: &'a [u8], file: &File) -> Result<Judge<'a>, String> {
    let (policy, time) = (judge.policy, judge.now + AHEAD_MAX);
    let builder = DetachedVerifierBuilder::from_bytes(block).map_err(|e| format!("{e:#}"))?;
    let mut verifier = builder.with_policy(policy, time, judge).map_err(|e| format!("{e:#}"))?;
    verifier.verify_reader(Window::whole(file)).map_err(|e| format!("{e:#}"))?;
    Ok(verifier.into_helper())
}

/// Hears of every packet and every result, and keeps those that count.
struct Judge<'a> {
    keystore: &'a Keystore,
    policy: &'a StandardPolicy<'static>,
    now: SystemTime,
    count: usize,
    signers: Vec<Signer>,
    reasons: Vec<String>,
}

impl VerificationHelper for Judge<'_> {
    fn inspect(&mut self, parser: &PacketParser<'_>) -> sequoia_openpgp::Result<()> {
        self.count += 1;
        let refused = |text: String| Err(sequoia_openpgp::Error::InvalidOperation(text).into());
        match parser.packet.tag() {
            Tag::Signature if self.count <= SIGNATURES_MAX => Ok(()),
            Tag::Signature => refused(format!("it has more than {SIGNATURES_MAX} signatures")),
            tag => refused(format!("it has a packet that is no signature ({tag})")),
        }
    }

    fn get_certs(&mut self, ids: &[KeyHandle]) -> sequoia_openpgp::Result<Vec<Cert>> {
        Ok(self.keystore.certs(ids))
    }

    fn check(&mut self, structure: MessageStructure<'_>) -> sequoia_openpgp::Result<()> {
        for layer in structure {
            let MessageLayer::SignatureGroup { results } = layer else { continue };
            for result in results {
                match self.judged(result) {
                    Ok(signer) => self.signers.push(signer),
                    Err(reason) => self.reasons.push(reason),
                }
            }
        }
        Ok(())
    }
}

impl Judge<'_> {
    fn judged(&self, result: VerificationResult<'_>) -> Result<Signer, String> {
        let (sig, cert) = match result {
            Ok(GoodChecksum { sig, ka }) => {
                self.check_now(&ka)
                    .map_err(|cause| format!("the key {} {cause}", ka.cert().fingerprint()))?;
                (sig, ka.cert())
            }
            Err(VerificationError::UnboundKey { sig, cert, .. }) if self.holds_by_now(sig, cert) => {
                (sig, cert)
            }
            Err(error) => return Err(reason(&error)),
        };
        if sig.typ() != SignatureType::Binary {
            return Err(format!(
                "it was made over {}, not over the bytes of a file (sign with `gpg --detach-sign`)",
                sig.typ()
            ));
        }
        let fingerprint = cert.fingerprint().to_hex().to_ascii_lowercase();
        let user_ids = cert.userids().map(|id| printable(id.userid().value())).collect();
        let created = sig.signature_creation_time().ok_or("it does not say when it was made")?;
        let said = self.keystore.said(&fingerprint);
        Ok(Signer { fingerprint, user_ids, created, said })
    }

    /// Whether a signature that is older than everything the key says of itself holds all the same. When gpg
    /// extends a key, the new edition replaces the old one, and nothing is left from when the signature was made.
    fn holds_by_now(&self, sig: &Signature, cert: &Cert) -> bool {
        let Ok(valid) = cert.with_policy(self.policy, self.now) else { return false };
        let keys = valid.keys().key_handles(sig.get_issuers()).for_signing();
        let is_younger = |created: SystemTime| sig.signature_creation_time().is_some_and(|at| created <= at);
        let is_whole = || {
            sig.signature_alive(self.now + AHEAD_MAX, Duration::ZERO).is_ok()
                && self.policy.signature(sig, HashAlgoSecurity::default()).is_ok()
        };
        keys.into_iter().any(|key| {
            is_younger(key.key().creation_time())
                && self.check_now(&key.clone()).is_ok()
                && is_whole()
                && sig.verify_document(key.key()).is_ok()
        })
    }

    fn check_now(&self, key: &ValidErasedKeyAmalgamation<'_, PublicParts>) -> Result<(), String> {
        let key =
            key.clone().with_policy(self.policy, self.now).map_err(|e| format!("does not hold: {e:#}"))?;
        let revoked = [key.valid_cert().revocation_status(), key.revocation_status()];
        if revoked.iter().any(|status| matches!(status, RevocationStatus::Revoked(_))) {
            return Err("is revoked".into());
        }
        let expired =
            |e| format!("does not hold: {e:#} (get the key anew from its owner, and `hull trust` it)");
        key.valid_cert().alive().map_err(expired)?;
        key.alive().map_err(expired)
    }
}

/// Why a signature does not count.
fn reason(error: &VerificationError<'_>) -> String {
    let by = |sig: &Signature| match sig.get_issuers().first() {
        Some(issuer) => format!("the key {issuer}"),
        None => "a key that it does not name".into(),
    };
    match error {
        VerificationError::MissingKey { sig } => format!(
            "it was made by {}, and no such key is trusted (`hull trust --prefix=NAME FILE-OF-THE-KEY` would)",
            by(sig)
        ),
        VerificationError::UnboundKey { cert, error, .. } => {
            format!("the key {} did not hold when it was made: {error:#}", cert.fingerprint())
        }
        VerificationError::BadKey { ka, error, .. } => {
            format!("the key {} did not hold when it was made: {error:#}", ka.cert().fingerprint())
        }
        VerificationError::BadSignature { ka, error, .. } => {
            format!("that of the key {} does not hold: {error:#}", ka.cert().fingerprint())
        }
        error => error.to_string(),
    }
}

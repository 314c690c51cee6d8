//! Public keys as somebody hands them over, before they are trusted.

use std::fmt::Write as _;
use std::time::SystemTime;

use sequoia_openpgp::Cert;
use sequoia_openpgp::cert::CertParser;
use sequoia_openpgp::parse::Parse;
use sequoia_openpgp::policy::StandardPolicy;
use sequoia_openpgp::serialize::SerializeInto;
use sequoia_openpgp::types::RevocationStatus;

use super::packets::{self, Content};
use super::{KEY_FILE_MAX, KEYS_MAX};
use crate::trust::text;
use crate::{Error, Kind};

/// Longest user id that is shown, in characters.
const USER_ID_SHOWN_MAX: usize = 200;

/// Most user ids and subkeys of one key that are shown.
const LINES_MAX: usize = 64;

/// A public key with its user ids and subkeys (a certificate). Whether it is trusted is another matter.
#[derive(Clone, Debug)]
pub struct PublicKey(Cert);

impl PublicKey {
    /// All keys of a file, armoured or not; `what` names it in errors.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] for what is no file of public keys, [`Kind::Untrusted`] if a private key is among them.
    pub fn read(bytes: &[u8], what: &str) -> Result<Vec<Self>, Error> {
        let doing = || format!("read public keys from {what}");
        if bytes.len() as u64 > KEY_FILE_MAX {
            let text = format!("{}: it has more than {KEY_FILE_MAX} bytes", doing());
            return Err(Error::new(Kind::TooLarge, text));
        }
        let corrupt = |cause: String| Error::new(Kind::Corrupt, format!("{}: {cause}", doing()));
        let mut keys = Vec::new();
        for block in packets::of_file(bytes, Content::PublicKeys).map_err(corrupt)? {
            for cert in CertParser::from_bytes(&block).map_err(|e| corrupt(format!("{e:#}")))? {
                let cert = cert.map_err(|e| corrupt(format!("{e:#}")))?;
                if cert.is_tsk() {
                    let export = format!("gpg --armor --export {}", cert.fingerprint());
                    let text =
                        format!("{}: it holds a private key, keep that secret and give `{export}`", doing());
                    return Err(Error::new(Kind::Untrusted, text));
                }
                if keys.len() == KEYS_MAX {
                    return Err(corrupt(format!("it has more than {KEYS_MAX} keys")));
                }
                keys.push(Self(cert));
            }
        }
        if keys.is_empty() {
            return Err(corrupt("there is no key in it".into()));
        }
        Ok(keys)
    }

    /// Lower case hex, as its file in the key store is called.
    pub fn fingerprint(&self) -> String {
        self.0.fingerprint().to_hex().to_ascii_lowercase()
    }

    /// The user ids, safe for a terminal.
    pub fn user_ids(&self) -> Vec<String> {
        let ids = self.0.userids().take(LINES_MAX);
        ids.map(|id| printable(id.userid().value())).collect()
    }

    /// What a person compares before trusting the key, as rkt shows it, and what speaks against it at `now`.
    pub fn review(&self, now: SystemTime) -> String {
        let mut text = format!("gpg key fingerprint is: {}\n", self.0.fingerprint().to_spaced_hex());
        for subkey in self.0.keys().subkeys().take(LINES_MAX) {
            let fingerprint = subkey.key().fingerprint().to_spaced_hex();
            let _ = writeln!(text, "    Subkey fingerprint: {fingerprint}"); // A string takes everything.
        }
        for id in self.user_ids() {
            let _ = writeln!(text, "\t{id}"); // Likewise.
        }
        if let Err(cause) = self.check(now) {
            let _ = writeln!(text, "    This key signs nothing that is accepted: {cause}"); // Likewise.
        }
        text
    }

    pub(super) fn into_cert(self) -> Cert {
        self.0
    }

    /// As it is stored: armoured, so that other tools and people can look at it.
    pub(super) fn armoured(&self) -> Result<Vec<u8>, String> {
        self.0.armored().to_vec().map_err(|e| format!("{e:#}"))
    }

    fn check(&self, now: SystemTime) -> Result<(), String> {
        let policy = StandardPolicy::at(now);
        let valid = self.0.with_policy(&policy, now).map_err(|e| format!("{e:#}"))?;
        valid.alive().map_err(|e| format!("{e:#}"))?;
        if matches!(valid.revocation_status(), RevocationStatus::Revoked(_)) {
            return Err("it is revoked".into());
        }
        let mut signing = valid.keys().alive().revoked(false).for_signing();
        signing.next().map(drop).ok_or_else(|| "it may not sign".into())
    }
}

/// A user id as text; whoever made the key chose it.
pub(super) fn printable(user_id: &[u8]) -> String {
    text::printable(&String::from_utf8_lossy(user_id), USER_ID_SHOWN_MAX)
}

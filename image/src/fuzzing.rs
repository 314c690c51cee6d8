//! Ways in for the fuzzer: each gives bytes from outside to one parser and forgets the answer.
//! Nothing else may use this module.

use crate::{Reference, trust};

/// Text of a command line.
pub fn reference(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Reference::parse(text); // Refusing is right; panicking is not.
    }
}

/// A policy file.
pub fn policy(bytes: &[u8]) {
    trust::fuzz::policy(bytes);
}

/// A public key of cosign.
pub fn cosign_key(bytes: &[u8]) {
    trust::fuzz::cosign_key(bytes);
}

/// What a signature of cosign is over.
pub fn payload(bytes: &[u8]) {
    trust::fuzz::payload(bytes);
}

/// A Sigstore bundle.
pub fn bundle(bytes: &[u8]) {
    trust::fuzz::bundle(bytes);
}

/// A file of OpenPGP keys.
pub fn openpgp_key(bytes: &[u8]) {
    trust::fuzz::openpgp_key(bytes);
}

/// A detached OpenPGP signature.
pub fn openpgp_signature(bytes: &[u8]) {
    trust::fuzz::openpgp_signature(bytes);
}

/// The file system of an image.
pub fn file_system(bytes: &[u8]) {
    let _ = crate::extract::read_all(bytes); // Refusing is right; panicking is not.
}

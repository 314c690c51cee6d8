//! Ways in for the fuzzer: each gives bytes from outside to one parser and forgets the answer.
//! Nothing else may use this module.

use crate::{Reference, aci, appc, settings, trust};

/// Text of a command line.
pub fn reference(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Reference::parse(text); // Refusing is right; panicking is not.
    }
}

/// A name of an App Container Image, and a `cimd:` URI.
pub fn aci_name(bytes: &[u8]) {
    appc::fuzz::name(bytes);
}

/// A page that discovery came to.
pub fn discovery(bytes: &[u8]) {
    appc::fuzz::page(bytes);
}

/// A manifest of an App Container Image.
pub fn aci_manifest(bytes: &[u8]) {
    aci::fuzz(bytes);
}

/// A settings file.
pub fn settings(bytes: &[u8]) {
    settings::fuzz(bytes);
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

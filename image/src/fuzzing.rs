//! Ways in for the fuzzer: each gives bytes from outside to one parser and forgets the answer.
//! Nothing else may use this module.

use reqwest::header::{HeaderName, HeaderValue};

use crate::{Reference, aci, appc, docker, document, names, record, registry, settings, transport, trust};

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

/// `registries.conf`.
pub fn registries(bytes: &[u8]) {
    settings::fuzzing::registries(bytes);
}

/// A file of credentials, and the answer of a credential program.
pub fn credentials(bytes: &[u8]) {
    settings::fuzzing::credentials(bytes);
}

/// A certificate of `certs.d`, with and without a key.
pub fn certificates(bytes: &[u8]) {
    settings::fuzzing::certificates(bytes);
}

/// `WWW-Authenticate` and `Link`.
pub fn registry_headers(bytes: &[u8]) {
    registry::fuzz::headers(bytes);
}

/// The answer of a token server.
pub fn registry_token(bytes: &[u8]) {
    registry::fuzz::token(bytes);
}

/// Headers of downloads: lines of `NAME: VALUE`.
pub fn download_headers(bytes: &[u8]) {
    let lines = bytes.split(|b| *b == b'\n').filter_map(|line| {
        let colon = line.iter().position(|b| *b == b':')?;
        let value = line[colon + 1..].trim_ascii();
        Some((HeaderName::from_bytes(&line[..colon]).ok()?, HeaderValue::from_bytes(value).ok()?))
    });
    let headers = lines.take(64).collect();
    transport::fuzz(&headers);
    appc::fuzz::state(&headers);
}

/// An index or a manifest of OCI or Docker, referrers among them.
pub fn document(bytes: &[u8]) {
    document::fuzz(bytes);
}

/// A configuration of OCI or Docker, and the list in an archive of `docker save`.
pub fn configuration(bytes: &[u8]) {
    docker::fuzz(bytes);
}

/// Whatever the store remembers in JSON.
pub fn record(bytes: &[u8]) {
    record::fuzz(bytes);
    names::fuzz(bytes);
    appc::fuzz::remote(bytes);
}

/// What the process that reads archives answers. `file` stands for any archive.
pub fn converter_answer(bytes: &[u8], file: &std::fs::File) {
    crate::member::fuzz(bytes, file);
}

/// A file system that hull made: everything in it is read, and `content` gets each file's.
pub fn sound_file_system(bytes: &[u8], content: impl FnMut(&[u8])) {
    crate::extract::read_sound(bytes, content).expect("hull reads what hull made");
}

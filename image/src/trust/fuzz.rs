//! Ways into this folder for the fuzzer.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Policy;
use super::cosign::{Bundle, Claim, Key};
use super::openpgp::{Keystore, PublicKey};
use crate::digest::{Algorithm, Digest};

/// Who made the seeds of `openpgp_signature`, all of them over nothing, a month before [`now`].
const SIGNER: &str = "\
-----BEGIN PGP PUBLIC KEY BLOCK-----\n\
\n\
mDMEaVcKgBYJKwYBBAHaRw8BAQdA1NGQ9dpkzhdnOLFzf97y6uRIVBaS07/5l80H\n\
N5SIcka0BFNlZWSIkAQTFggAOBYhBM9bCF9kf75KDen88+c1YRinSNOWBQJpVwqA\n\
AhsDBQsJCAcCBhUKCQgLAgQWAgMBAh4BAheAAAoJEOc1YRinSNOWnJMA/jY6HrT1\n\
fsNuiPtDg+DVhpPt+8JPwf8FmTsrlri2gNJJAQC9v9ol2WX/wZJ38OG8MPIsxMsR\n\
Ng0Z3QxV+DVwMEZ0Dw==\n\
=e3q+\n\
-----END PGP PUBLIC KEY BLOCK-----\n\
";

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_772_668_800)
}

pub(crate) fn policy(bytes: &[u8]) {
    let _ = Policy::parse(Path::new("/policy.json"), bytes); // Refusing is right; panicking is not.
}

pub(crate) fn cosign_key(bytes: &[u8]) {
    let made = Key::parse(bytes).is_ok_and(|key| key.made(b"signature", b"message"));
    assert!(!made, "nobody signed it");
}

pub(crate) fn payload(bytes: &[u8]) {
    let _ = Claim::of_simple_signing(bytes); // Refusing is right; panicking is not.
    let _ = Claim::of_statement(bytes); // Likewise.
}

pub(crate) fn bundle(bytes: &[u8]) {
    let subject = Digest::of(Algorithm::Sha256, b"");
    let claim = Bundle::parse(bytes).and_then(|bundle| bundle.claim(&[], &subject, || Ok(Vec::new())));
    assert!(claim.is_err(), "nobody signed it");
}

pub(crate) fn openpgp_key(bytes: &[u8]) {
    let Ok(keys) = PublicKey::read(bytes, "the keys") else { return };
    for key in keys {
        let review = key.review(now());
        let stays = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
        assert!(review.chars().all(stays), "nothing moves the cursor");
    }
}

pub(crate) fn openpgp_signature(bytes: &[u8]) {
    let keys = PublicKey::read(SIGNER.as_bytes(), "the signer").expect("it is a key");
    let keystore = Keystore::of_root_keys(keys);
    let nothing = File::open("/dev/null").expect("there is always nothing");
    if let Ok(signed) = keystore.verify(bytes, &nothing, "nothing", now()) {
        signed.covers("example.com/app").expect("the key is trusted for everything");
    }
}

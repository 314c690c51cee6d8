//! Public keys of cosign: PEM with a SubjectPublicKeyInfo (RFC 5280 section 4.1).

use ed25519_dalek::{Digest as _, Sha512, Signature, VerifyingKey};
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, RSA_PKCS1_2048_8192_SHA256,
    UnparsedPublicKey, VerificationAlgorithm,
};
use spki::der::{Decode, pem};
use spki::{ObjectIdentifier, SubjectPublicKeyInfoRef};

/// Longest file of a key: an RSA one of 8192 bits has 1.4 KiB.
pub(crate) const KEY_FILE_MAX: usize = 16 << 10;

/// Shortest RSA key, in bytes: ring takes no shorter one, and neither does cosign.
const RSA_MIN: usize = 2048 / 8;

// RFC 5480 section 2.1.1, RFC 8017 appendix A.1, RFC 8410 section 3.
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EDWARDS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// A public key.
#[derive(Clone)]
pub(crate) enum Key {
    /// With the algorithms that cosign uses for its kind.
    Ring {
        algorithms: Vec<&'static dyn VerificationAlgorithm>,
        bytes: Vec<u8>,
    },
    Edwards(VerifyingKey),
}

impl Key {
    /// Reads the file that `cosign generate-key-pair` calls `cosign.pub`.
    pub(crate) fn parse(pem: &[u8]) -> Result<Self, String> {
        if pem.len() > KEY_FILE_MAX {
            return Err(format!("it has more than {KEY_FILE_MAX} bytes"));
        }
        let (label, der) = pem::decode_vec(pem.trim_ascii())
            .map_err(|e| format!("it is no PEM file ({e}), as `cosign public-key` writes it"))?;
        if label != "PUBLIC KEY" {
            return Err(format!("it holds `{}`, not `PUBLIC KEY`", label.escape_debug()));
        }
        let info =
            SubjectPublicKeyInfoRef::from_der(&der).map_err(|e| format!("it holds no public key ({e})"))?;
        let bytes = info.subject_public_key.as_bytes().ok_or("its key has an odd number of bits")?;
        let algorithms: Vec<&'static dyn VerificationAlgorithm> = match info.algorithm.oid {
            EC => match info.algorithm.parameters_oid() {
                Ok(P256) => vec![&ECDSA_P256_SHA256_ASN1],
                // cosign hashes with SHA-384 in bundles, with SHA-256 elsewhere.
                Ok(P384) => vec![&ECDSA_P384_SHA384_ASN1, &ECDSA_P384_SHA256_ASN1],
                _ => return Err("its curve is not supported, only P-256 and P-384 are".into()),
            },
            RSA if bytes.len() < RSA_MIN => return Err("it is an RSA key of fewer than 2048 bits".into()),
            RSA => vec![&RSA_PKCS1_2048_8192_SHA256],
            EDWARDS => {
                let key =
                    VerifyingKey::try_from(bytes).map_err(|e| format!("it holds no Ed25519 key ({e})"))?;
                return Ok(Key::Edwards(key));
            }
            other => return Err(format!("its kind ({other}) is not supported: ECDSA, RSA and Ed25519 are")),
        };
        Ok(Key::Ring { algorithms, bytes: bytes.to_vec() })
    }

    /// Whether this key made `signature` over `message`.
    pub(crate) fn made(&self, signature: &[u8], message: &[u8]) -> bool {
        match self {
            Key::Ring { algorithms, bytes } => algorithms.iter().any(|algorithm| {
                UnparsedPublicKey::new(*algorithm, bytes).verify(message, signature).is_ok()
            }),
            Key::Edwards(key) => Signature::from_slice(signature).is_ok_and(|signature| {
                // cosign signs the message in bundles, and its hash (Ed25519ph, RFC 8032 section 5.1) elsewhere.
                let hashed = || Sha512::new_with_prefix(message);
                key.verify_strict(message, &signature).is_ok()
                    || key.verify_prehashed_strict(hashed(), None, &signature).is_ok()
            }),
        }
    }
}

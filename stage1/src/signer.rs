//! Signs in the name of the pod, for its metadata service: HMAC-SHA512 over the pod's id and the content, as rkt's.
//! The key is the host's, so that one pod's signature can be verified in another.

use std::fs;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use hull_errors::Doing;
use hull_pod::PodId;
use sha2::Sha512;

use crate::{Error, Kind, Pod};

/// A key, and whose name it signs in.
pub(crate) struct Signer {
    key: Vec<u8>,
    pod: PodId,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").field("pod", &self.pod).finish_non_exhaustive()
    }
}

impl Signer {
    /// Reads the host's key, if the pod has a metadata service.
    pub(crate) fn of(pod: &Pod) -> Result<Option<Self>, Error> {
        let Some(metadata) = &pod.contract.metadata else { return Ok(None) };
        let doing = || format!("read the key of the metadata service {}", metadata.key.display());
        let key = fs::read(&metadata.key).doing(Kind::Host, doing)?;
        Ok(Some(Self { key, pod: pod.contract.pod.clone() }))
    }

    pub(crate) fn sign(&self, content: &[u8]) -> String {
        STANDARD.encode(self.mac(&self.pod, content).finalize().into_bytes())
    }

    /// Whether the pod of this id has signed the content.
    pub(crate) fn verify(&self, pod: &str, content: &[u8], signature: &str) -> bool {
        let (Ok(pod), Ok(signature)) = (pod.to_ascii_lowercase().parse(), STANDARD.decode(signature)) else {
            return false;
        };
        self.mac(&pod, content).verify_slice(&signature).is_ok()
    }

    fn mac(&self, pod: &PodId, content: &[u8]) -> Hmac<Sha512> {
        let mut mac = Hmac::new_from_slice(&self.key).expect("a key of any length is one");
        mac.update(&pod.bytes());
        mac.update(content);
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_the_pods_and_the_contents() {
        let signer = |key: &[u8]| Signer { key: key.into(), pod: PodId::random().unwrap() };
        let (one, other) = (signer(b"host"), signer(b"host"));
        let signature = one.sign(b"content");
        let pod = one.pod.to_string();
        assert!(other.verify(&pod, b"content", &signature), "any pod of the host can tell");
        assert!(!other.verify(&pod, b"another", &signature));
        assert!(!other.verify(other.pod.as_str(), b"content", &signature));
        assert!(!other.verify("../../etc", b"content", &signature));
        assert!(!other.verify(&pod, b"content", "no base64"));
        assert!(!signer(b"another host").verify(&pod, b"content", &signature));
        assert!(!format!("{one:?}").contains("host"));
    }
}

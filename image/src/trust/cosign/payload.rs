//! What a signature says: cosign's simple signing payload, and the statement in a bundle.
//!
//! Both are read only after their signature was found good.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::digest::Digest;

/// Which image a signature is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) digest: Digest,
    /// The name of the image; bundles have none.
    pub(crate) name: Option<String>,
}

/// containers-signature(5), "JSON Data Format"; what is critical must be understood, all of it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Simple {
    critical: Critical,
    #[serde(rename = "optional")]
    _optional: Option<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Critical {
    #[serde(rename = "type")]
    kind: String,
    image: Image,
    identity: Identity,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: Digest,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    #[serde(rename = "docker-reference")]
    name: String,
}

/// in-toto Attestation Framework v1, "Statement".
#[derive(Deserialize)]
struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Subject>,
    #[serde(rename = "predicateType")]
    predicate: String,
}

#[derive(Deserialize)]
struct Subject {
    name: Option<String>,
    digest: BTreeMap<String, String>,
}

const SIMPLE: &str = "cosign container image signature";
const STATEMENT: &str = "https://in-toto.io/Statement/v1";
/// A signature of the image itself. Anything else, a list of parts or a report, says nothing on whether to run it.
const PREDICATE: &str = "https://sigstore.dev/cosign/sign/v1";

impl Claim {
    pub(crate) fn of_simple_signing(payload: &[u8]) -> Result<Self, String> {
        let Simple { critical, .. } =
            serde_json::from_slice(payload).map_err(|e| format!("its payload is malformed: {e}"))?;
        if critical.kind != SIMPLE {
            return Err(format!("it is a `{}`, not a `{SIMPLE}`", critical.kind.escape_debug()));
        }
        Ok(Self { digest: critical.image.digest, name: Some(critical.identity.name) })
    }

    pub(crate) fn of_statement(payload: &[u8]) -> Result<Self, String> {
        let Statement { kind, subject, predicate } =
            serde_json::from_slice(payload).map_err(|e| format!("its statement is malformed: {e}"))?;
        if kind != STATEMENT {
            return Err(format!("it is a `{}`, not a `{STATEMENT}`", kind.escape_debug()));
        }
        if predicate != PREDICATE {
            let shown = predicate.escape_debug();
            return Err(format!("it attests `{shown}`, it does not sign the image (`{PREDICATE}`)"));
        }
        let [Subject { name, digest }] = <[Subject; 1]>::try_from(subject)
            .map_err(|subjects| format!("it is about {} things, not about one", subjects.len()))?;
        let mut digests = digest.iter().map(|(algorithm, hex)| format!("{algorithm}:{hex}").parse());
        match (digests.next(), digests.next()) {
            (Some(digest), None) => Ok(Self { digest: digest?, name: name.filter(|name| !name.is_empty()) }),
            _ => Err("its subject has not one digest".into()),
        }
    }
}

//! Against the real cosign and a real registry, and against registries that lie.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::{any, proptest};
use proptest::sample::Index;
use proptest::test_runner::Config;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Key, SIGNATURES_MAX};
use crate::digest::Digest;
use crate::registry::Name;
use crate::trust::testing::{Cosign, Forged, MANIFEST, Registry, sha256};
use crate::trust::{Admitted, Artifacts, Policy, Rollback, Wanted, fuzz};
use crate::{Error, Kind};

/// A policy that asks for a signature by that key, under that rule for names.
fn policy(key: &Path, identity: &str) -> Policy {
    let requirement = json!({"type": "sigstoreSigned", "keyPath": key, "signedIdentity": {"type": identity}});
    let text = json!({"default": [{"type": "reject"}], "transports": {"docker": {"": [requirement]}}});
    Policy::parse(Path::new("/etc/hull/policy.json"), &serde_json::to_vec(&text).unwrap()).unwrap()
}

fn judge(policy: &Policy, name: &str, digest: &Digest, artifacts: &dyn Artifacts) -> Result<Admitted, Error> {
    judge_index(policy, name, digest, digest, artifacts)
}

fn judge_index(
    policy: &Policy,
    name: &str,
    named: &Digest,
    platform: &Digest,
    artifacts: &dyn Artifacts,
) -> Result<Admitted, Error> {
    let folder = TempDir::new().unwrap();
    std::fs::create_dir(folder.path().join("tmp")).unwrap();
    let name = Name::parse(name).unwrap();
    policy.judge(&Wanted { name: &name, named, platform }, artifacts, &Rollback::new(folder.path()))
}

#[track_caller]
fn refused(result: Result<Admitted, Error>, why: &str) {
    let error = result.unwrap_err();
    let text = hull_errors::chain(&error);
    assert!(text.contains(why), "{text}");
    assert!(text.starts_with("trust image `"), "{text}");
    assert_eq!(*error.kind(), Kind::Untrusted);
}

#[test]
fn every_kind_of_key_and_both_forms_are_accepted() {
    let (registry, cosign) = (Registry::start(), Cosign::new());
    cosign.generate("other");
    cosign.generate("cosign");
    cosign.import("p384", &["EC", "-pkeyopt", "ec_paramgen_curve:P-384"]);
    cosign.import("rsa2048", &["RSA", "-pkeyopt", "rsa_keygen_bits:2048"]);
    cosign.import("rsa4096", &["RSA", "-pkeyopt", "rsa_keygen_bits:4096"]);
    cosign.import("ed25519", &["ED25519"]);
    for key in ["cosign", "p384", "rsa2048", "rsa4096", "ed25519"] {
        let public = cosign.public_key(key);
        for (form, identity) in [("tag", "matchRepository"), ("bundle", "digestOnly")] {
            let repository = format!("{form}/{key}");
            let digest = registry.push(&repository, "v1", &repository);
            let artifacts = registry.artifacts(&repository);
            let name = format!("{}:v1", registry.name(&repository));
            let unsigned = judge(&policy(&public, identity), &name, &digest, &artifacts);
            refused(unsigned, &format!("the registry has none of {digest}"));
            match form {
                "tag" => cosign.sign_tag(key, &name, &[]),
                _ => cosign.sign_bundle(key, &name, &[]),
            }
            let admitted = judge(&policy(&public, identity), &name, &digest, &artifacts).unwrap();
            assert_eq!(admitted.to_string(), format!("image {name}: signature verified"));
            let other = judge(&policy(&cosign.public_key("other"), identity), &name, &digest, &artifacts);
            refused(other, "it was not made by the key of the policy");
            // Beside a signature by somebody else it counts all the same.
            cosign.sign_tag("other", &name, &[]);
            cosign.sign_bundle("other", &name, &[]);
            judge(&policy(&public, identity), &name, &digest, &artifacts).unwrap();
        }
    }
    cosign.import("p521", &["EC", "-pkeyopt", "ec_paramgen_curve:P-521"]);
    let text = Key::parse(&cosign.read("p521.pub")).map(drop).unwrap_err();
    assert!(text.contains("only P-256 and P-384"), "{text}");
}

#[test]
fn names_in_signatures_count() {
    let (registry, cosign) = (Registry::start(), Cosign::new());
    cosign.generate("key");
    let key = cosign.public_key("key");
    let digest = registry.push("app", "v1", "x");
    let (artifacts, repository) = (registry.artifacts("app"), registry.name("app"));
    let (name, pinned) = (format!("{repository}:v1"), format!("{repository}@{digest}"));
    cosign.sign_tag("key", &name, &[]);
    judge(&policy(&key, "matchRepository"), &name, &digest, &artifacts).unwrap();
    judge(&policy(&key, "matchRepoDigestOrExact"), &pinned, &digest, &artifacts).unwrap();
    let by_tag = judge(&policy(&key, "matchRepoDigestOrExact"), &name, &digest, &artifacts);
    refused(by_tag, r#"`"signedIdentity": {"type": "matchRepository"}` takes what is signed for any tag"#);
    // The same image in another repository is not what was signed, though it is the same image.
    assert_eq!(registry.push("other", "v1", "x"), digest);
    let other = format!("{}:v1", registry.name("other"));
    for rule in ["matchRepository", "matchRepoDigestOrExact", "matchExact"] {
        let refusal = judge(&policy(&key, rule), &other, &digest, &artifacts);
        refused(refusal, &format!("it is for `{repository}`, not for `{other}`"));
    }
    // A bundle names nothing.
    cosign.sign_bundle("key", &other, &[]);
    let nameless = judge(&policy(&key, "matchRepository"), &other, &digest, &registry.artifacts("other"));
    refused(nameless, r#"`"signedIdentity": {"type": "digestOnly"}`"#);
    // A signature that names a tag.
    let exact = format!("{repository}:v2");
    registry.push("app", "v2", "y");
    cosign.sign_tag("key", &exact, &["--sign-container-identity", &exact]);
    let digest = registry.push("app", "v2", "y");
    judge(&policy(&key, "matchRepoDigestOrExact"), &exact, &digest, &artifacts).unwrap();
    let latest = judge(&policy(&key, "matchExact"), &repository, &digest, &artifacts);
    refused(latest, &format!("it is for `{exact}`, not for `{repository}:latest`"));
}

#[test]
fn an_index_or_the_manifest_for_this_host_may_be_signed() {
    let (registry, cosign) = (Registry::start(), Cosign::new());
    cosign.generate("key");
    let policy = policy(&cosign.public_key("key"), "matchRepository");
    for (repository, options) in [("index", &[][..]), ("all", &["--recursive"])] {
        let (index, platform) = registry.push_index(repository, "v1", repository);
        let (name, artifacts) = (format!("{}:v1", registry.name(repository)), registry.artifacts(repository));
        refused(judge_index(&policy, &name, &index, &platform, &artifacts), "the registry has none of");
        cosign.sign_tag("key", &name, options);
        judge_index(&policy, &name, &index, &platform, &artifacts).unwrap();
    }
    let (index, platform) = registry.push_index("platform", "v1", "platform");
    let repository = registry.name("platform");
    cosign.sign_tag("key", &format!("{repository}@{platform}"), &[]);
    let (name, artifacts) = (format!("{repository}:v1"), registry.artifacts("platform"));
    judge_index(&policy, &name, &index, &platform, &artifacts).unwrap();
    refused(judge(&policy, &name, &index, &artifacts), "the registry has none of");
}

#[test]
fn an_attestation_is_no_signature() {
    let (registry, cosign) = (Registry::start(), Cosign::new());
    cosign.generate("key");
    let digest = registry.push("app", "v1", "x");
    let name = format!("{}:v1", registry.name("app"));
    cosign.attest("key", &name);
    let policy = policy(&cosign.public_key("key"), "digestOnly");
    refused(
        judge(&policy, &name, &digest, &registry.artifacts("app")),
        "it is a `https://in-toto.io/Statement/v0.1`",
    );
}

#[test]
fn a_tag_that_goes_back_is_refused() {
    let (registry, cosign) = (Registry::start(), Cosign::new());
    cosign.generate("key");
    let policy = policy(&cosign.public_key("key"), "matchRepository");
    let folder = TempDir::new().unwrap();
    std::fs::create_dir(folder.path().join("tmp")).unwrap();
    let (name, artifacts) = (format!("{}:v1", registry.name("app")), registry.artifacts("app"));
    let pull = |digest: &Digest, name: &str| {
        let name = Name::parse(name).unwrap();
        let wanted = Wanted { name: &name, named: digest, platform: digest };
        policy.judge(&wanted, &artifacts, &Rollback::new(folder.path()))
    };
    let [old, new] = ["old", "new"].map(|label| {
        let digest = registry.push("app", "v1", label);
        cosign.sign_tag("key", &name, &[]);
        pull(&digest, &name).unwrap();
        digest
    });
    refused(
        pull(&old, &name),
        &format!("it was rolled back, the tag leads to {old}, which {new} had superseded"),
    );
    pull(&old, &format!("{}@{old}", registry.name("app"))).unwrap();
    pull(&new, &name).unwrap();
}

/// Real signatures, in a registry that gives them out as it likes.
struct Signed {
    digest: Digest,
    payload: Vec<u8>,
    signature: String,
    bundle: Value,
    key: Vec<u8>,
    cosign: Cosign,
}

impl Signed {
    fn new() -> Self {
        let (registry, cosign) = (Registry::start(), Cosign::new());
        cosign.generate("key");
        let digest = registry.push("app", "v1", "x");
        let name = registry.name("app");
        let options = ["--sign-container-identity", "h.io/app"];
        cosign.sign_tag("key", &format!("{name}:v1"), &options);
        cosign.sign_bundle("key", &format!("{name}:v1"), &[]);
        let artifacts = registry.artifacts("app");
        let layer = |manifest: Vec<u8>| {
            let manifest: Value = serde_json::from_slice(&manifest).unwrap();
            let layer = manifest["layers"][0].clone();
            let digest = layer["digest"].as_str().unwrap().parse().unwrap();
            (artifacts.blob(&digest, layer["size"].as_u64().unwrap()).unwrap(), layer)
        };
        let (payload, simple) =
            layer(artifacts.manifest(&format!("sha256-{}.sig", digest.hex())).unwrap().unwrap());
        let signature =
            simple["annotations"]["dev.cosignproject.cosign/signature"].as_str().unwrap().to_owned();
        let referrers = artifacts.referrers(&digest).unwrap();
        let (bundle, _) = layer(artifacts.manifest(&referrers[0].0.to_string()).unwrap().unwrap());
        let key = cosign.read("key.pub");
        Self { digest, payload, signature, bundle: serde_json::from_slice(&bundle).unwrap(), key, cosign }
    }

    fn judge(&self, identity: &str, digest: &Digest, artifacts: &Forged) -> Result<Admitted, Error> {
        let policy = policy(&self.cosign.public_key("key"), identity);
        judge(&policy, "h.io/app:v1", digest, artifacts)
    }

    #[track_caller]
    fn refuses(&self, artifacts: &Forged, why: &str) {
        refused(self.judge("matchRepository", &self.digest, artifacts), why);
        refused(self.judge("digestOnly", &self.digest, artifacts), why);
    }
}

#[test]
fn lies_of_a_registry_in_tags_are_refused() {
    let signed = Signed::new();
    let Signed { digest, payload, signature, .. } = &signed;
    let mut good = Forged::default();
    let layer = good.simple(payload, signature);
    good.tag(digest, std::slice::from_ref(&layer));
    signed.judge("matchRepository", digest, &good).unwrap();
    // For another image, whose signature this is said to be.
    let other = sha256(b"other");
    good.tag(&other, std::slice::from_ref(&layer));
    refused(signed.judge("matchRepository", &other, &good), &format!("it is for another image, {digest}"));

    let check = |layer: &dyn Fn(&mut Forged) -> Value, why: &str| {
        let mut forged = Forged::default();
        let layer = layer(&mut forged);
        forged.tag(digest, &[layer]);
        signed.refuses(&forged, why);
    };
    let text = String::from_utf8(payload.clone()).unwrap();
    let edited = text.replace("h.io/app", "h.io/bpp");
    assert_ne!(edited, text);
    check(
        &|forged| forged.simple(edited.as_bytes(), signature),
        "not made by the key of the policy, or not over",
    );
    check(&|forged| forged.simple(payload, "!"), "malformed");
    check(&|forged| forged.simple(payload, ""), "not made by the key");
    check(
        &|forged| forged.put("application/vnd.oci.image.layer.v1.tar", payload),
        "it is a `application/vnd.oci",
    );
    check(
        &|forged| forged.put("application/vnd.dev.cosign.simplesigning.v1+json", payload),
        "it has no signature",
    );
    check(&|forged| forged.simple(&[b' '; 65537], signature), "at most 65536 are read");
    let missing = json!({
        "mediaType": layer["mediaType"], "size": 9, "digest": other, "annotations": layer["annotations"],
    });
    check(&|_| missing.clone(), "get blob sha256:");
    let mut forged = Forged::default();
    forged.tags.insert(format!("sha256-{}.sig", digest.hex()), b"{".to_vec());
    signed.refuses(&forged, "is malformed");
    // The right one after more of others than anybody looks at.
    let mut forged = Forged::default();
    let mut layers = vec![forged.simple(payload, "AAAA"); SIGNATURES_MAX];
    layers.push(layer);
    good.tag(digest, &layers);
    refused(signed.judge("matchRepository", digest, &good), "has 65 signatures, the first 64 count");
    assert!(good.asked.get() < 80, "{}", good.asked.get());
    layers.remove(0);
    good.tag(digest, &layers);
    signed.judge("matchRepository", digest, &good).unwrap();
}

#[test]
fn lies_of_a_registry_in_bundles_are_refused() {
    let signed = Signed::new();
    let Signed { digest, bundle, .. } = &signed;
    let bytes = |bundle: &Value| serde_json::to_vec(bundle).unwrap();
    let mut good = Forged::default();
    good.refer(digest, &bytes(bundle));
    signed.judge("digestOnly", digest, &good).unwrap();
    let other = sha256(b"other");
    let mut forged = Forged::default();
    forged.refer(&other, &bytes(bundle));
    refused(signed.judge("digestOnly", &other, &forged), &format!("it is for another image, {digest}"));
    // Listed for this image, and by its own word about another.
    refused(signed.judge("digestOnly", digest, &forged), "about something else");

    let check = |pointer: &str, value: Value, why: &str| {
        let mut edited = bundle.clone();
        *edited.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer}")) = value;
        let mut forged = Forged::default();
        forged.refer(digest, &bytes(&edited));
        signed.refuses(&forged, why);
    };
    let statement = |edit: &dyn Fn(&str) -> String| {
        let payload = STANDARD.decode(bundle["dsseEnvelope"]["payload"].as_str().unwrap()).unwrap();
        json!(STANDARD.encode(edit(&String::from_utf8(payload).unwrap())))
    };
    let not_made = "not made by the key of the policy";
    check("/dsseEnvelope/payload", statement(&|text| text.replace(digest.hex(), other.hex())), not_made);
    check("/dsseEnvelope/payload", statement(&|text| format!("{text} ")), not_made);
    check("/dsseEnvelope/payload", json!("?"), "malformed");
    check("/dsseEnvelope/payloadType", json!("application/json"), "its envelope holds `application/json`");
    check("/dsseEnvelope/signatures", json!([]), "its envelope has 0 signatures");
    check("/dsseEnvelope/signatures/0/sig", json!("AAAA"), not_made);
    check("/dsseEnvelope", Value::Null, "its bundle has not one signature");
    check(
        "/mediaType",
        json!("application/vnd.dev.sigstore.bundle.v0.9+json"),
        "only version 0.3 is supported",
    );
    check("/verificationMaterial", json!({"certificate": {"rawBytes": ""}}), "without a key");
    check("/verificationMaterial", json!({"x509CertificateChain": {}}), "without a key");
    check("/verificationMaterial", json!({}), "does not say that a key made it");
    let mut forged = Forged::default();
    forged.refer(digest, b"{}");
    signed.refuses(&forged, "its bundle is malformed");
    let mut forged = Forged::default();
    forged
        .refer_with(&json!({"layers": [], "subject": {"mediaType": MANIFEST, "digest": digest, "size": 1}}));
    signed.refuses(&forged, "its manifest has 0 layers");
    for _ in 0..SIGNATURES_MAX {
        forged.referrers.push(forged.referrers[0].clone());
    }
    signed.refuses(&forged, "there are 65 bundles, the first 64 count");
}

#[test]
fn a_signature_over_the_manifest_itself_is_one() {
    let cosign = Cosign::new();
    cosign.generate("key");
    let manifest = br#"{"layers":[]}"#;
    let bundle = cosign.sign_bytes("key", manifest);
    let mut forged = Forged::default();
    forged.put(MANIFEST, manifest);
    forged.refer(&sha256(manifest), &bundle);
    let policy = policy(&cosign.public_key("key"), "digestOnly");
    judge(&policy, "h.io/app:v1", &sha256(manifest), &forged).unwrap();
    let other = br#"{"layers":[{}]}"#;
    let mut forged = Forged::default();
    forged.put(MANIFEST, other);
    forged.refer(&sha256(other), &bundle);
    refused(
        judge(&policy, "h.io/app:v1", &sha256(other), &forged),
        &format!("it is for {}", sha256(manifest)),
    );
    // Without the hint the signature itself tells.
    let mut edited: Value = serde_json::from_slice(&bundle).unwrap();
    edited["messageSignature"]["messageDigest"] = Value::Null;
    let mut forged = Forged::default();
    forged.put(MANIFEST, other);
    forged.refer(&sha256(other), &serde_json::to_vec(&edited).unwrap());
    refused(judge(&policy, "h.io/app:v1", &sha256(other), &forged), "not made by the key of the policy");
}

#[test]
fn payloads_are_read_strictly() {
    let digest = sha256(b"x").to_string();
    let simple = |text: &str| super::Claim::of_simple_signing(text.replace("DIGEST", &digest).as_bytes());
    let good = r#"{"critical":{"identity":{"docker-reference":"h.io/a"},"image":{"docker-manifest-digest":"DIGEST"},"type":"cosign container image signature"},"optional":null}"#;
    assert_eq!(simple(good).unwrap().name.as_deref(), Some("h.io/a"));
    simple(&good.replace("null", r#"{"creator":"x","timestamp":1}"#)).unwrap();
    for (from, to) in [
        ("cosign container", "atomic container"),
        (r#""critical":{"#, r#""critical":{"new":1,"#),
        (r#""critical":{"#, r#""more":1,"critical":{"#),
        ("DIGEST", "sha256:12"),
        ("DIGEST", "md5:00000000000000000000000000000000"),
        ("docker-reference", "docker-ref"),
        (r#""optional":null"#, r#""optional":null,"optional":null"#),
        ("}", ""),
        (r#""type":"#, r#""type":1,"type":"#),
    ] {
        assert!(simple(&good.replace(from, to)).is_err(), "{from} {to}");
    }
    let statement =
        |text: &str| super::Claim::of_statement(text.replace("HEX", sha256(b"x").hex()).as_bytes());
    let good = r#"{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":"HEX"}}],"predicateType":"https://sigstore.dev/cosign/sign/v1"}"#;
    assert_eq!(statement(good).unwrap().name, None);
    assert_eq!(
        statement(&good.replace(r#""digest""#, r#""name":"h.io/a","digest""#)).unwrap().name.as_deref(),
        Some("h.io/a")
    );
    for (from, to) in [
        ("Statement/v1", "Statement/v0.1"),
        ("cosign/sign/v1", "slsa/v1"),
        (r#"[{"digest""#, r#"[{"digest":{"sha256":"HEX"}},{"digest""#),
        (r#"{"sha256":"HEX"}"#, "{}"),
        (r#"{"sha256":"HEX"}"#, r#"{"sha256":"HEX","sha512":"00"}"#),
        ("sha256", "sha1"),
    ] {
        assert!(statement(&good.replace(from, to)).is_err(), "{from} {to}");
    }
}

#[test]
fn keys_are_read_strictly() {
    let signed = Signed::new();
    let text = String::from_utf8(signed.key.clone()).unwrap();
    Key::parse(format!("\n{text}\n").as_bytes()).unwrap();
    let cosign = &signed.cosign;
    cosign.import("rsa2048", &["RSA", "-pkeyopt", "rsa_keygen_bits:2048"]);
    Key::parse(&cosign.read("rsa2048.pub")).unwrap();
    for (bytes, why) in [
        (b"".to_vec(), "no PEM file"),
        (b"hello".to_vec(), "no PEM file"),
        (format!("{text}{text}").into_bytes(), "no PEM file"),
        (cosign.read("key.key"), ""),
        (cosign.read("openssl.pem"), "it holds `PRIVATE KEY`, not `PUBLIC KEY`"),
        (text.replace("MF", "MG").into_bytes(), ""),
        (vec![b'x'; super::KEY_FILE_MAX + 1], "more than 16384 bytes"),
    ] {
        let error = Key::parse(&bytes).map(drop).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn arbitrary_bytes_are_refused() {
    let signed = Signed::new();
    let bundle = serde_json::to_vec(&signed.bundle).unwrap();
    proptest!(Config::with_cases(300), |(bytes in any::<Vec<u8>>(), position in any::<Index>(), byte in any::<u8>())| {
        for good in [&signed.payload, &bundle, &signed.key] {
            let mut mutated = good.clone();
            mutated[position.index(good.len())] ^= byte;
            for bytes in [&mutated, &bytes] {
                fuzz::payload(bytes);
                fuzz::bundle(bytes);
                fuzz::cosign_key(bytes);
            }
        }
    });
}

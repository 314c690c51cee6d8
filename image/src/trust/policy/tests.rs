//! Policies, well written and badly, and what they decide.

use std::fs;
use std::path::Path;

use proptest::prelude::{any, proptest};
use proptest::test_runner::Config;
use tempfile::TempDir;

use super::{Admitted, Policy, Transport, Wanted};
use crate::digest::Digest;
use crate::registry::Name;
use crate::trust::Rollback;
use crate::trust::testing::{Forged, sha256};
use crate::{Error, Kind, SettingsFolders};

const FILE: &str = "/etc/hull/policy.json";

/// A key that signed nothing here.
const KEY: &str = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEaxfR8uEsQkf4vOblY6RA8ncDfYEt\n6zOg9KE5RdiYwpZP40Li/hp/m47n60p8D54WK84zV2sxXs7LtkBoN79R9Q==\n-----END PUBLIC KEY-----\n";

fn parse(text: &str) -> Policy {
    Policy::parse(Path::new(FILE), text.as_bytes()).unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn judge(policy: &Policy, name: &str) -> Result<Admitted, Error> {
    let folder = TempDir::new().unwrap();
    let (name, digest) = (Name::parse(name).unwrap(), sha256(b"x"));
    let digest: Digest = name.digest().cloned().unwrap_or(digest);
    let wanted = Wanted { name: &name, named: &digest, platform: &digest };
    policy.judge(&wanted, &Forged::default(), &Rollback::new(folder.path()))
}

#[track_caller]
fn refused(result: Result<Admitted, Error>) -> String {
    let error = result.unwrap_err();
    assert_eq!(*error.kind(), Kind::Untrusted);
    hull_errors::chain(&error)
}

fn pinned(repository: &str) -> String {
    format!("{repository}@{}", sha256(b"x"))
}

#[test]
fn without_a_policy_a_digest_is_needed() {
    let folder = TempDir::new().unwrap();
    let [system, local, user] = ["system", "local", "user"].map(|name| folder.path().join(name));
    let folders = SettingsFolders { system: system.clone(), local: local.clone(), user: Some(user.clone()) };
    let policy = Policy::load(&folders).unwrap();
    let admitted = judge(&policy, &pinned("h.io/app")).unwrap();
    assert_eq!(admitted.to_string(), format!("image {}: its name has its digest", pinned("h.io/app")));
    let text = refused(judge(&policy, "h.io/app:v1"));
    let write = format!("write to {}/policy.json ", local.display());
    assert!(text.contains(&write) && text.contains("--insecure-options=image for once"), "{text}");
    for transport in [Transport::Oci, Transport::OciArchive, Transport::DockerArchive] {
        policy.judge_local(transport, Path::new("/a"), None).unwrap();
    }
    // What the text says to write is a policy, and does what it says.
    let advice: Vec<_> = text.split(&write).nth(1).unwrap().split(" or {").collect();
    let last = advice[1].split("; or name").next().unwrap();
    let advised = parse(&format!("{{{last}"));
    judge(&advised, "h.io/app:v1").unwrap();
    let text = judge(&parse(advice[0]), "h.io/app:v1").unwrap_err().to_string();
    assert!(text.starts_with("read the public key /etc/hull/cosign.pub"), "{text}");
    refused(judge(&advised, "h.io/other:v1"));
    // A later folder replaces the whole file of an earlier one.
    let reject = r#"{"default": [{"type": "reject"}]}"#;
    for (path, text, accepted) in [(&system, reject, false), (&local, "{}", true), (&user, reject, false)] {
        fs::create_dir_all(path).unwrap();
        fs::write(path.join("policy.json"), text).unwrap();
        assert_eq!(judge(&Policy::load(&folders).unwrap(), &pinned("h.io/app")).is_ok(), accepted);
    }
    fs::write(user.join("policy.json"), r#"{"default": [{"type": "rejekt"}]}"#).unwrap();
    let text = Policy::load(&folders).unwrap_err().to_string();
    let want =
        format!("read the policy {}/policy.json: default[0].type: `rejekt` is unknown", user.display());
    assert!(text.starts_with(&want), "{text}");
    fs::write(user.join("policy.json"), " ".repeat(2 << 20)).unwrap();
    assert!(Policy::load(&folders).unwrap_err().to_string().contains("more than 1048576 bytes"));
}

#[test]
fn a_digest_that_led_elsewhere_is_no_digest() {
    let folder = TempDir::new().unwrap();
    let (name, other) = (Name::parse(&pinned("h.io/app")).unwrap(), sha256(b"other"));
    let wanted = Wanted { name: &name, named: &other, platform: &other };
    for policy in ["{}", r#"{"default": [{"type": "insecureAcceptAnything"}]}"#] {
        let judged = parse(policy).judge(&wanted, &Forged::default(), &Rollback::new(folder.path()));
        assert_eq!(*judged.unwrap_err().kind(), Kind::Corrupt);
    }
}

#[test]
fn the_advice_fits_into_the_file_that_is_there() {
    for (policy, want) in [
        ("{}", format!(r#"add to `transports` in {FILE} "docker": {{"h.io/app": ["#)),
        (
            r#"{"transports": {"docker": {"x.io": [{"type": "reject"}]}}}"#,
            format!(r#"add to `transports.docker` in {FILE} "h.io/app": ["#),
        ),
    ] {
        let text = refused(judge(&parse(policy), "h.io/app:v1"));
        assert!(text.contains(&want), "{text}");
    }
}

#[test]
fn the_narrowest_scope_decides() {
    let accept = r#"[{"type": "insecureAcceptAnything"}]"#;
    let reject = r#"[{"type": "reject"}]"#;
    let policy = parse(&format!(
        r#"{{"default": {reject}, "transports": {{
            "docker": {{"": {reject}, "*.h.io": {reject}, "a.h.io": {accept}, "a.h.io/b": {reject}, "a.h.io/b/c": {accept},
                "a.h.io/b/c:bad": {reject}, "{}": {reject}}},
            "oci": {{"/images": {accept}, "/images/bad": {reject}, "/images/bad/x:v1": {accept}}},
            "docker-archive": {{"": {accept}}}
        }}}}"#,
        pinned("a.h.io/b/c")
    ));
    for (name, accepted) in [
        ("h.io/x", false),
        ("c.h.io/x", false),
        ("a.h.io/x", true),
        ("a.h.io/bb", true),
        ("a.h.io/b", false),
        ("a.h.io/b/x", false),
        ("a.h.io/b/c", true),
        ("a.h.io/b/c/d", true),
        ("a.h.io/b/c:bad", false),
        (&pinned("a.h.io/b/c"), false),
        (&pinned("a.h.io/b/d"), false),
        ("a.h.io:5000/x", false),
        ("busybox", false),
    ] {
        assert_eq!(judge(&policy, name).is_ok(), accepted, "{name}");
    }
    let text = refused(judge(&policy, "a.h.io/b/c:bad"));
    assert!(text.contains(r#"rejects it (`transports.docker["a.h.io/b/c:bad"]`)"#), "{text}");
    for (path, tag, accepted) in [
        ("/images/x", None, true),
        ("/images/bad", None, false),
        ("/images/bad/x", Some("v1"), true),
        ("/images/bad/x", Some("v2"), false),
        ("/imagesx", None, false),
    ] {
        assert_eq!(policy.judge_local(Transport::Oci, Path::new(path), tag).is_ok(), accepted, "{path}");
    }
    policy.judge_local(Transport::DockerArchive, Path::new("/x"), None).unwrap();
    let text = refused(policy.judge_local(Transport::OciArchive, Path::new("/x"), None));
    assert!(text.contains("rejects it (`default`)"), "{text}");
}

#[test]
fn all_requirements_must_hold() {
    let policy = parse(
        r#"{"default": [{"type": "insecureAcceptAnything"}, {"type": "reject"}], "transports": {"docker": {
            "h.io": [{"type": "insecureAcceptAnything"}, {"type": "insecureAcceptAnything"}]}}}"#,
    );
    judge(&policy, "h.io/x").unwrap();
    refused(judge(&policy, "i.io/x"));
    let signed = format!(r#"[{{"type": "sigstoreSigned", "keyData": "{}"}}]"#, base64(KEY));
    let policy = parse(&format!(r#"{{"default": {signed}}}"#));
    assert!(refused(judge(&policy, "h.io/x")).contains("and the registry has none of sha256:"));
    let text = refused(policy.judge_local(Transport::Oci, Path::new("/x"), None));
    assert!(
        text.contains(&format!(r#"add to `transports` in {FILE} "oci": {{"/x": [{{"type": "insecureAcc"#)),
        "{text}"
    );
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

#[test]
fn what_is_not_understood_is_an_error_with_its_place() {
    let refused = |text: &str, want: &str| {
        let error = Policy::parse(Path::new(FILE), text.as_bytes()).unwrap_err();
        assert!(error.contains(want), "{text}: {error}");
    };
    for (text, want) in [
        ("", "EOF"),
        ("{", "line 1 column 1"),
        ("[]", "must be an object, and is a list"),
        (r#"{"default": []}"#, "default: must not be empty"),
        (r#"{"default": {}}"#, "default: must be a list, and is an object"),
        (r#"{"default": [1]}"#, "default[0]: must be an object, and is a number"),
        (r#"{"default": [{}]}"#, "default[0]: `type` is missing"),
        (r#"{"default": [{"type": null}]}"#, "default[0].type: must be text, and is null"),
        (r#"{"default": [{"type": "reject", "x": 1}]}"#, "default[0]: `x` is unknown here"),
        (r#"{"Default": []}"#, "`Default` is unknown here"),
        (r#"{"default": [{"type": "reject"}], "default": [{"type": "reject"}]}"#, "`default` is there twice"),
        (r#"{"transports": {"dokker": {}}}"#, r#"transports["dokker"]: there is no such transport"#),
        (r#"{"transports": {"docker": {"h.io": []}}}"#, r#"transports["docker"]["h.io"]: must not be empty"#),
        (
            r#"{"transports": {"docker": {"busybox": [{"type": "reject"}]}}}"#,
            r#"["busybox"]: no image is in this scope"#,
        ),
        (r#"{"transports": {"oci": {"a/b": [{"type": "reject"}]}}}"#, "must be an absolute path"),
        (
            r#"{"transports": {"docker": {"h.io": [{"type": "reject"}], "h.io": [{"type": "reject"}]}}}"#,
            "`h.io` is there twice",
        ),
        (
            r#"{"default": [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/a"}]}"#,
            "`signedBy` is not supported; sign with `cosign sign --key`",
        ),
        (&"[".repeat(100_000), "recursion limit"),
    ] {
        refused(text, want);
    }
    let signed = |members: &str, want: &str| {
        refused(&format!(r#"{{"default": [{{"type": "sigstoreSigned"{members}}}]}}"#), want);
    };
    let exactly = "exactly one of `keyPath`, `keyPaths`, `keyData`, `keyDatas` must be there";
    signed("", exactly);
    signed(r#", "keyPath": "/a", "keyPaths": ["/b"]"#, exactly);
    signed(r#", "keyPath": "a""#, "default[0].keyPath: must be an absolute path");
    signed(r#", "keyPaths": []"#, "default[0].keyPaths: must have 1 to 100 keys");
    signed(r#", "keyPaths": ["/a", 1]"#, "default[0].keyPaths[1]: must be text, and is a number");
    signed(r#", "keyData": "?""#, "default[0].keyData: must be base64");
    signed(r#", "keyDatas": ["AAAA"]"#, "default[0].keyDatas[0]: must be a public key");
    for name in ["fulcio", "pki", "rekorPublicKeyPath", "rekorPublicKeyDatas"] {
        signed(
            &format!(r#", "keyPath": "/a", "{name}": {{}}"#),
            &format!("`{name}` is not supported, use a key"),
        );
    }
    let identity = |identity: &str, want: &str| {
        signed(&format!(r#", "keyPath": "/a", "signedIdentity": {identity}"#), want);
    };
    identity(r#"{"type": "any"}"#, "default[0].signedIdentity.type: `any` is unknown");
    identity(r#"{"type": "matchExact", "x": 1}"#, "default[0].signedIdentity: `x` is unknown here");
    identity(r#"{"type": "exactReference"}"#, "`dockerReference` is missing");
    identity(r#"{"type": "exactReference", "dockerReference": "h.io/a"}"#, "must have a tag or a digest");
    identity(
        r#"{"type": "exactRepository", "dockerRepository": "h.io/a:1"}"#,
        "must have no tag and no digest",
    );
    identity(r#"{"type": "remapIdentity", "prefix": "h.io"}"#, "`signedPrefix` is missing");
    identity(
        r#"{"type": "remapIdentity", "prefix": "h.io/a:1", "signedPrefix": "h.io"}"#,
        "must have no tag",
    );
}

#[test]
fn what_the_manual_shows_is_understood() {
    let policy = parse(&format!(
        r#"{{"default": [{{"type": "reject"}}], "transports": {{
            "docker": {{
                "docker.io/openshift": [{{"type": "insecureAcceptAnything"}}],
                "*.example.com": [{{"type": "insecureAcceptAnything"}}],
                "h.io/a": [{{"type": "sigstoreSigned", "keyPath": "/a.pub", "signedIdentity": {{"type": "matchExact"}}}}],
                "h.io/b": [{{"type": "sigstoreSigned", "keyDatas": ["{key}", "{key}"], "signedIdentity":
                    {{"type": "remapIdentity", "prefix": "h.io/b", "signedPrefix": "vendor.example/b"}}}}],
                "h.io/c": [{{"type": "sigstoreSigned", "keyPaths": ["/a.pub", "/b.pub"], "signedIdentity":
                    {{"type": "exactReference", "dockerReference": "docker.io/library/x:1"}}}}],
                "h.io/d": [{{"type": "sigstoreSigned", "keyData": "{key}", "signedIdentity":
                    {{"type": "exactRepository", "dockerRepository": "docker.io/library/x"}}}}]
            }},
            "docker-daemon": {{"": [{{"type": "signedBy", "anything": 1}}]}},
            "atomic": {{}}
        }}}}"#,
        key = base64(KEY)
    ));
    assert_eq!(
        policy.warnings(),
        ["docker-daemon", "atomic"]
            .map(|name| format!("policy {FILE}: hull has no transport `{name}`, ignoring it"))
    );
    judge(&policy, "openshift/app:1").unwrap();
    judge(&policy, "my.example.com:5000/app").unwrap();
    assert!(refused(judge(&policy, "h.io/b:1")).contains("the registry has none"));
    let error = judge(&policy, "h.io/a:1").unwrap_err();
    assert!(
        hull_errors::chain(&error).starts_with("read the public key /a.pub, which the policy names: "),
        "{error}"
    );
}

#[test]
fn arbitrary_policies_never_panic() {
    proptest!(Config::with_cases(300), |(bytes in any::<Vec<u8>>(), text in "[\\[\\]{}:,\" a-z0-9]*")| {
        drop(Policy::parse(Path::new(FILE), &bytes));
        drop(Policy::parse(Path::new(FILE), text.as_bytes()));
        drop(Policy::parse(Path::new(FILE), format!(r#"{{"default": [{text}]}}"#).as_bytes()));
    });
}

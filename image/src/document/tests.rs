//! What documents are taken for, and what is refused.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

#[track_caller]
fn check(document: &Value, declared: Option<&str>, want: Result<DocumentKind, (Kind, &str)>) {
    match (document_kind(document.to_string().as_bytes(), declared, "x"), want) {
        (Ok(got), Ok(want)) => assert_eq!(got, want),
        (Err(got), Err((kind, text))) => {
            assert!(*got.kind() == kind && got.to_string().contains(text), "{:?} {got}", got.kind());
        }
        (got, want) => panic!("got {got:?}, want {want:?}"),
    }
}

#[test]
fn documents_are_one_thing() {
    let [oci, docker] = MANIFESTS;
    let [index, list] = INDEXES;
    check(&json!({"schemaVersion": 2, "config": {}}), None, Ok(DocumentKind::Manifest));
    check(&json!({"schemaVersion": 2, "manifests": []}), None, Ok(DocumentKind::Index));
    check(&json!({"schemaVersion": 2, "mediaType": oci}), Some(oci), Ok(DocumentKind::Manifest));
    check(&json!({"schemaVersion": 2, "mediaType": docker}), None, Ok(DocumentKind::Manifest));
    check(&json!({"schemaVersion": 2}), Some(list), Ok(DocumentKind::Index));
    let twice = "it is an index and a manifest at once";
    check(&json!({"manifests": [], "layers": []}), None, Err((Kind::Corrupt, twice)));
    check(&json!({"manifests": [], "config": {}, "mediaType": oci}), None, Err((Kind::Corrupt, twice)));
    check(&json!({"manifests": [], "mediaType": oci}), Some(oci), Err((Kind::Corrupt, twice)));
    check(&json!({"layers": []}), Some(index), Err((Kind::Corrupt, twice)));
    check(&json!({"mediaType": oci}), Some(docker), Err((Kind::Corrupt, "and it was declared `")));
    check(
        &json!({"mediaType": "text/\u{1b}x"}),
        None,
        Err((Kind::Unsupported, "of the type `text/\\x1bx`, no image")),
    );
    check(&json!({}), Some("application/vnd.cncf.helm.config.v1+json"), Err((Kind::Unsupported, "no image")));
    check(&json!({"schemaVersion": 3}), None, Err((Kind::Unsupported, "schema version is 3")));
    for old in OLD_MANIFESTS {
        check(&json!({"schemaVersion": 1}), Some(old), Err((Kind::Unsupported, "Docker's schema 1")));
    }
    check(&json!({"schemaVersion": 1, "fsLayers": []}), None, Err((Kind::Unsupported, "Docker's schema 1")));
    check(&json!("x"), None, Err((Kind::NotAnImage, "it is no such document")));
    let page = document_kind(b" <html>", None, "x").unwrap_err();
    assert!(page.to_string().contains("it is a web page"), "{page}");
    // Which of two fields of one name counts would depend on the reader.
    let twice = document_kind(br#"{"mediaType": "a", "mediaType": "b"}"#, None, "x").unwrap_err();
    assert_eq!(*twice.kind(), Kind::NotAnImage);
}

#[test]
fn the_platform_is_chosen_as_the_specification_says() {
    let entry = |digit: char, platform: Option<(&str, &str, &str)>| {
        let platform = platform.map(
            |(os, architecture, variant)| json!({"os": os, "architecture": architecture, "variant": variant}),
        );
        json!({"mediaType": MANIFESTS[0], "size": 1, "digest": format!("sha256:{}", digit.to_string().repeat(64)), "platform": platform})
    };
    let choose = |entries: &[Value], several| {
        let index = json!({"schemaVersion": 2, "manifests": entries}).to_string();
        let chosen = by_platform(read_index(index.as_bytes(), "x").unwrap(), several, "x");
        chosen.map(|d| d.digest.hex()[..1].to_owned()).map_err(|e| e.to_string())
    };
    let ours = Some(("linux", "amd64", ""));
    let attestation = entry('a', Some(("unknown", "unknown", "")));
    let all = [
        attestation.clone(),
        entry('b', Some(("linux", "s390x", ""))),
        entry('c', None),
        entry('d', ours),
        entry('e', ours),
    ];
    assert_eq!(choose(&all, Several::OneImage), Ok("d".into()));
    assert_eq!(choose(&all[..3], Several::OneImage), Ok("c".into()));
    assert_eq!(choose(&all, Several::Ambiguous("name one")), Err("choose an image of x: name one".into()));
    assert!(
        choose(&all[..2], Several::OneImage).unwrap_err().contains("it is for linux/s390x, this host needs")
    );
    assert!(choose(&[attestation], Several::OneImage).unwrap_err().contains("it has none"));
    let v3 = entry('f', Some(("linux", "amd64", "v3")));
    assert!(choose(&[v3], Several::OneImage).is_err());
}

#[test]
fn sizes_are_added_without_surprise() {
    let digest = format!("sha256:{}", "0".repeat(64));
    let layer = json!({"mediaType": LAYERS[0], "digest": digest, "size": u64::MAX});
    let config = json!({"mediaType": CONFIGS[0], "digest": digest, "size": 2});
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": [layer]}).to_string();
    let error = Manifest::parse(manifest.as_bytes(), "x").unwrap_err();
    assert_eq!(*error.kind(), Kind::TooLarge);
}

proptest! {
    #[test]
    fn anything_may_come(text in "[{}\\[\\]\",:a-zA-Z0-9]{0,60}") {
        let _ = document_kind(text.as_bytes(), None, "x");
        let _ = Manifest::parse(text.as_bytes(), "x");
        let _ = read_index(text.as_bytes(), "x");
    }
}

//! Images of registries that must be signed with a key.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use hull_tests::cosign::Cosign;
use hull_tests::hull::{Ended, finish};
use hull_tests::image::{Builder, Layer};
use hull_tests::registry::Registry;
use hull_tests::{Hull, Image};
use serde_json::json;

struct Fixture {
    registry: Registry,
    cosign: Cosign,
    /// Public keys.
    ann: PathBuf,
    eve: PathBuf,
    data: Hull,
}

impl Fixture {
    /// A registry whose images need a signature by the key `ann`, for that identity.
    fn new(identity: &str) -> Self {
        let (registry, cosign, data) = (Registry::plain(), Cosign::new(), Hull::new());
        registry.reach(data.settings());
        let (ann, eve) = (cosign.key("ann"), cosign.key("eve"));
        require(data.settings(), registry.host(), &ann, identity);
        Self { registry, cosign, ann, eve, data }
    }

    fn fetch(&self, name: &str) -> Ended {
        let image = format!("docker://{}/{name}", self.registry.host());
        finish(self.registry.command(&self.data, &["fetch", "--full", &image]))
    }

    fn pinned(&self, repository: &str, digest: &str) -> String {
        format!("{}/{repository}@{digest}", self.registry.host())
    }
}

fn require(settings: &Path, host: &str, key: &Path, identity: &str) {
    let signed =
        json!([{ "type": "sigstoreSigned", "keyPath": key, "signedIdentity": { "type": identity } }]);
    let policy = json!({ "default": [{ "type": "reject" }], "transports": { "docker": { host: signed } } });
    fs::write(settings.join("policy.json"), policy.to_string()).expect("a new file");
}

fn other() -> Image {
    Builder::standard().layer(Layer::default().file("etc/other", 0o644, b"other")).oci()
}

#[test]
fn only_what_the_key_of_the_policy_signed_is_fetched() {
    let fixture = Fixture::new("matchRepository");
    let digest = fixture.registry.push(&Image::standard(), "team/app:1");
    let pinned = fixture.pinned("team/app", &digest);
    // Not by digest either: the policy wants a signature.
    for name in ["team/app:1".to_owned(), format!("team/app@{digest}")] {
        fixture.fetch(&name).failure(&["trust image", &digest, "the registry has none"]);
    }
    fixture.cosign.sign_tag("eve", &pinned);
    fixture.fetch("team/app:1").failure(&["it was not made by the key of the policy"]);
    assert!(!fixture.data.dir().join("images/erofs").read_dir().unwrap().any(|_| true));
    fixture.cosign.sign_tag("ann", &pinned);
    let ended = fixture.fetch("team/app:1");
    assert!(ended.stderr().contains("signature verified"), "{}", ended.stderr());
    assert_eq!(ended.success().trim(), digest.replace(':', "-"));
    // The tag leads to what nobody signed.
    let changed = fixture.registry.push(&other(), "team/app:1");
    assert_ne!(changed, digest);
    fixture.fetch("team/app:1").failure(&[&changed, "the registry has none"]);
    // Nor does the signature of the one count for the other.
    let signature = |digest: &str| {
        let tag = digest.replace(':', "-");
        format!("docker://{}/team/app:{tag}.sig", fixture.registry.host())
    };
    let mut skopeo = Command::new("skopeo");
    skopeo.args([
        "--insecure-policy",
        "copy",
        "--quiet",
        "--src-tls-verify=false",
        "--dest-tls-verify=false",
    ]);
    let output = skopeo.args([signature(&digest), signature(&changed)]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fixture.fetch("team/app:1").failure(&["trust image", "it is for another image", &digest]);
}

#[test]
fn who_is_trusted_no_more_counts_no_more_for_what_the_store_has() {
    let fixture = Fixture::new("matchRepository");
    let digest = fixture.registry.push(&Image::standard(), "team/app:1");
    fixture.cosign.sign_tag("ann", &fixture.pinned("team/app", &digest));
    fixture.fetch("team/app:1").success();
    let image = format!("docker://{}/team/app:1", fixture.registry.host());
    let prepare = |options: &[&str]| {
        let words = [["prepare", "--stage1=fly"].as_slice(), options, &[&image, "--", "/bin/true"]].concat();
        finish(fixture.registry.command(&fixture.data, &words))
    };
    let settings = fixture.data.settings().to_owned();
    let policy = settings.join("policy.json");
    let ann = fs::read(&policy).unwrap();
    prepare(&["--pull-policy=never"]).success();
    // Another key for the name.
    require(&settings, fixture.registry.host(), &fixture.eve, "matchRepository");
    prepare(&["--pull-policy=never"])
        .failure(&["not admitted by what the policy asks for now", "--pull-policy=new"]);
    prepare(&[]).failure(&["trust image", "it was not made by the key of the policy"]);
    // No image of that name at all.
    fs::write(&policy, json!({ "default": [{ "type": "reject" }] }).to_string()).unwrap();
    prepare(&[]).failure(&["trust image", "rejects it (`default`)"]);
    // Nothing said of the name any more.
    fs::remove_file(&policy).unwrap();
    prepare(&[]).failure(&["trust image", "no policy says what it needs"]);
    prepare(&["--insecure-options=image"]).success();
    // What is trusted again needs no registry.
    fs::write(&policy, ann).unwrap();
    prepare(&["--pull-policy=never"]).success();
    // The key is another one, in a file of the same name.
    fs::copy(&fixture.eve, &fixture.ann).unwrap();
    prepare(&[]).failure(&["trust image", "it was not made by the key of the policy"]);
}

#[test]
fn bundles_that_refer_to_an_image_count() {
    let fixture = Fixture::new("digestOnly");
    let digest = fixture.registry.push(&Image::standard(), "team/app:1");
    let changed = fixture.registry.push(&other(), "team/app:2");
    fixture.cosign.sign_bundle("eve", &fixture.pinned("team/app", &digest));
    fixture.fetch("team/app:1").failure(&["it was not made by the key of the policy"]);
    fixture.cosign.sign_bundle("ann", &fixture.pinned("team/app", &digest));
    let ended = fixture.fetch("team/app:1");
    assert!(ended.stderr().contains("signature verified"), "{}", ended.stderr());
    assert_eq!(ended.success().trim(), digest.replace(':', "-"));
    fixture.fetch("team/app:2").failure(&[&changed, "the registry has none"]);
}

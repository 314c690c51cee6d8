//! Images of registries: what the policy allows, who may ask, what is transferred.

use std::fs;

use hull_tests::hull::{Ended, finish};
use hull_tests::image::{Builder, Layer};
use hull_tests::registry::{PASSWORD, Registry, USER};
use hull_tests::{Flavour, Hull, Image};
use serde_json::json;

fn hull(registry: &Registry, hull: &Hull, args: &[&str]) -> Ended {
    finish(registry.command(hull, args))
}

pub(crate) fn a_pod_runs_from_a_registry(flavour: Flavour) {
    let (registry, data) = (Registry::plain(), Hull::new());
    let digest = registry.push(&Image::standard(), "library/app:1");
    registry.allow(data.settings());
    let by_tag = format!("docker://{}/library/app:1", registry.host());
    let by_digest = format!("docker://{}/library/app@{digest}", registry.host());
    for image in [&by_tag, &by_digest] {
        let args = ["run", flavour.option(), "--quiet", image, "--", "/bin/echo", "from the registry"];
        assert_eq!(hull(&registry, &data, &args).success(), "from the registry\n");
    }
    // What is in the store runs without the registry, and under the name it came by.
    drop(registry);
    let args = ["run", flavour.option(), "--pull-policy=never", &by_tag, "--", "/bin/echo", "alone"];
    assert_eq!(data.hull(&args).success(), "alone\n");
}

#[test]
fn a_tag_needs_a_rule_and_the_error_says_which() {
    let (registry, data) = (Registry::plain(), Hull::new());
    let digest = registry.push(&Image::standard(), "library/app:1");
    registry.reach(data.settings());
    let by_tag = format!("docker://{}/library/app:1", registry.host());
    let by_digest = format!("docker://{}/library/app@{digest}", registry.host());
    hull(&registry, &data, &["fetch", &by_tag]).failure(&[
        "policy.json",
        registry.host(),
        "insecureAcceptAnything",
    ]);
    let id = hull(&registry, &data, &["fetch", "--full", &by_digest]).success();
    assert_eq!(id.trim(), digest.replace(':', "-"));
    registry.allow(data.settings());
    assert_eq!(hull(&registry, &data, &["fetch", "--full", &by_tag]).success(), id);
    let strict = Hull::new();
    registry.reach(strict.settings());
    let rejected = json!({ "default": [{ "type": "reject" }] });
    fs::write(strict.settings().join("policy.json"), rejected.to_string()).unwrap();
    hull(&registry, &strict, &["fetch", &by_digest]).failure(&[registry.host(), "rejects"]);
    hull(&registry, &strict, &["fetch", "--insecure-options=image", &by_digest]).success();
}

#[test]
fn a_registry_is_told_who_asks() {
    let (registry, data) = (Registry::secure(), Hull::new());
    registry.push(&Image::standard(), "app:1");
    registry.allow(data.settings());
    let name = format!("docker://{}/app:1", registry.host());
    hull(&registry, &data, &["fetch", &name]).failure(&[registry.host(), "auth.json"]);
    let login = |password: &str| {
        let document = json!({
            "hullKind": "dockerAuth", "hullVersion": "v1", "registries": [registry.host()],
            "credentials": { "user": USER, "password": password },
        });
        fs::create_dir_all(data.settings().join("auth.d")).unwrap();
        fs::write(data.settings().join("auth.d/registry.json"), document.to_string()).unwrap();
    };
    login("wrong");
    let said = hull(&registry, &data, &["fetch", &name]).failure(&[registry.host()]);
    assert!(!said.contains("wrong\""), "{said}");
    login(PASSWORD);
    hull(&registry, &data, &["fetch", &name]).success();
    // Whoever answers instead of the registry has no certificate for it.
    let mut command = registry.command(&Hull::new(), &["fetch", "--insecure-options=image", &name]);
    command.env_remove("SSL_CERT_FILE");
    finish(command).failure(&["certificate"]);
}

#[test]
fn a_layer_is_fetched_once_ever() {
    let (registry, data) = (Registry::plain(), Hull::new());
    registry.allow(data.settings());
    let layer = |text: &str| Layer::default().file("etc/text", 0o644, text.as_bytes());
    registry.push(&Builder::standard().layer(layer("one")).oci(), "app:1");
    registry.push(&Builder::standard().layer(layer("two")).oci(), "app:2");
    let fetch = |tag: &str| {
        let ended = hull(&registry, &data, &["fetch", &format!("docker://{}/app:{tag}", registry.host())]);
        let lines = ended.stderr().lines().filter(|line| line.starts_with("fetched ")).count();
        (ended.success(), lines)
    };
    let (first, transfers) = fetch("1");
    assert!(transfers >= 2, "{transfers}");
    let (second, fewer) = fetch("2");
    assert!(first != second && fewer == transfers - 1, "{fewer} after {transfers}");
    assert_eq!(fetch("2"), (second, 0));
}

#[test]
fn two_that_want_the_same_make_it_once() {
    let (registry, data) = (Registry::plain(), Hull::new());
    registry.push(&Image::standard(), "app:1");
    registry.allow(data.settings());
    let name = format!("docker://{}/app:1", registry.host());
    let fetch = || data.spawn_command(registry.command(&data, &["fetch", &name]));
    let ended = [fetch(), fetch()].map(hull_tests::hull::Started::wait);
    let lines: Vec<String> =
        ended.iter().flat_map(|e| e.stderr().lines().map(str::to_owned).collect::<Vec<_>>()).collect();
    let layers: Vec<&String> = lines.iter().filter(|line| line.starts_with("fetched layer")).collect();
    assert_eq!(layers.len(), 1, "{lines:?}");
    let [first, second] = ended;
    assert_eq!(first.success(), second.success());
}

#[test]
fn a_registry_that_is_not_there_is_named() {
    let data = Hull::new();
    let name =
        "docker://127.0.0.1:1/app@sha256:0000000000000000000000000000000000000000000000000000000000000000";
    data.hull(&["fetch", name]).failure(&["fetch: ", "127.0.0.1:1"]);
    data.hull(&["fetch", "--pull-policy=never", name]).failure(&["127.0.0.1:1", "--pull-policy"]);
}

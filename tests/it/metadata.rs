//! The metadata service of the pods.

use hull_tests::hull::finish;
use hull_tests::image::{Builder, Layer};
use hull_tests::{Flavour, Hull, Image};
use serde_json::{Value, json};

/// An App Container Image with wget(1).
fn image() -> Image {
    let layer = Layer::default()
        .symlink("bin/wget", "busybox")
        .symlink("bin/tail", "busybox")
        .symlink("bin/sed", "busybox");
    Builder::standard().layer(layer).app(json!({ "workingDirectory": "/tmp" })).aci()
}

fn run(hull: &Hull, flavour: Flavour, image: &Image, script: &str) -> String {
    let options = ["run", flavour.option(), "--mds-register", "--insecure-options=image", &image.reference()];
    let words = ["--name=web", "--annotation=example.com/x=y", "--exec=/bin/sh", "--", "-c", script];
    finish(hull.command(options.iter().chain(&words))).success()
}

const GET: &str = "get() { wget -q -O - $AC_METADATA_URL/acMetadata/v1/$1; echo; };";

pub(crate) fn an_app_asks_what_it_is(flavour: Flavour) {
    let (hull, image) = (Hull::new(), image());
    let script = format!(
        "{GET} get pod/uuid; get pod/manifest; get apps/web/annotations/example.com/x; get apps/web/image/id; \
         get apps/web/image/manifest; get apps/web/annotations; get pod/annotations; \
         wget -q -O - ${{AC_METADATA_URL%/*}}/0/acMetadata/v1/pod/uuid 2>&1 | sed 's/.*401/401/'"
    );
    let said = run(&hull, flavour, &image, &script);
    let lines: Vec<&str> = said.lines().collect();
    let id = hull.pods().remove(0);
    let json = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_else(|why| panic!("{text}: {why}"));
    assert_eq!(lines[0], id);
    let manifest = hull.hull(&["cat-manifest", &id]).success();
    assert_eq!(json(lines[1]), json(&manifest));
    assert_eq!(lines[2], "y");
    assert_eq!(lines[3], json(&manifest)["apps"][0]["image"]["id"].as_str().expect("an id"));
    assert_eq!(json(lines[4])["name"], "example.com/busybox");
    assert_eq!(json(lines[4])["app"]["workingDirectory"], "/tmp", "as the image has it, not as it runs");
    assert_eq!(json(lines[5])[0], json!({ "name": "example.com/x", "value": "y" }));
    assert_eq!(lines[6], "[]");
    assert!(lines[7].starts_with("401"), "{said}");
    // Who did not ask for it has none.
    hull.collect().success();
    assert_eq!(hull.shell(flavour, "echo $AC_METADATA_URL").success(), "\n");
    // An image without appc's manifest has one that says the same.
    let id = hull
        .hull(&["prepare", flavour.option(), &Image::standard().reference(), "--exec=/bin/env"])
        .success();
    let said = hull.hull(&["run-prepared", "--mds-register", id.trim()]).success();
    assert!(said.lines().any(|line| line.starts_with("AC_METADATA_URL=http://127.0.0.1:")), "{said}");
}

pub(crate) fn what_one_pod_signs_another_verifies(flavour: Flavour) {
    let (hull, image) = (Hull::new(), image());
    let sign = "wget -q -O - --post-data='content=a%20b' $AC_METADATA_URL/acMetadata/v1/pod/hmac/sign";
    let signature = run(&hull, flavour, &image, sign);
    let id = hull.pods().remove(0);
    hull.collect().success();
    let signature = signature.replace('+', "%2B");
    let script = format!(
        "verify() {{ wget -q -O - --post-data=\"uuid=$1&content=$2&signature={signature}\" \
         $AC_METADATA_URL/acMetadata/v1/pod/hmac/verify 2>/dev/null && echo yes || echo no; }}; \
         verify {id} a+b; verify {id} other; verify 00000000-0000-4000-8000-000000000000 a+b"
    );
    assert_eq!(run(&hull, flavour, &image, &script), "yes\nno\nno\n");
    let key = std::fs::metadata(hull.dir().join("metadata-key")).expect("the host's key");
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(key.permissions().mode() & 0o777, 0o600);
}

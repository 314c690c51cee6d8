//! Images in files: signed by somebody who is trusted, or not used.

use std::fs;

use hull_tests::image::Builder;
use hull_tests::signer::Signer;
use hull_tests::{Hull, Image};

/// The name of the images that [`Builder::aci`] makes.
const NAME: &str = "example.com/busybox";

fn ann() -> Signer {
    Signer::new("Ann <ann@example.com>")
}

/// An ACI with its signature beside it.
fn signed_by(signer: &Signer) -> Image {
    let image = Builder::standard().aci();
    fs::write(format!("{}.asc", image.path().display()), signer.sign(image.path())).expect("a new file");
    image
}

#[test]
fn a_signature_makes_an_image_from_a_file_usable() {
    let (hull, ann) = (Hull::new(), ann());
    let (image, key) = (signed_by(&ann), ann.key_file().display().to_string());
    let run = || hull.hull(&["run", "--stage1=fly", &image.reference(), "--", "me"]);
    // Nobody is trusted yet.
    run().failure(&["run: ", "hull trust --prefix"]);
    hull.hull(&["trust", "--prefix=other.com", "--skip-fingerprint-review", &key]).success();
    run().failure(&[NAME]);
    hull.hull(&["trust", "--prefix=example.com", "--skip-fingerprint-review", &key]).success();
    assert_eq!(run().success(), "from the image me\n");
    // What the store has of a key that is trusted no more is not used again, by its file or by its name.
    let by_name = |option: &str| hull.hull(&["run", "--stage1=fly", option, NAME, "--", "me"]);
    by_name("--pull-policy=never").success();
    let trusted = hull.settings().join("trustedkeys");
    let kept = hull.settings().join("kept");
    fs::rename(&trusted, &kept).unwrap();
    run().failure(&["run: ", "hull trust --prefix"]);
    by_name("--pull-policy=never").failure(&[NAME, "no longer trusted", "the store has none"]);
    by_name("--insecure-options=image").success();
    fs::rename(&kept, &trusted).unwrap();
    by_name("--pull-policy=never").success();
    run().success();
}

#[test]
fn an_image_from_a_file_needs_a_signature() {
    let (hull, ann) = (Hull::new(), ann());
    let image = Builder::standard().aci();
    hull.hull(&["trust", "--root", "--skip-fingerprint-review", &ann.key_file().display().to_string()])
        .success();
    let path = image.reference();
    hull.hull(&["fetch", &path]).failure(&[&path, "no signature", "--signature", "--insecure-options=image"]);
    let elsewhere = tempfile::tempdir().unwrap();
    let signature = elsewhere.path().join("signature");
    let option = format!("--signature={}", signature.display());
    // Somebody else's signature, and one of something else.
    fs::write(&signature, Signer::new("Eve <eve@example.com>").sign(image.path())).unwrap();
    hull.hull(&["fetch", &option, &path]).failure(&["hull trust"]);
    fs::write(&signature, ann.sign(&ann.key_file())).unwrap();
    hull.hull(&["fetch", &option, &path]).failure(&[&path]);
    fs::write(&signature, ann.sign(image.path())).unwrap();
    hull.hull(&["fetch", &option, &path]).success();
    Hull::new().hull(&["fetch", "--insecure-options=image", &path]).success();
}

//! Images in files.

use super::*;
use crate::import::{self, Guessed};

fn written(place: &Place) -> (PathBuf, Vec<u8>) {
    let image = aci(&manifest("example.com/app", "1"), &[("a", "from a")]);
    let path = place.path("x.aci");
    fs::write(&path, &image).unwrap();
    (path, place.signer.sign(&image))
}

#[test]
fn a_file_needs_a_signature_beside_it_or_named() {
    let place = Place::new();
    let (path, signature) = written(&place);
    let fetch = |options: &FetchOptions| place.with(options, |fetcher| fetcher.file(&path));
    refused(fetch(&FetchOptions::default()), Kind::Untrusted, "x.aci.asc");
    fs::write(place.path("elsewhere.asc"), &signature).unwrap();
    let named = FetchOptions { signature: Some(place.path("elsewhere.asc")), ..FetchOptions::default() };
    assert!(fetch(&named).unwrap().converted);
    fs::write(place.path("x.aci.asc"), &signature).unwrap();
    assert!(!fetch(&FetchOptions::default()).unwrap().converted);
    fs::write(place.path("x.aci.asc"), Signer::new().sign(&fs::read(&path).unwrap())).unwrap();
    refused(fetch(&FetchOptions::default()), Kind::Untrusted, "signature");
    let missing = FetchOptions { signature: Some(place.path("none.asc")), ..FetchOptions::default() };
    refused(fetch(&missing), Kind::NotFound, "none.asc");
    fetch(&insecure(Insecure { image: true, ..Insecure::default() })).unwrap();
}

#[test]
fn a_file_that_becomes_an_aci_between_look_and_import_is_refused() {
    let place = Place::new();
    let (path, _) = written(&place);
    let aci = fs::read(&path).unwrap();
    fs::write(place.path("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let tar = Command::new("tar").arg("-cf").arg(&path).arg("oci-layout").current_dir(&place.folder).status();
    assert!(tar.unwrap().success());
    let store = place.store();
    assert_eq!(import::guessed(&store, &path).unwrap(), Guessed::Archive);
    fs::write(&path, aci).unwrap();
    // No signature was asked for, so it must not become an image.
    refused(import::archive(&store, &path), Kind::Untrusted, "became an App Container Image");
    assert!(store.list().unwrap().is_empty());
}

#[test]
fn nothing_is_read_of_a_file_before_its_signature() {
    let place = Place::without_converter();
    let (path, signature) = written(&place);
    fs::write(place.path("x.aci.asc"), &signature).unwrap();
    let fetch = |options: &FetchOptions| place.with(options, |fetcher| fetcher.file(&path));
    refused(fetch(&FetchOptions::default()), Kind::Host, "no-converter");
    fs::write(&path, "another").unwrap();
    refused(fetch(&FetchOptions::default()), Kind::Untrusted, "signature");
}

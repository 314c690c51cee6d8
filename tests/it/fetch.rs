//! `hull fetch`: from what a user writes to an image in the store.

use std::fs;

use hull_tests::image::Builder;
use hull_tests::{Hull, Image};

/// The ids that `hull fetch` prints.
fn fetch(hull: &Hull, args: &[&str]) -> Vec<String> {
    let printed = hull.hull(&[&["fetch"], args].concat()).success();
    printed.lines().map(str::to_owned).collect()
}

#[test]
fn one_id_is_printed_for_each_image() {
    let hull = Hull::new();
    let [oci, docker] = [Builder::standard().oci(), Builder::standard().docker_archive()];
    let (oci, docker) = (oci.reference(), docker.reference());
    let short = fetch(&hull, &[&oci, &docker]);
    let full = fetch(&hull, &["--full", &oci, &docker]);
    for (short, full) in short.iter().zip(&full) {
        assert_eq!((short.len(), full.len()), ("sha256-".len() + 32, "sha256-".len() + 64), "{short} {full}");
        assert!(full.starts_with(short), "{short} {full}");
        // What was printed names the image from now on.
        assert_eq!(fetch(&hull, &["--full", "--pull-policy=never", short]), [full.as_str()]);
    }
    assert_eq!((short.len(), full.len()), (2, 2));
}

#[test]
fn what_cannot_be_fetched_is_an_error() {
    let hull = Hull::new();
    let image = Image::standard().reference();
    hull.hull(&["fetch"]).failure(&["IMAGE"]);
    hull.hull(&["fetch", "/nowhere.aci"]).failure(&["fetch: ", "/nowhere.aci"]);
    hull.hull(&["fetch", "--pull-policy=sometimes", &image]).failure(&["sometimes", "never"]);
    hull.hull(&["fetch", "--insecure-options=imgae", &image]).failure(&["imgae", "all-fetch"]);
    hull.hull(&["fetch", "--signature=/x.asc", &image, &image]).failure(&["--signature", "one image"]);
    // The images before the one that fails are there, and said to be.
    let ended = hull.hull(&["fetch", &image, "/nowhere.aci"]);
    assert!(ended.stdout().starts_with("sha256-"), "{}", ended.stdout());
    ended.failure(&["/nowhere.aci"]);
}

#[test]
fn words_that_go_away_still_work_and_say_so() {
    let hull = Hull::new();
    let image = Image::standard().reference();
    for (old, new) in [("--store-only", "--pull-policy=never"), ("--no-store", "--pull-policy=update")] {
        let ended = hull.hull(&["fetch", old, &image]);
        assert!(ended.stderr().contains(old) && ended.stderr().contains(new), "{}", ended.stderr());
        ended.success();
        let quiet = hull.hull(&["fetch", new, &image]);
        assert_eq!(quiet.stderr(), "");
    }
    hull.hull(&["fetch", "--store-only", "--no-store", &image]).failure(&["--no-store"]);
}

#[test]
fn what_waives_a_pods_protections_means_nothing_to_a_fetch() {
    let hull = Hull::new();
    let image = Image::standard().reference();
    for word in ["capabilities", "paths", "seccomp", "all-run"] {
        let option = format!("--insecure-options={word}");
        assert!(hull.hull(&["fetch", &option, &image]).success().starts_with("sha256-"));
        // Nor does it open a way in for images.
        let unsigned = hull_tests::image::Builder::standard().aci();
        hull.hull(&["fetch", &option, &unsigned.reference()]).failure(&["signature"]);
    }
}

#[test]
fn the_settings_say_where_the_data_is() {
    let hull = Hull::new();
    let elsewhere = tempfile::tempdir().unwrap();
    let folder = hull.settings().join("paths.d");
    fs::create_dir(&folder).unwrap();
    let text = serde_json::json!({ "hullKind": "paths", "hullVersion": "v1", "data": elsewhere.path() });
    fs::write(folder.join("paths.json"), text.to_string()).unwrap();
    // A broken file of another kind is no reason not to find them.
    fs::create_dir(hull.settings().join("auth.d")).unwrap();
    fs::write(hull.settings().join("auth.d/broken.json"), "{").unwrap();
    let fetch = |given: bool| {
        let mut command = hull.command(["fetch", &Image::standard().reference()]);
        if !given {
            command.env_remove("HULL_DIR");
        }
        hull_tests::hull::finish(command).success();
    };
    fetch(false);
    assert!(elsewhere.path().join("images").is_dir() && !hull.dir().join("images").exists());
    // The command line and the environment win.
    fetch(true);
    assert!(hull.dir().join("images").is_dir());
}

//! `hull image`: what is in the store, and how it leaves it.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use hull_tests::hull::finish;
use hull_tests::image::{Builder, Layer};
use hull_tests::{Flavour, Hull, Image};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// An image unlike the standard one, so that it has another id.
fn other(name: &str) -> Image {
    Builder::standard().layer(Layer::default().file(name, 0o644, name.as_bytes())).oci()
}

/// Fetches an image and gives its whole id.
fn fetch(hull: &Hull, image: &Image) -> String {
    hull.hull(&["fetch", "--full", "--insecure-options=image", &image.reference()])
        .success()
        .trim()
        .to_owned()
}

fn list(hull: &Hull, options: &[&str]) -> Vec<Vec<String>> {
    let text = hull.hull(&[&["image", "list", "--no-legend"], options].concat()).success();
    text.lines()
        .map(|line| line.split("  ").filter(|c| !c.is_empty()).map(|c| c.trim().to_owned()).collect())
        .collect()
}

fn ids(hull: &Hull) -> Vec<String> {
    list(hull, &["--full", "--fields=id"]).concat()
}

/// Every file of the store but those that are always there.
fn files(hull: &Hull) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![hull.dir().join("images")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.path().is_dir() {
                true => folders.push(entry.path()),
                false => found.push(entry.path().display().to_string()),
            }
        }
    }
    found.retain(|path| !path.ends_with("/images/lock"));
    found
}

#[test]
fn the_list_shows_what_was_asked_for() {
    let hull = Hull::new();
    assert_eq!(hull.hull(&["image", "list"]).success(), "ID  NAME  SIZE  IMPORT TIME  LAST USED\n");
    let (first, second) = (fetch(&hull, &Image::standard()), fetch(&hull, &other("etc/other")));
    let table = hull.hull(&["image", "list"]).success();
    let head: Vec<&str> = table.lines().next().unwrap().split("  ").filter(|cell| !cell.is_empty()).collect();
    assert_eq!(
        head.iter().map(|cell| cell.trim()).collect::<Vec<_>>(),
        ["ID", "NAME", "SIZE", "IMPORT TIME", "LAST USED"]
    );
    let row = &list(&hull, &[])[0];
    assert_eq!(row[0], first[.."sha256-".len() + 12]);
    assert!(
        row[1].starts_with("busybox") && row[2].ends_with("iB") && row[3].ends_with("ago") || row[3] == "now",
        "{row:?}"
    );
    // The oldest import first, unless something else is wished.
    assert_eq!(ids(&hull), [first.as_str(), &second]);
    let sorted = |options: &[&str]| list(&hull, &[&["--full", "--fields=id"], options].concat()).concat();
    assert_eq!(sorted(&["--order=desc"]), [second.as_str(), &first]);
    fetch(&hull, &Image::standard());
    assert_eq!(sorted(&["--sort=lastused"]), [second.as_str(), &first]);
    assert_eq!(sorted(&["--sort=name,size", "--order=desc"]), [second.as_str(), &first]);
    hull.hull(&["image", "list", "--fields=colour"]).failure(&["colour", "importtime"]);
}

#[test]
fn the_lists_json_has_rkts_keys() {
    let hull = Hull::new();
    assert_eq!(hull.hull(&["image", "list", "--format=json"]).success(), "[]\n");
    let id = fetch(&hull, &Image::standard());
    for format in ["--format=json", "--format=json-pretty"] {
        let list: Value = serde_json::from_str(&hull.hull(&["image", "list", format]).success()).unwrap();
        let image = list[0].as_object().unwrap();
        assert_eq!(image["id"], json!(id));
        assert!(image["name"].as_str().unwrap().starts_with("busybox"), "{image:?}");
        let nanoseconds = image["import_time"].as_u64().unwrap();
        assert!(nanoseconds > 1_700_000_000_000_000_000, "{nanoseconds}");
        assert!(image["last_used_time"].as_u64().unwrap() > 1_700_000_000_000_000_000, "{image:?}");
        assert!(image["size"].as_u64().unwrap() > 1 << 20, "{image:?}");
        for key in ["import_time_rfc3339", "last_used_time_rfc3339"] {
            assert!(image[key].as_str().unwrap().ends_with('Z'), "{image:?}");
        }
        assert_eq!(image.len(), 7);
    }
}

#[test]
fn a_manifest_is_printed_as_it_came() {
    let hull = Hull::new();
    let oci = fetch(&hull, &Image::standard());
    let plain = hull.hull(&["image", "cat-manifest", "--pretty-print=false", &oci]);
    assert_eq!(format!("sha256-{}", hull_tests::image::hex(&plain.stdout)), oci);
    let pretty = hull.hull(&["image", "cat-manifest", &oci]).success();
    assert!(pretty.contains("\n  \"config\": {"), "{pretty}");
    let value = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    assert_eq!(value(&pretty), value(&plain.stdout()));
    let config = value(&hull.hull(&["image", "cat-manifest", "--config", &oci]).success());
    assert_eq!(config["architecture"], "amd64");
    // An ACI says all in one document.
    let aci = fetch(&hull, &Builder::standard().aci());
    let manifest = value(&hull.hull(&["image", "cat-manifest", &aci]).success());
    assert_eq!(manifest["acKind"], "ImageManifest");
    hull.hull(&["image", "cat-manifest", "--config", &aci]).failure(&[&aci, "configuration"]);
    hull.hull(&["image", "cat-manifest", "nothing-like-it"])
        .failure(&["image cat-manifest: ", "nothing-like-it"]);
    hull.hull(&["image", "cat-manifest", "sha256-00ff"]).failure(&["sha256-00ff"]);
}

#[test]
fn what_is_removed_is_gone() {
    let hull = Hull::new();
    let (first, second) = (fetch(&hull, &Image::standard()), fetch(&hull, &other("etc/other")));
    let aci = fetch(&hull, &Builder::standard().aci());
    let ended = hull.hull(&["image", "rm", &first[..20]]);
    assert_eq!(ended.stderr(), "1 image(s) successfully removed\n");
    assert_eq!(ended.success(), format!("successfully removed image: \"{first}\"\n"));
    assert_eq!(ids(&hull), [second.as_str(), &aci]);
    // What two images share stays with the one that is left.
    let script = ["/bin/cat", "/etc/other"];
    let pod = [&["run", "--stage1=fly", &second, "--"], &script[..]].concat();
    assert_eq!(hull.hull(&pod).success(), "etc/other");
    hull.collect().success();
    // One that is not there does not keep the others.
    let ended = hull.hull(&["image", "rm", &second, "nothing-like-it", &aci]);
    ended.failure(&["nothing-like-it", "2 image(s) successfully removed"]);
    assert_eq!(ids(&hull), Vec::<String>::new());
    hull.hull(&["image", "rm", &first]).failure(&[&first]);
    hull.hull(&["image", "rm"]).failure(&["IMAGE"]);
    hull.hull(&["image", "gc", "--grace-period=0s"]).success();
    assert_eq!(files(&hull), Vec::<String>::new());
}

pub(crate) fn a_pod_keeps_its_image(flavour: Flavour) {
    let hull = Hull::new();
    let id = fetch(&hull, &Image::standard());
    let prepared = hull.hull(&["prepare", flavour.option(), &id, "--", "/bin/echo", "still here"]).success();
    let prepared = prepared.trim();
    let mut running = hull.start(
        flavour,
        "trap 'cat /etc/group; exit 3' TERM; echo ready; while :; do sleep 1000 & wait; done",
    );
    running.await_output("ready\n");
    hull.hull(&["image", "rm", &id]).failure(&[&id, "in use", prepared, "prepared", "running"]);
    hull.hull(&["image", "gc", "--grace-period=0s"]).success();
    assert_eq!(ids(&hull), [id.as_str()]);
    running.signal(Signal::SIGTERM);
    let ended = running.wait();
    assert_eq!((ended.code, ended.stdout().starts_with("root:")), (3, true), "{}", ended.stderr());
    assert_eq!(hull.hull(&["run-prepared", prepared]).success(), "still here\n");
    // What has ended needs nothing.
    hull.hull(&["image", "rm", &id]).success();
    assert_eq!(ids(&hull), Vec::<String>::new());
}

#[test]
fn collection_keeps_what_was_used_lately() {
    let hull = Hull::new();
    let id = fetch(&hull, &Image::standard());
    let gc = |grace: &str| hull.hull(&["image", "gc", &format!("--grace-period={grace}")]);
    let ended = finish(hull.command(["image", "gc"]));
    assert_eq!(
        (ended.stdout().as_str(), ended.stderr().as_str(), ended.code),
        ("", "nothing to remove\n", 0)
    );
    assert_eq!(gc("1h").success(), "");
    assert_eq!(ids(&hull), [id.as_str()]);
    let ended = gc("0s");
    assert!(ended.stderr().starts_with("removed 1 images, "), "{}", ended.stderr());
    assert_eq!(ended.success(), format!("successfully removed image: \"{id}\"\n"));
    assert_eq!(files(&hull), Vec::<String>::new());
    hull.hull(&["image", "gc", "--grace-period=soon"]).failure(&["soon"]);
}

#[test]
fn an_image_goes_out_as_it_came_in() {
    let hull = Hull::new();
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name).display().to_string();
    let export = |args: &[&str]| hull.hull(&[&["image", "export"], args].concat());
    let (oci, aci) = (fetch(&hull, &Image::standard()), fetch(&hull, &Builder::standard().aci()));
    export(&[&aci, &at("image.aci")]).success();
    export(&[&oci, &at("archive.tar")]).success();
    export(&[&oci, &format!("oci:{}", at("layout"))]).success();
    export(&["--format=oci", &oci, &at("layout:2")]).success();
    export(&["--format=aci", &aci, &at("other.aci")]).success();
    let again = Hull::new();
    let ids = ["image.aci", "archive.tar", "layout", "other.aci"].map(|name| {
        again.hull(&["fetch", "--full", "--insecure-options=image", &at(name)]).success().trim().to_owned()
    });
    assert_eq!(ids, [aci.as_str(), &oci, &oci, &aci]);
    assert!(place.path().join("layout:2/index.json").is_file());
    // Nothing is replaced unless that is wished.
    let before = fs::read(at("image.aci")).unwrap();
    export(&[&oci, &at("image.aci")]).failure(&["image export: ", "image.aci", "--overwrite"]);
    assert_eq!(fs::read(at("image.aci")).unwrap(), before);
    export(&["--overwrite", &oci, &at("image.aci")]).success();
    assert_ne!(fs::read(at("image.aci")).unwrap(), before);
    export(&["--format=aci", &oci, &at("wrong")]).failure(&["--format=oci-archive"]);
    export(&["--format=oci", &aci, &at("wrong")]).failure(&["App Container Image"]);
    export(&["nothing-like-it", &at("wrong")]).failure(&["nothing-like-it"]);
    assert!(!place.path().join("wrong").exists());
}

#[test]
fn an_images_files_are_written_to_a_folder() {
    let hull = Hull::new();
    let place = tempfile::tempdir().unwrap();
    let id = fetch(&hull, &Image::standard());
    for command in ["extract", "render"] {
        let folder = place.path().join(command);
        let to = folder.display().to_string();
        hull.hull(&["image", command, &id, &to]).success();
        assert!(folder.join("manifest").is_file());
        let root = folder.join("rootfs");
        assert_eq!(fs::read(root.join("bin/busybox")).unwrap(), fs::read("/bin/busybox").unwrap());
        assert_eq!(fs::read_link(root.join("bin/sh")).unwrap().to_str(), Some("busybox"));
        assert_eq!(fs::metadata(root.join("tmp")).unwrap().permissions().mode() & 0o7777, 0o1777);
        hull.hull(&["image", command, &id, &to]).failure(&[&to, "--overwrite"]);
        hull.hull(&["image", command, "--overwrite", "--rootfs-only", &id, &to]).success();
        assert!(folder.join("bin/busybox").is_file() && !folder.join("manifest").exists());
        hull.hull(&["image", command, "nothing-like-it", &to]).failure(&["nothing-like-it"]);
    }
}

#[test]
fn damage_is_found_and_mended_where_it_can_be() {
    let hull = Hull::new();
    let image = Image::standard();
    let id = fetch(&hull, &image);
    let verify = || hull.hull(&["image", "verify", &id]);
    assert_eq!(verify().success(), format!("successfully verified checksum for image: {id:?} ({id:?})\n"));
    let file_system = fs::read_dir(hull.dir().join("images/erofs")).unwrap().next().unwrap().unwrap().path();
    let whole = fs::read(&file_system).unwrap();
    let mut bytes = whole.clone();
    bytes[5000] ^= 1;
    fs::write(&file_system, bytes).unwrap();
    assert!(verify().success().starts_with("rebuilt the file system"));
    assert_eq!(fs::read(&file_system).unwrap(), whole);
    // A blob comes from nowhere but from where it came.
    let blobs = fs::read_dir(hull.dir().join("images/blobs/sha256")).unwrap().map(|e| e.unwrap().path());
    let largest = blobs.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    fs::write(&largest, b"damaged").unwrap();
    verify().failure(&["image verify: ", &id, "fetch the image again"]);
    hull.hull(&["image", "verify", "nothing-like-it"]).failure(&["nothing-like-it"]);
    assert_eq!(fetch(&hull, &image), id);
    verify().success();
}

//! The life of a store: names, lists, removal, collection.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fs::{self, File, FileTimes};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use hull_image::{Documents, Image, ImageId, ImageKind, Kind, NamedImage, Removal, Verification};
use serde_json::json;

use crate::support::{Layer, Place, archive, layout_files, oci_image, sha512, write_layout};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn aci(name: &str, version: Option<&str>, content: &str) -> Vec<u8> {
    let mut labels = vec![json!({"name": "os", "value": "linux"}), json!({"name": "arch", "value": "amd64"})];
    labels.extend(version.map(|version| json!({"name": "version", "value": version})));
    let manifest = json!({"acKind": "ImageManifest", "acVersion": "0.8.11", "name": name, "labels": labels});
    let layer = Layer::new().file("manifest", manifest.to_string().as_bytes()).directory("rootfs");
    layer.file("rootfs/content", content.as_bytes()).bytes()
}

fn import_aci(place: &Place, name: &str, version: Option<&str>, content: &str) -> Image {
    let path = place.write("image.aci", &aci(name, version, content));
    place.import(path.to_str().unwrap()).image
}

fn none() -> Result<BTreeSet<ImageId>, Infallible> {
    Ok(BTreeSet::new())
}

/// All files of a store, but for the lock.
fn files(store: &Path) -> BTreeSet<String> {
    let mut pending = vec![store.to_owned()];
    let mut found = BTreeSet::new();
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => pending.push(path),
                false => drop(found.insert(path.strip_prefix(store).unwrap().to_str().unwrap().to_owned())),
            }
        }
    }
    found.remove("lock");
    found
}

fn make_older(path: &Path, by: Duration) {
    let times = FileTimes::new().set_modified(SystemTime::now() - by);
    File::open(path).unwrap().set_times(times).unwrap();
}

fn make_image_older(place: &Place, id: &ImageId, by: Duration) {
    make_older(&place.path(&format!("store/manifests/{id}.json")), by);
}

fn make_blobs_older(place: &Place, by: Duration) {
    for algorithm in ["sha256", "sha512"] {
        for blob in fs::read_dir(place.path(&format!("store/blobs/{algorithm}"))).unwrap() {
            make_older(&blob.unwrap().path(), by);
        }
    }
}

#[test]
fn a_list_says_what_came_when_by_which_names_and_how_large_it_is() {
    let place = Place::new();
    let before = SystemTime::now();
    let layer = Layer::new().file("a", &[7; 100_000]).bytes();
    let image = place.import_layers(std::slice::from_ref(&layer));
    let store = place.store();
    for name in ["docker://docker.io/library/b:1", "docker://docker.io/library/a:1"] {
        store.put_name(&NamedImage::new(name, image.id.clone())).unwrap();
    }
    let [info] = &*store.list().unwrap() else { panic!("one image") };
    assert_eq!((&info.id, &info.name, info.kind), (&image.id, &image.name, ImageKind::Oci));
    assert_eq!(info.names, ["docker://docker.io/library/a:1", "docker://docker.io/library/b:1"]);
    assert!(!info.latest);
    assert!(before <= info.imported && info.imported <= SystemTime::now());
    // Once in its blob, once in its file system.
    assert!((200_000..300_000).contains(&info.size_bytes), "{}", info.size_bytes);
    make_image_older(&place, &image.id, DAY);
    assert!(store.list().unwrap()[0].last_used < before);
    store.touch(&image.id);
    assert!(store.list().unwrap()[0].last_used >= before);
}

#[test]
fn a_name_leads_to_the_last_image_put_there() {
    let place = Place::new();
    let one = import_aci(&place, "example.com/a", None, "one");
    let two = import_aci(&place, "example.com/a", None, "two");
    let store = place.store();
    assert_eq!(store.named("x").unwrap(), None);
    store.put_name(&NamedImage::new("x", one.id)).unwrap();
    let named = NamedImage { etag: Some("\"e\"".into()), ..NamedImage::new("x", two.id.clone()) };
    store.put_name(&named).unwrap();
    assert_eq!(store.named("x").unwrap(), Some(named));
    assert_eq!(store.lookup("x").unwrap().id, two.id);
    assert!(store.remove_name("x").unwrap());
    assert!(!store.remove_name("x").unwrap());
    assert_eq!(store.named("x").unwrap(), None);
}

#[test]
fn a_name_of_another_version_or_a_damaged_one_is_as_good_as_none() {
    let place = Place::new();
    let image = import_aci(&place, "example.com/a", None, "a");
    let store = place.store();
    store.put_name(&NamedImage::new("x", image.id)).unwrap();
    let path = fs::read_dir(place.path("store/names")).unwrap().next().unwrap().unwrap().path();
    let text = fs::read_to_string(&path).unwrap();
    for damaged in [text.replace("\"format\": 1", "\"format\": 99"), text[..20].to_owned(), String::new()] {
        fs::write(&path, damaged).unwrap();
        assert_eq!(store.named("x").unwrap(), None);
        assert_eq!(store.list().unwrap()[0].names, [""; 0]);
    }
    assert_eq!(store.gc(DAY, none).unwrap().names, 1);
    assert!(!path.exists());
}

#[test]
fn images_are_found_as_rkt_finds_them() {
    let place = Place::new();
    let old = import_aci(&place, "example.com/a", Some("1"), "1");
    let newer = import_aci(&place, "example.com/a", Some("2"), "2");
    let other = import_aci(&place, "example.com/b", None, "b");
    let oci = place.import_layers(&[Layer::new().file("f", b"").bytes()]);
    let store = place.store();
    let check = |text: &str, want: &Image| {
        assert_eq!(store.lookup(text).unwrap_or_else(|e| panic!("{e}")).id, want.id, "{text}");
    };
    check(old.id.as_str(), &old);
    check(&old.id.as_str()[.."sha512-".len() + 12], &old);
    check("example.com/a", &newer);
    check("example.com/a:1", &old);
    check("example.com/a,version=1,os=linux", &old);
    check("example.com/a:2,arch=amd64", &newer);
    check("example.com/b", &other);
    check("layout", &oci);
    // What was fetched without a version comes before what is newer.
    store
        .put_name(&NamedImage { latest: true, ..NamedImage::new("example.com/a,os=linux", old.id.clone()) })
        .unwrap();
    check("example.com/a", &old);
    check("example.com/a:2", &newer);
    store.put_name(&NamedImage::new("docker://docker.io/library/busybox:latest", oci.id.clone())).unwrap();
    for text in ["busybox", "busybox:latest", "docker.io/library/busybox", "docker://busybox"] {
        check(text, &oci);
    }
    for text in
        ["example.com/c", "example.com/a:3", "example.com/a,os=linux,version=7", "", "busybox:1", "sha512-00"]
    {
        let error = store.lookup(text).unwrap_err();
        assert_eq!(*error.kind(), Kind::NotFound, "{text}");
    }
}

#[test]
fn the_documents_are_those_that_came() {
    let place = Place::new();
    let image = oci_image(&[Layer::new().file("f", b"").bytes()]);
    let (config, manifest) = (image[1].1.clone(), image[2].1.clone());
    write_layout(&place.path("layout"), &image, &[]);
    let id = place.import(&format!("oci:{}", place.path("layout").display())).image.id;
    let documents = place.store().documents(&id).unwrap();
    assert_eq!(documents, Documents { manifest, config: Some(config) });
    let id = import_aci(&place, "example.com/a", None, "").id;
    let documents = place.store().documents(&id).unwrap();
    assert!(documents.manifest.starts_with(b"{") && documents.config.is_none());
    assert!(String::from_utf8(documents.manifest).unwrap().contains("\"name\":\"example.com/a\""));
}

#[test]
fn removal_takes_all_of_an_image_and_nothing_of_others() {
    let place = Place::new();
    let shared = Layer::new().file("shared", b"s").bytes();
    let one = place.import_layers(&[shared.clone(), Layer::new().file("one", b"1").bytes()]);
    let only_one = files(&place.path("store"));
    let two = place.import_layers(&[shared, Layer::new().file("two", b"2").bytes()]);
    let store = place.store();
    store.put_name(&NamedImage::new("two", two.id.clone())).unwrap();
    let used = || Ok::<_, Infallible>(BTreeSet::from([one.id.clone()]));
    let ids = [one.id.clone(), two.id.clone(), two.id];
    let removals = store.remove(&ids, used).unwrap();
    assert_eq!((removals[0], removals[2]), (Removal::InUse, Removal::Missing));
    assert!(matches!(removals[1], Removal::Removed { freed_bytes } if freed_bytes > 0), "{removals:?}");
    assert_eq!(files(&place.path("store")), only_one);
    assert!(matches!(store.remove(&ids[..1], none).unwrap()[0], Removal::Removed { .. }));
    assert_eq!(files(&place.path("store")), BTreeSet::new());
}

#[test]
fn a_collection_keeps_what_is_used_or_young_and_takes_the_rest() {
    let place = Place::new();
    let young = import_aci(&place, "example.com/young", None, "young");
    let used = import_aci(&place, "example.com/used", None, "used");
    let kept = files(&place.path("store"));
    let old = import_aci(&place, "example.com/old", None, "old");
    let store = place.store();
    make_image_older(&place, &used.id, 2 * DAY);
    make_image_older(&place, &old.id, 2 * DAY);
    make_blobs_older(&place, 2 * DAY);
    store.put_name(&NamedImage::new("old", old.id.clone())).unwrap();
    place.write(&format!("store/blobs/sha512/{}", sha512(b"young garbage")), b"young garbage");
    let garbage = place.write(&format!("store/blobs/sha512/{}", sha512(b"garbage")), b"garbage");
    let partial = place.write("store/partial/sha256-abc", b"part");
    for garbage in [&garbage, &partial] {
        make_older(garbage, 2 * DAY);
    }
    place.write(&format!("store/erofs/sha512-{}.erofs", sha512(b"lost")), b"");
    let in_use = || Ok::<_, Infallible>(BTreeSet::from([used.id.clone()]));
    let report = store.gc(DAY, in_use).unwrap();
    assert_eq!(report.images, [old.id]);
    assert_eq!((report.erofs, report.blobs, report.names), (2, 2, 1), "{report:?}");
    assert!(report.freed_bytes > 0);
    let mut left = files(&place.path("store"));
    assert!(left.remove(&format!("blobs/sha512/{}", sha512(b"young garbage"))));
    // All three came from one file, which holds the last of them.
    left.retain(|name| !name.starts_with("refs/"));
    assert_eq!(left, kept.into_iter().filter(|name| !name.starts_with("refs/")).collect());
    let report = store.gc(Duration::ZERO, none).unwrap();
    assert_eq!(report.images.len(), 2, "{report:?}");
    assert!(report.images.contains(&young.id));
    assert_eq!(files(&place.path("store")), BTreeSet::new());
}

#[test]
fn images_of_another_version_go_like_others_and_their_blobs_not_before_them() {
    let place = Place::new();
    let image = import_aci(&place, "example.com/a", None, "a");
    let path = place.path(&format!("store/manifests/{}.json", image.id));
    let text = fs::read_to_string(&path).unwrap();
    let other = json!({"format": 99, "things": [{"made of": format!("sha512:{}", &image.id.as_str()[7..])}]});
    fs::write(&path, other.to_string()).unwrap();
    make_blobs_older(&place, 2 * DAY);
    let store = place.store();
    assert_eq!(*store.get(&image.id).unwrap_err().kind(), Kind::NotFound);
    assert!(store.list().unwrap().is_empty());
    let report = store.gc(DAY, none).unwrap();
    assert_eq!((report.images.len(), report.blobs), (0, 0));
    // It is made anew when it is wanted, from the blobs there are.
    fs::write(&path, text.replace("\"format\": 2", "\"format\": 1")).unwrap();
    assert!(place.import(place.path("image.aci").to_str().unwrap()).converted);
    // One that says nothing is garbage at once.
    fs::write(&path, "{").unwrap();
    assert_eq!(store.gc(DAY, none).unwrap().images, [image.id]);
}

#[test]
fn a_file_system_of_an_older_conversion_is_made_anew_when_it_is_wanted() {
    let place = Place::new();
    let image = import_aci(&place, "example.com/a", None, "a");
    let (record, store) = (place.path(&format!("store/manifests/{}.json", image.id)), place.store());
    let want = fs::read(&image.erofs).unwrap();
    // As the first conversion left it: no word in the record, no word in the name.
    let age = || {
        let text = fs::read_to_string(&record).unwrap();
        let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
        value.as_object_mut().unwrap().remove("conversion").unwrap();
        value["erofs_size"] = json!(5);
        fs::write(&record, value.to_string()).unwrap();
        fs::remove_file(&image.erofs).unwrap();
        place.write(&format!("store/erofs/{}.erofs", image.id), b"older")
    };
    let old = age();
    assert_eq!(store.list().unwrap().len(), 1, "a list converts nothing");
    assert!(!image.erofs.exists());
    assert_eq!(store.get(&image.id).unwrap().erofs, image.erofs);
    assert_eq!(fs::read(&image.erofs).unwrap(), want);
    // A pod that was prepared with the old one has it until it goes.
    let in_use = || Ok::<_, Infallible>(BTreeSet::from([image.id.clone()]));
    store.gc(DAY, in_use).unwrap();
    assert!(old.exists());
    assert_eq!(store.gc(DAY, none).unwrap().erofs, 1);
    assert!(!old.exists() && image.erofs.exists());
    age();
    assert!(
        matches!(store.verify(&image.id).unwrap(), Verification::Rebuilt { why } if why.contains("another version"))
    );
    assert_eq!(store.verify(&image.id).unwrap(), Verification::Good);
    age();
    assert!(!place.import(place.path("image.aci").to_str().unwrap()).converted);
    assert_eq!(fs::read(&image.erofs).unwrap(), want);
}

#[test]
fn records_of_files_that_changed_go() {
    let place = Place::new();
    import_aci(&place, "example.com/a", None, "a");
    let store = place.store();
    // A file that has changed just now is not remembered.
    let deadline = Instant::now() + Duration::from_secs(10);
    while fs::read_dir(place.path("store/refs")).unwrap().count() == 0 {
        assert!(Instant::now() < deadline, "the file is never remembered");
        place.import(place.path("image.aci").to_str().unwrap());
    }
    assert_eq!(store.gc(DAY, none).unwrap().files, 0);
    fs::remove_file(place.path("image.aci")).unwrap();
    assert_eq!(store.gc(DAY, none).unwrap().files, 1);
}

/// Makers, users and collectors at once: who holds the store sees whole images only.
#[test]
fn nothing_goes_that_somebody_holds() {
    let place = Place::new();
    let names: Vec<String> = (0..3)
        .map(|n| {
            let image = oci_image(&[Layer::new().file("f", &[n; 5000]).bytes()]);
            let path = place.write(&format!("{n}.tar"), &archive(&layout_files(&image, &[])));
            path.to_str().unwrap().to_owned()
        })
        .collect();
    let root = place.path("store");
    std::thread::scope(|scope| {
        for name in &names {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..15 {
                        let store = place.store();
                        let _hold = store.hold().unwrap();
                        let image = place.import(name).image;
                        assert!(image.erofs.exists());
                        assert!(store.documents(&image.id).unwrap().config.is_some());
                    }
                });
            }
        }
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..30 {
                    place.store().gc(Duration::ZERO, none).unwrap();
                }
            });
        }
    });
    place.store().gc(Duration::ZERO, none).unwrap();
    assert_eq!(files(&root), BTreeSet::new());
}

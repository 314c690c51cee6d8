//! Images made to break something. Each is refused with an error that names the entry, and leaves
//! nothing but verified blobs.

use std::fs;

use hull_image::{Kind, Reference};
use serde_json::json;
use tar::EntryType;

use crate::support::{Layer, Place, Said, blob, filter, oci_image, oci_image_with, shell, write_layout};

#[track_caller]
fn refuses_image(image: &[(String, Vec<u8>)], kind: Kind, want: &str) {
    let place = Place::new();
    write_layout(&place.path("layout"), image, &[]);
    refuses(&place, kind, want);
}

#[track_caller]
fn refuses(place: &Place, kind: Kind, want: &str) {
    let reference = Reference::parse(&format!("oci:{}", place.path("layout").display())).unwrap();
    let error = place.store().import(&reference).unwrap_err();
    let text = hull_errors::chain(&error);
    assert!(text.contains(want), "{text}");
    assert_eq!(*error.kind(), kind, "{text}");
    for folder in ["tmp", "erofs", "manifests", "refs"] {
        let left = fs::read_dir(place.path("store").join(folder)).unwrap().count();
        assert_eq!(left, 0, "{folder} is empty after: {text}");
    }
}

#[track_caller]
fn refuses_layer(layer: Layer, want: &str) {
    refuses_image(&oci_image(&[layer.bytes()]), Kind::Corrupt, want);
}

#[test]
fn entries_that_lie() {
    let of = |kind| Said { kind, ..Said::default() };
    let new = Layer::new;
    refuses_layer(new().file("../x", b""), "entry `../x`: `../x` leads up by `..`");
    refuses_layer(new().file("a/../../x", b""), "entry `a/../../x`");
    refuses_layer(
        new().symlink("a", "/etc").file("a/passwd", b"x"),
        "entry `a/passwd`: `a` on its way is a symbolic link",
    );
    refuses_layer(new().file("a", b"").file("a/b", b"x"), "entry `a/b`: `a` on its way is not a directory");
    refuses_layer(new().hard_link("a", "../../etc/shadow"), "entry `a`: `../../etc/shadow` leads up");
    refuses_layer(
        new().hard_link("a", "/etc/shadow"),
        "entry `a`: its target `etc/shadow` is not in the image",
    );
    refuses_layer(
        new().symlink("s", "d").directory("d").file("d/f", b"").hard_link("a", "s/f"),
        "`s/f` is not in the image",
    );
    refuses_layer(new().directory("d").hard_link("a", "d"), "is a directory");
    refuses_layer(new().hard_link("a", "a"), "entry `a`: its target `a` is not in the image");
    refuses_layer(new().file(".wh.", b""), "a whiteout of no name");
    refuses_layer(new().file(".wh...", b""), "a whiteout of no name");
    refuses_layer(new().file(".wh.a/b", b""), "called like a whiteout");
    refuses_layer(new().file("./", b""), "in the place of the root directory");
    refuses_layer(new().symlink("/", "/etc"), "in the place of the root directory");
    refuses_layer(
        new().entry("a", &Said { target: "b", content: b"hidden", ..of(EntryType::Link) }),
        "6 bytes of content",
    );
    refuses_layer(
        new().entry("a", &Said { content: b"hidden", ..of(EntryType::Directory) }),
        "6 bytes of content",
    );
    refuses_layer(new().entry("a", &of(EntryType::Symlink)), "its target is empty");
    refuses_layer(
        new().entry("a", &Said { owner: (u64::from(u32::MAX), 0), ..of(EntryType::Regular) }),
        "its owner 4294967295 is too large",
    );
    refuses_layer(new().entry("a", &Said { owner: (0, 1 << 40), ..of(EntryType::Regular) }), "its group");
    refuses_layer(
        new().entry("a", &Said { pax: &[("uid", b"-1")], ..of(EntryType::Regular) }),
        "is no number",
    );
    refuses_layer(new().entry("a", &Said { device: (5000, 0), ..of(EntryType::Char) }), "device number");
    refuses_layer(
        new().entry("a", &Said { pax: &[("path", b"a\0b")], ..Said::default() }),
        "has a NUL inside",
    );
    refuses_layer(
        new().entry("a", &Said { pax: &[("path", &[b'n'; 256])], ..Said::default() }),
        "a part of more than 255 bytes",
    );
    refuses_layer(
        new().entry("a", &Said { pax: &[("path", &[b'/'; 5000])], ..Said::default() }),
        "at most 4095",
    );
    refuses_layer(
        new().entry("a", &Said { pax: &[("size", b"99999999999999")], ..Said::default() }),
        "at most",
    );
    refuses_layer(
        new().entry("a", &Said { pax: &[("size", b"5000")], ..Said::default() }),
        "ends in the middle",
    );
    refuses_layer(new().entry("a", &of(EntryType::new(b'D'))), "its type `D` is unknown");
    refuses_layer(new().entry("a", &of(EntryType::GNUSparse)), "sparse");
    refuses_layer(
        new().entry("g", &Said { content: b"12 uid=1000\n", ..of(EntryType::XGlobalHeader) }),
        "a global pax header sets `uid`",
    );
    refuses_layer(
        new().entry("L", &Said { content: b"a\0", ..of(EntryType::GNULongName) }),
        "ends after an extended header",
    );
    refuses_layer(
        new()
            .entry("L", &Said { content: b"long\0", ..of(EntryType::GNULongName) })
            .entry("a", &Said { pax: &[("path", b"other")], ..Said::default() }),
        "given twice",
    );
    refuses_layer(
        new().entry("x", &Said { content: &vec![b'x'; 2 << 20], ..of(EntryType::XHeader) }),
        "an extended header of 2097152 bytes",
    );
}

#[test]
fn a_link_of_a_lower_layer_is_replaced_not_followed() {
    let place = Place::new();
    let lower = Layer::new().directory("usr/").directory("usr/lib/").symlink("lib", "usr/lib").bytes();
    let upper = Layer::new().file("/lib/x", b"x").bytes();
    let image = place.import_layers(&[lower, upper]);
    let script = "mkdir \"$2\"; mount -t erofs \"$1\" \"$2\"; cd \"$2\"; find . ! -name . -printf '%P %y %m\\n' | sort";
    let got = shell(script, &[&image.erofs, &place.path("m")]);
    assert_eq!(got, "lib d 755\nlib/x f 644\nusr d 755\nusr/lib d 755\n");
}

#[test]
fn marks_of_overlayfs_do_not_get_through() {
    let place = Place::new();
    let said = Said {
        pax: &[("SCHILY.xattr.trusted.overlay.redirect", b"/etc"), ("SCHILY.xattr.user.kept", b"yes")],
        ..Said::default()
    };
    let image = place.import_layers(&[Layer::new().entry("a", &said).bytes()]);
    let script = "mkdir \"$2\"; mount -t erofs \"$1\" \"$2\"; tar --xattrs --xattrs-include='*' -C \"$2\" -cf - a | strings";
    let got = shell(script, &[&image.erofs, &place.path("m")]);
    assert!(got.contains("user.kept") && !got.contains("overlay"), "{got}");
}

#[test]
fn blobs_that_are_not_what_they_are_called() {
    let layer = || Layer::new().file("a", b"a").bytes();
    let mut image = oci_image(&[layer()]);
    image[0].1.push(0);
    refuses_image(&image, Kind::Corrupt, "more than the 2048 bytes announced");
    image[0].1.truncate(700);
    refuses_image(&image, Kind::Corrupt, "has 700 bytes, 2048 were announced");
    let mut image = oci_image(&[layer()]);
    image[0].1[600] ^= 1;
    refuses_image(&image, Kind::Corrupt, "has another digest");
    let mut image = oci_image(&[layer()]);
    let last = image.len() - 1;
    image[last].1[0] ^= 1;
    refuses_image(&image, Kind::Corrupt, "has another digest");
    image.remove(0);
    let mut image = oci_image(&[layer()]);
    image.remove(0);
    refuses_image(&image, Kind::Corrupt, "is missing");
    // The right blob, but not the layer that the configuration means.
    let image = oci_image_with(&[layer()], &json!({}), |_| ());
    let other = blob(Layer::new().file("b", b"b").bytes());
    let mut swapped = oci_image_with(&[layer()], &json!({}), |manifest| {
        manifest["layers"][0]["digest"] = json!(other.0);
        manifest["layers"][0]["size"] = json!(other.1.len());
    });
    assert_eq!(image.len(), swapped.len());
    swapped[0] = other;
    refuses_image(&swapped, Kind::Corrupt, "uncompressed it has the digest");
}

#[test]
fn manifests_that_make_no_sense() {
    let layer = || Layer::new().file("a", b"a").bytes();
    refuses_image(&oci_image(&[]), Kind::Corrupt, "it has no layers");
    refuses_image(
        &oci_image_with(&[layer()], &json!({}), |m| m["layers"] = json!([])),
        Kind::Corrupt,
        "0 layers, its configuration 1",
    );
    refuses_image(
        &oci_image_with(&[layer()], &json!({}), |m| m["schemaVersion"] = json!(1)),
        Kind::Unsupported,
        "schema version is 1",
    );
    let odd = |m: &mut serde_json::Value| {
        m["config"]["mediaType"] = json!("application/vnd.cncf.helm.config.v1+json");
    };
    refuses_image(&oci_image_with(&[layer()], &json!({}), odd), Kind::Unsupported, "no container image");
    let odd = |m: &mut serde_json::Value| {
        m["layers"][0]["mediaType"] = json!("application/vnd.oci.image.layer.v1.tar+gzip+encrypted");
    };
    refuses_image(&oci_image_with(&[layer()], &json!({}), odd), Kind::Unsupported, "is of the type");
    let odd = |m: &mut serde_json::Value| m["config"]["digest"] = json!("sha256:../../../../etc/passwd");
    refuses_image(
        &oci_image_with(&[layer()], &json!({}), odd),
        Kind::Corrupt,
        "is no sha256 or sha512 digest",
    );
    // An empty document as configuration.
    let empty = blob(b"{}".to_vec());
    let mut image = oci_image_with(&[layer()], &json!({}), |m| {
        m["config"]["digest"] = json!(empty.0);
        m["config"]["size"] = json!(2);
    });
    image.insert(0, empty);
    refuses_image(&image, Kind::NotAnImage, "does not say for which os and architecture");
    refuses_image(
        &oci_image_with(&[layer()], &json!({"User": "a\0b"}), |_| ()),
        Kind::Corrupt,
        "a NUL inside",
    );
}

#[test]
fn indexes_inside_each_other_end() {
    let place = Place::new();
    let mut image = oci_image(&[Layer::new().file("a", b"a").bytes()]);
    let (mut digest, mut bytes) = image.last().unwrap().clone();
    let mut kind = crate::support::MANIFEST;
    for _ in 0..6 {
        let index = json!({"schemaVersion": 2, "manifests": [{"mediaType": kind, "digest": digest, "size": bytes.len()}]});
        (digest, bytes) = crate::support::document(&index);
        kind = "application/vnd.oci.image.index.v1+json";
        image.push((digest.clone(), bytes.clone()));
    }
    write_layout(&place.path("layout"), &image, &[]);
    fs::write(place.path("layout/index.json"), &bytes).unwrap();
    refuses(&place, Kind::Corrupt, "more than 4 indexes inside each other");
}

#[test]
fn wrong_platforms_are_named() {
    let place = Place::new();
    write_layout(&place.path("layout"), &oci_image(&[]), &[]);
    let index = json!({"schemaVersion": 2, "manifests": [
        {"mediaType": crate::support::MANIFEST, "digest": format!("sha256:{}", "0".repeat(64)), "size": 1,
         "platform": {"os": "linux", "architecture": "s390x"}}]});
    fs::write(place.path("layout/index.json"), serde_json::to_vec(&index).unwrap()).unwrap();
    refuses(&place, Kind::WrongPlatform, "it is for linux/s390x, this host needs linux/amd64");
}

/// A layer whose file claims 70 GiB, of zeros that gzip to little.
#[test]
fn bombs_are_refused_by_what_they_claim() {
    let huge = Layer::new().entry("bomb", &Said { pax: &[("size", b"75161927680")], ..Said::default() });
    refuses_layer(huge, "entry `bomb`: 75161927680 bytes, at most 68719476736");
    // A sparse file costs its archive nothing.
    let sparse = Said {
        pax: &[
            ("GNU.sparse.major", b"0"),
            ("GNU.sparse.minor", b"1"),
            ("GNU.sparse.name", b"hollow"),
            ("GNU.sparse.size", b"75161927680"),
            ("GNU.sparse.map", b"0,1"),
        ],
        content: b"x",
        ..Said::default()
    };
    let image = oci_image(&[Layer::new().entry("hollow", &sparse).bytes()]);
    refuses_image(&image, Kind::TooLarge, "the image exceeds 68719476736 bytes");
    // Truncated and damaged streams of each compressor, digests right.
    for program in ["gzip", "zstd", "xz", "bzip2"] {
        let plain = Layer::new().file("a", &[b'a'; 100_000]).bytes();
        let packed = filter(&[program, "-c"], &plain);
        let cut = blob(packed[..packed.len() / 2].to_vec());
        let mut image = oci_image_with(&[plain], &json!({}), |m| {
            m["layers"][0]["digest"] = json!(cut.0);
            m["layers"][0]["size"] = json!(cut.1.len());
        });
        image[0] = cut;
        refuses_image(&image, Kind::Corrupt, "layer sha256:");
    }
}

//! Images that leave the store again, and images that were damaged in it. Needs skopeo and umoci.

use std::convert::Infallible;
use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use hull_image::{Existing, ExportTo, Kind, Parts, Verification};
use serde_json::json;
use tar::EntryType;

use crate::support::{
    Layer, Place, Said, archive, blob, compare_with_folder, converter, document, example, filter,
    layout_files, oci_image, shell, write_layout,
};

/// One of everything that a file system can hold.
fn everything() -> Layer {
    let capability: &[u8] = &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let long = "n".repeat(255);
    let deep = format!("{}f", "d/".repeat(1500));
    let sparse = vec![0; 1 << 20];
    let many = (0..300).fold(Layer::new(), |layer, n| layer.file(&format!("many/{n}"), b""));
    many.directory("etc")
        .entry(
            "etc/closed",
            &Said { kind: EntryType::Directory, mode: 0o0, owner: (1, 2), ..Said::default() },
        )
        .file("etc/closed/file", b"in a folder that nobody may enter")
        .entry(
            "setuid",
            &Said { mode: 0o6755, owner: (70_000, 3_000_000_000), content: b"s", ..Said::default() },
        )
        .entry("sticky", &Said { kind: EntryType::Directory, mode: 0o1777, ..Said::default() })
        .entry(
            "capable",
            &Said {
                content: b"c",
                pax: &[("SCHILY.xattr.security.capability", capability)],
                ..Said::default()
            },
        )
        .entry("user", &Said { content: b"u", pax: &[("SCHILY.xattr.user.a", b"b")], ..Said::default() })
        .entry("x", &Said { content: b"", pax: &[("path", long.as_bytes())], ..Said::default() })
        .entry("x", &Said { content: b"deep", pax: &[("path", deep.as_bytes())], ..Said::default() })
        .file("sparse", &[&sparse[..], b"end"].concat())
        .file("large", &[0x5a; 3_000_001])
        .hard_link("again", "setuid")
        .hard_link("etc/again", "large")
        .symlink("link", "/etc/passwd")
        .symlink("etc/dangling", "../../../nowhere")
        .hard_link("link2", "link")
        .entry("null", &Said { kind: EntryType::Char, mode: 0o666, device: (1, 3), ..Said::default() })
        .entry("disk", &Said { kind: EntryType::Block, mode: 0o660, device: (259, 300), ..Said::default() })
        .entry("fifo", &Said { kind: EntryType::Fifo, mode: 0o600, owner: (9, 9), ..Said::default() })
}

#[test]
fn extracted_files_are_those_that_the_kernel_sees() {
    let place = Place::new();
    let image = place.import_layers(&[everything().bytes()]);
    let folder = place.path("extracted");
    place.store().render(&image.id, &folder, Parts::RootFs, Existing::Keep).unwrap();
    compare_with_folder(&place, &image, &folder);
    let sparse = shell("stat -c %b \"$1/sparse\"", &[&folder]);
    assert!(sparse.trim().parse::<u64>().unwrap() < 1024, "{sparse} blocks of 512 bytes");
}

#[test]
fn documents_lie_beside_the_files() {
    let place = Place::new();
    let image = place.import_layers(&[Layer::new().file("a", b"a").bytes()]);
    let folder = place.path("all");
    place.store().extract(&image.id, &folder, Parts::All, Existing::Keep).unwrap();
    let documents = place.store().documents(&image.id).unwrap();
    assert_eq!(fs::read(folder.join("manifest")).unwrap(), documents.manifest);
    assert_eq!(Some(fs::read(folder.join("config")).unwrap()), documents.config);
    assert_eq!(fs::read(folder.join("rootfs/a")).unwrap(), b"a");
    assert_eq!(folder.metadata().unwrap().permissions().mode() & 0o777, 0o755);
}

#[test]
fn what_is_there_is_replaced_whole_or_not_at_all() {
    let place = Place::new();
    let image = place.import_layers(&[Layer::new().file("new", b"").bytes()]);
    let store = place.store();
    let (folder, file) = (place.path("folder"), place.path("file"));
    fs::create_dir_all(folder.join("old/deep")).unwrap();
    fs::write(&file, "old").unwrap();
    let render = |existing| store.render(&image.id, &folder, Parts::RootFs, existing);
    let export = |path: &Path, existing| store.export(&image.id, &ExportTo::Path(path.into()), existing);
    for error in [render(Existing::Keep).unwrap_err(), export(&file, Existing::Keep).unwrap_err()] {
        assert!(error.to_string().contains("--overwrite"), "{error}");
    }
    assert!(folder.join("old/deep").is_dir());
    assert_eq!(fs::read(&file).unwrap(), b"old");
    assert!(export(&folder, Existing::Replace).unwrap_err().to_string().contains("a folder is there"));
    // What a killed one has left.
    fs::create_dir_all(place.path(".folder.hull/half")).unwrap();
    fs::write(place.path(".file.hull"), "half").unwrap();
    render(Existing::Replace).unwrap();
    export(&file, Existing::Replace).unwrap();
    assert!(folder.join("new").exists() && !folder.join("old").exists());
    assert!(fs::metadata(&file).unwrap().len() > 1000);
    assert!(!place.path(".folder.hull").exists() && !place.path(".file.hull").exists());
}

#[test]
fn an_unprivileged_user_is_told_what_needs_root() {
    let place = Place::new();
    let image = place.import_layers(&[Layer::new().file("usr/bin/su", b"").bytes()]);
    let script = "chmod 755 \"$1\"; mkdir \"$1/out\"; chown -R 1000:1000 \"$1/out\" \"$1/store\"
        cp \"$2\" \"$1/store-example\"
        setpriv --reuid=1000 --regid=1000 --clear-groups \"$1/store-example\" \"$3\" \"$1/store\" render \"$4\" \"$1/out/x\" 2>&1 && exit 1
        ls -A \"$1/out\"";
    let got =
        shell(script, &[&place.path(""), &example("store"), &converter(), Path::new(image.id.as_str())]);
    assert!(got.contains("`usr/bin/su`: give it to user 0 and group 0 (only root"), "{got}");
    assert_eq!(got.lines().count(), 1, "{got}");
}

#[test]
fn an_aci_comes_out_as_it_came() {
    let place = Place::new();
    let manifest = json!({"acKind": "ImageManifest", "acVersion": "0.8.11", "name": "example.com/a",
        "labels": [{"name": "os", "value": "linux"}, {"name": "arch", "value": "amd64"}]});
    let aci = Layer::new()
        .file("manifest", manifest.to_string().as_bytes())
        .directory("rootfs")
        .file("rootfs/a", b"a");
    let aci = aci.bytes();
    let path = place.write("in.aci", &filter(&["gzip"], &aci));
    let image = place.import(path.to_str().unwrap()).image;
    let store = place.store();
    let out = place.path("out.aci");
    store.export(&image.id, &ExportTo::Path(out.clone()), Existing::Keep).unwrap();
    assert_eq!(fs::read(out).unwrap(), aci);
    let refused = store.export(&image.id, &"oci:x".parse().unwrap(), Existing::Keep).unwrap_err();
    assert_eq!(*refused.kind(), Kind::Unsupported);
}

#[test]
fn other_tools_read_what_is_exported() {
    let place = Place::new();
    let image = oci_image(&[Layer::new().file("a", b"a").bytes(), Layer::new().file("b", b"b").bytes()]);
    let image = {
        write_layout(&place.path("layout"), &image, &[]);
        place.import(&format!("oci:{}", place.path("layout").display())).image
    };
    let store = place.store();
    let (layout, archive) = (place.path("out"), place.path("out.tar"));
    let to = |text: &str, path: &Path| format!("{text}:{}:v1", path.display()).parse::<ExportTo>().unwrap();
    store.export(&image.id, &to("oci", &layout), Existing::Keep).unwrap();
    store.export(&image.id, &to("oci-archive", &archive), Existing::Keep).unwrap();
    let script = "skopeo inspect --raw \"oci:$1:v1\" | sha256sum; skopeo inspect --raw \"oci-archive:$2:v1\" | sha256sum
        umoci unpack --image \"$1:v1\" \"$3\" 2>/dev/null; cat \"$3\"/rootfs/{a,b}; mkdir \"$3/tar\"; tar -xf \"$2\" -C \"$3/tar\"; diff -r \"$1\" \"$3/tar\"";
    let got = shell(script, &[&layout, &archive, &place.path("unpacked")]);
    let digest = &image.id.as_str()["sha256-".len()..];
    assert_eq!(got, format!("{digest}  -\n{digest}  -\nab"));
    // The same again gives the same bytes; and hull itself finds the same image.
    let again = place.path("again.tar");
    store.export(&image.id, &to("oci-archive", &again), Existing::Keep).unwrap();
    assert!(fs::read(&archive).unwrap() == fs::read(&again).unwrap());
    assert_eq!(place.import(archive.to_str().unwrap()).image.id, image.id);
}

#[test]
fn what_docker_saved_gets_a_manifest() {
    let place = Place::new();
    let layer = Layer::new().file("a", b"a").bytes();
    let config = document(&json!({"os": "linux", "architecture": "amd64", "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [blob(layer.clone()).0]}}));
    let name = format!("{}.json", &config.0["sha256:".len()..]);
    let manifest = json!([{"Config": name, "RepoTags": ["a:1"], "Layers": ["layer.tar"]}]).to_string();
    let saved =
        [("layer.tar".into(), layer), (name, config.1), ("manifest.json".into(), manifest.into_bytes())];
    let path = place.write("saved.tar", &archive(&saved));
    let image = place.import(path.to_str().unwrap()).image;
    let out = place.path("out.tar");
    place.store().export(&image.id, &ExportTo::Path(out.clone()), Existing::Keep).unwrap();
    let again = place.import(out.to_str().unwrap()).image;
    assert_eq!(again.config, image.config);
    let got =
        shell("skopeo copy -q \"oci-archive:$1\" \"dir:$2\"; ls \"$2\" | wc -l", &[&out, &place.path("dir")]);
    assert_eq!(got.trim(), "4");
}

#[test]
fn a_damaged_file_system_is_built_again_from_good_blobs() {
    let place = Place::new();
    let image = place.import_layers(&[Layer::new().file("a", &[7; 10_000]).bytes()]);
    let store = place.store();
    assert_eq!(store.verify(&image.id).unwrap(), Verification::Good);
    let right = fs::read(&image.erofs).unwrap();
    let damages: [(&str, &dyn Fn()); 3] = [
        ("differs at byte 5000", &|| {
            let file = fs::OpenOptions::new().write(true).open(&image.erofs).unwrap();
            file.write_all_at(b"x", 5000).unwrap();
        }),
        ("has 100 bytes, not 2097152", &|| {
            fs::OpenOptions::new().write(true).open(&image.erofs).unwrap().set_len(100).unwrap();
        }),
        ("is missing", &|| fs::remove_file(&image.erofs).unwrap()),
    ];
    for (want, damage) in damages {
        damage();
        match store.verify(&image.id).unwrap() {
            Verification::Rebuilt { why } => assert!(why.contains(want), "{why}"),
            Verification::Good => panic!("{want}"),
        }
        assert!(fs::read(&image.erofs).unwrap() == right, "{want}");
        assert_eq!(store.verify(&image.id).unwrap(), Verification::Good);
    }
    assert_eq!(store.check().unwrap(), hull_image::Findings::default());
}

#[test]
fn a_damaged_blob_is_thrown_away_and_comes_again() {
    let place = Place::new();
    let image = oci_image(&[Layer::new().file("a", b"a").bytes()]);
    for (digest, bytes) in &image {
        let path = place.write("image.tar", &archive(&layout_files(&image, &[])));
        let imported = place.import(path.to_str().unwrap()).image;
        let blob = place.path(&format!("store/blobs/{}", digest.replace(':', "/")));
        fs::write(&blob, [&bytes[1..], b"!"].concat()).unwrap();
        let error = place.store().export(&imported.id, &ExportTo::Path(place.path("out")), Existing::Replace);
        assert_eq!(*error.unwrap_err().kind(), Kind::Corrupt);
        assert!(!place.path("out").exists() && !place.path(".out.hull").exists());
        let error = place.store().verify(&imported.id).unwrap_err();
        assert_eq!(*error.kind(), Kind::Corrupt);
        assert!(
            error.to_string().contains(digest) && error.to_string().contains("fetch the image again"),
            "{error}"
        );
        assert_eq!(place.store().check().unwrap().broken.len(), 1);
        assert!(place.import(path.to_str().unwrap()).converted);
        assert_eq!(place.store().verify(&imported.id).unwrap(), Verification::Good);
        let none = || Ok::<_, Infallible>(std::collections::BTreeSet::new());
        place.store().remove(&[imported.id], none).unwrap();
    }
}

#[test]
fn tools_are_there() {
    for tool in ["skopeo", "umoci"] {
        let found = Command::new(tool).arg("--version").output();
        assert!(found.is_ok_and(|found| found.status.success()), "install {tool}");
    }
}

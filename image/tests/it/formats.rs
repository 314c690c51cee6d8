//! One image in each of its wrappings.

use std::fs;
use std::path::Path;

use hull_image::{ImageConfig, MountPoint, Port};
use serde_json::{Value, json};
use tar::EntryType;

use crate::support::{
    Layer, Place, Said, archive, blob, document, filter, layout_files, oci_image, oci_image_with, sha256,
    sha512, shell, write_layout,
};

fn layers() -> Vec<Vec<u8>> {
    vec![
        Layer::new().file("a", b"lower").file("b", b"lower").bytes(),
        Layer::new().file("b", b"upper").bytes(),
    ]
}

/// Imports twice: the first time converts, the second time does not. The files must be `want`.
#[track_caller]
fn check(place: &Place, reference: &str, id: &str, want: &str) {
    let first = place.import(reference);
    assert!(first.converted, "{reference}");
    assert_eq!(first.image.id.as_str(), id, "{reference}");
    let second = place.import(reference);
    assert!(!second.converted, "{reference}");
    assert_eq!((second.image.id, second.image.config), (first.image.id.clone(), first.image.config));
    let script =
        "fsck.erofs \"$1\" >&2; mkdir -p \"$2\"; mount -t erofs \"$1\" \"$2\"; cd \"$2\"; grep -r . | sort";
    assert_eq!(shell(script, &[&first.image.erofs, &place.path("m")]), want, "{reference}");
    assert!(!place.import(&id[..20]).converted);
    assert!(fs::read_dir(place.path("store/tmp")).unwrap().next().is_none());
    fs::remove_dir_all(place.path("store")).unwrap();
}

fn reference(scheme: &str, path: &Path, tag: &str) -> String {
    format!("{scheme}{}{tag}", path.display())
}

const MERGED: &str = "a:lower\nb:upper\n";

#[test]
fn oci_layouts_and_archives() {
    let place = Place::new();
    let image = oci_image(&layers());
    let id = image.last().unwrap().0.replace(':', "-");
    write_layout(&place.path("layout"), &image, &["one", "two"]);
    let folder = place.path("layout");
    check(&place, &reference("oci:", &folder, ":one"), &id, MERGED);
    let archive = archive(&layout_files(&image, &["one"]));
    let plain = place.write("image.tar", &archive);
    let compressed = place.write("image.tar.gz", &filter(&["gzip"], &archive));
    check(&place, &reference("oci-archive:", &plain, ":one"), &id, MERGED);
    check(&place, &reference("oci-archive:", &compressed, ""), &id, MERGED);
    check(&place, &reference("", &plain, ""), &id, MERGED);
    write_layout(&place.path("single"), &image, &[]);
    check(&place, &reference("", &place.path("single"), ""), &id, MERGED);
}

#[test]
fn compressed_layers() {
    for (program, kind) in [("gzip", "+gzip"), ("zstd", "+zstd")] {
        let place = Place::new();
        let plain = layers();
        let compressed: Vec<_> = plain.iter().map(|layer| blob(filter(&[program, "-c"], layer))).collect();
        let mut image = oci_image_with(&plain, &json!({}), |manifest| {
            for (layer, (digest, bytes)) in
                manifest["layers"].as_array_mut().unwrap().iter_mut().zip(&compressed)
            {
                *layer = json!({
                    "mediaType": format!("application/vnd.oci.image.layer.v1.tar{kind}"),
                    "digest": digest, "size": bytes.len(),
                });
            }
        });
        image.splice(..0, compressed);
        let id = image.last().unwrap().0.replace(':', "-");
        write_layout(&place.path("layout"), &image, &[]);
        check(&place, &reference("oci:", &place.path("layout"), ""), &id, MERGED);
    }
}

#[test]
fn an_index_is_searched_for_this_host() {
    let place = Place::new();
    let mut image = oci_image(&layers());
    let (digest, manifest) = image.last().unwrap().clone();
    let id = digest.replace(':', "-");
    let other = |os: &str, architecture: &str| {
        json!({"mediaType": crate::support::MANIFEST, "digest": format!("sha256:{}", "0".repeat(64)), "size": 1,
               "platform": {"os": os, "architecture": architecture}})
    };
    let index = document(&json!({"schemaVersion": 2, "manifests": [
        other("linux", "arm64"), other("unknown", "unknown"),
        {"mediaType": crate::support::MANIFEST, "digest": digest, "size": manifest.len(),
         "platform": {"os": "linux", "architecture": "amd64"}},
    ]}));
    image.push(index.clone());
    write_layout(&place.path("layout"), &image, &[]);
    let top = json!({"schemaVersion": 2, "manifests": [
        {"mediaType": "application/vnd.oci.image.index.v1+json", "digest": index.0, "size": index.1.len(),
         "annotations": {"io.containerd.image.name": "docker.io/library/x:latest"}},
    ]});
    fs::write(place.path("layout/index.json"), serde_json::to_vec(&top).unwrap()).unwrap();
    check(&place, &reference("oci:", &place.path("layout"), ""), &id, MERGED);
    assert_eq!(
        place.import(&reference("oci:", &place.path("layout"), "")).image.name,
        "docker.io/library/x:latest"
    );
}

/// What `docker save` wrote before it knew OCI; the second layer's file is a link, as skopeo makes them.
fn docker_archive() -> (Vec<u8>, String) {
    let layers = layers();
    let diff_ids: Vec<_> = layers.iter().map(|layer| format!("sha256:{}", sha256(layer))).collect();
    let (digest, config) = document(&json!({
        "os": "linux", "architecture": "amd64",
        "config": {"Cmd": ["sh"], "Entrypoint": null, "Env": null, "Labels": null},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }));
    let name = format!("{}.json", digest.strip_prefix("sha256:").unwrap());
    let manifest = json!([{"Config": name, "RepoTags": ["busybox:latest"], "Layers": ["one/layer.tar", "two/layer.tar"]}]);
    let config_entry = Said { content: &config, pax: &[("path", name.as_bytes())], ..Said::default() };
    let archive = Layer::new()
        .directory("one/")
        .file("one/layer.tar", &layers[0])
        .file("real.tar", &layers[1])
        .symlink("two/layer.tar", "../real.tar")
        .entry("x", &config_entry)
        .file("manifest.json", &serde_json::to_vec(&manifest).unwrap());
    (archive.bytes(), digest.replace(':', "-"))
}

#[test]
fn docker_archives() {
    let place = Place::new();
    let (archive, id) = docker_archive();
    let plain = place.write("saved.tar", &archive);
    let compressed = place.write("saved.tar.xz", &filter(&["xz"], &archive));
    check(&place, &reference("docker-archive:", &plain, ""), &id, MERGED);
    check(&place, &reference("docker-archive:", &plain, ":docker.io/library/busybox"), &id, MERGED);
    check(&place, &reference("docker-archive:", &compressed, ""), &id, MERGED);
    check(&place, &reference("", &plain, ""), &id, MERGED);
}

fn aci(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut manifest = json!({
        "acKind": "ImageManifest", "acVersion": "0.8.11", "name": "example.com/app",
        "labels": [{"name": "version", "value": "1.2"}, {"name": "os", "value": "linux"}, {"name": "arch", "value": "amd64"}],
        "app": {"exec": ["/bin/app", "-x"], "user": "100", "group": "/etc", "supplementaryGIDs": [7],
                "environment": [{"name": "A", "value": "1"}],
                "mountPoints": [{"name": "data", "path": "/data", "readOnly": true}],
                "ports": [{"name": "web", "protocol": "tcp", "port": 80}],
                "isolators": [{"name": "resource/memory", "value": {"limit": "1G"}}]},
    });
    change(&mut manifest);
    Layer::new()
        .file("manifest", &serde_json::to_vec(&manifest).unwrap())
        .directory("rootfs/")
        .file("rootfs/a", b"lower")
        .file("rootfs/.wh.b", b"no whiteout here")
        .hard_link("rootfs/b", "rootfs/a")
        .bytes()
}

#[test]
fn app_container_images() {
    let place = Place::new();
    let plain = aci(|_| ());
    let id = format!("sha512-{}", sha512(&plain));
    for (program, name) in [("cat", "a.aci"), ("gzip", "b.aci"), ("bzip2", "c.aci"), ("xz", "d.aci")] {
        let path = place.write(name, &filter(&[program], &plain));
        check(&place, &reference("", &path, ""), &id, ".wh.b:no whiteout here\na:lower\nb:lower\n");
    }
}

#[test]
fn a_changed_archive_is_noticed() {
    let place = Place::new();
    let path = place.write("a.aci", &aci(|_| ()));
    let first = place.import(&reference("", &path, "")).image;
    place.write("a.aci", &aci(|manifest| manifest["name"] = json!("example.com/bpp")));
    let second = place.import(&reference("", &path, ""));
    assert!(second.converted);
    assert_ne!(second.image.id, first.id);
}

#[test]
fn configurations_have_one_form() {
    let place = Place::new();
    let config = json!({
        "User": "web:www", "Env": ["PATH=/bin", "E=a=b", "N"], "Entrypoint": ["/e"], "Cmd": ["c"], "WorkingDir": "/w",
        "StopSignal": "SIGINT", "Labels": {"l": "v"}, "Volumes": {"/var/Lib/x": {}}, "ExposedPorts": {"53/udp": {}},
    });
    write_layout(&place.path("layout"), &oci_image_with(&layers(), &config, |_| ()), &["t"]);
    let image = place.import(&reference("oci:", &place.path("layout"), "")).image;
    assert_eq!(image.name, "layout:t");
    let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let port = |name: &str, protocol: &str, port| Port {
        name: name.into(),
        protocol: protocol.into(),
        port,
        count: 1,
        socket_activated: false,
    };
    let want = ImageConfig {
        entrypoint: texts(&["/e"]),
        command: texts(&["c"]),
        environment: vec![pair("PATH", "/bin"), pair("E", "a=b"), pair("N", "")],
        user: "web".into(),
        group: Some("www".into()),
        working_directory: "/w".into(),
        stop_signal: Some("SIGINT".into()),
        labels: [pair("l", "v")].into(),
        mount_points: vec![MountPoint {
            name: "volume-var-lib-x".into(),
            path: "/var/Lib/x".into(),
            read_only: false,
        }],
        ports: vec![port("53-udp", "udp", 53)],
        os: "linux".into(),
        architecture: "amd64".into(),
        ..ImageConfig::default()
    };
    assert_eq!(image.config, want);
    let path = place.write("a.aci", &aci(|_| ()));
    let image = place.import(&reference("", &path, "")).image;
    assert_eq!(image.name, "example.com/app:1.2");
    let want = ImageConfig {
        entrypoint: texts(&["/bin/app", "-x"]),
        environment: vec![pair("A", "1")],
        user: "100".into(),
        group: Some("/etc".into()),
        supplementary_gids: vec![7],
        working_directory: "/".into(),
        labels: [pair("version", "1.2"), pair("os", "linux"), pair("arch", "amd64")].into(),
        mount_points: vec![MountPoint { name: "data".into(), path: "/data".into(), read_only: true }],
        ports: vec![port("web", "tcp", 80)],
        isolators: vec![json!({"name": "resource/memory", "value": {"limit": "1G"}})],
        os: "linux".into(),
        architecture: "amd64".into(),
        ..ImageConfig::default()
    };
    assert_eq!(image.config, want);
}

#[test]
fn references_that_fit_nothing_say_what_there_is() {
    let place = Place::new();
    let fails = |reference: &str, want: &str| {
        let reference = hull_image::Reference::parse(reference).unwrap();
        let error = place.store().import(&reference).unwrap_err();
        let text = hull_errors::chain(&error);
        assert!(text.contains(want), "{text}");
    };
    write_layout(&place.path("layout"), &oci_image(&layers()), &["one", "two"]);
    let layout = place.path("layout");
    fails(&reference("oci:", &layout, ":three"), "no tag `three`, it has: one, two");
    fails(&reference("oci:", &place.path("nothing"), ""), "there is no such folder");
    fails(&reference("oci:", &place.path(""), ""), "no `index.json`");
    fails(&reference("", &place.path(""), ""), "no OCI layout");
    fails(&reference("", &place.path("nothing"), ""), "No such file");
    fails(&reference("", &place.write("text", b"hello"), ""), "no tar archive");
    fails(
        &reference("", &place.write("a.tar", &Layer::new().file("a", b"").bytes()), ""),
        "no ACI, no OCI archive",
    );
    let (saved, _) = docker_archive();
    let saved = place.write("saved.tar", &saved);
    fails(&reference("docker-archive:", &saved, ":alpine"), "no `alpine`, it has: busybox:latest");
    fails("sha256-abcdef", "the store has none with such an id");
    let dependent = aci(|m| m["dependencies"] = json!([{"imageName": "example.com/base"}]));
    fails(
        &reference("", &place.write("d.aci", &dependent), ""),
        "depends on other images, which are not imported but fetched",
    );
    let foreign = aci(|m| m["labels"][2]["value"] = json!("aarch64"));
    fails(
        &reference("", &place.write("f.aci", &foreign), ""),
        "bad arch \"aarch64\" for linux (must be one of: [amd64])",
    );
    let unlabelled = aci(|m| m["labels"] = json!([]));
    fails(&reference("", &place.write("u.aci", &unlabelled), ""), "missing os label in the image manifest");
    let (mut archive, _) = docker_archive();
    archive.truncate(archive.len() / 2);
    fails(&reference("docker-archive:", &place.write("t.tar", &archive), ""), "");
    let leading_out = Layer::new()
        .entry("x", &Said { kind: EntryType::Symlink, target: "../../etc/passwd", ..Said::default() })
        .file("manifest.json", b"[]");
    fails(
        &reference("docker-archive:", &place.write("l.tar", &leading_out.bytes()), ""),
        "leads out of the archive",
    );
}

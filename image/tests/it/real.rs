//! Images as the world makes them, compared with what GNU tar makes of their layers, file by file.
//!
//! A Debian root takes half a minute to make, so it is kept in `~/.cache/hull/roots`.

use std::fs;
use std::path::{Path, PathBuf};

use hull_image::Image;

use crate::support::{Place, compare_with_gnu_tar, shell};

/// A layer as GNU tar archives a tree that this script makes, and what hull makes of it.
fn archived(script: &str) {
    let place = Place::new();
    let tree = place.path("tree");
    fs::create_dir(&tree).unwrap();
    shell(&format!("cd \"$1\"; {script}"), &[&tree]);
    let archive = place.path("tree.tar");
    shell(
        "tar --numeric-owner --xattrs --xattrs-include='*' --format=posix -C \"$1\" -cf \"$2\" .",
        &[&tree, &archive],
    );
    let layers = [fs::read(archive).unwrap()];
    let image = place.import_layers(&layers);
    compare_with_gnu_tar(&place, &image, &layers);
}

/// The layers of an image in the OCI layout `layout`, uncompressed, the lowest first.
fn layers(place: &Place, layout: &Path) -> Vec<Vec<u8>> {
    let blob = |digest: &str| layout.join("blobs/sha256").join(digest.strip_prefix("sha256:").unwrap());
    let json =
        |path: PathBuf| -> serde_json::Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
    let index = json(layout.join("index.json"));
    let manifest = json(blob(index["manifests"][0]["digest"].as_str().unwrap()));
    let uncompressed = |layer: &serde_json::Value| {
        let plain = place.path("layer");
        shell("gzip -dc \"$1\" > \"$2\"", &[&blob(layer["digest"].as_str().unwrap()), &plain]);
        fs::read(plain).unwrap()
    };
    manifest["layers"].as_array().unwrap().iter().map(uncompressed).collect()
}

fn import(place: &Place, layout: &Path) -> Image {
    place.import(&format!("oci:{}:t", layout.display())).image
}

#[test]
fn busybox_with_a_link_for_each_applet() {
    archived(
        "mkdir bin etc; cp /bin/busybox bin; ./bin/busybox --install bin; ln -s busybox bin/again; echo root:x:0:0::/: > etc/passwd",
    );
}

#[test]
fn a_hundred_thousand_files() {
    archived("for d in $(seq 100); do mkdir d$d; (cd d$d; seq 1000 | split -l 1 -a 3 - f); done");
}

#[test]
fn file_capabilities_and_attributes() {
    archived(
        "cp /bin/busybox ping; setcap cap_net_raw+ep ping; cp ping other; setcap cap_net_bind_service,cap_sys_nice+eip other
         chmod 4755 other; touch acl; setfattr -n user.note -v 'a b' acl; setfattr -n trusted.x -v 0x00ff acl; mkdir d; chmod 2770 d; chown 70000:80000 d",
    );
}

#[test]
fn layers_of_umoci_with_whiteouts() {
    let place = Place::new();
    let layout = place.path("layout");
    shell(
        "umoci init --layout \"$1\"; umoci new --image \"$1:t\"
         change() { umoci unpack --image \"$1:t\" \"$2\" >&2; (cd \"$2/rootfs\"; eval \"$3\"); umoci repack --image \"$1:t\" \"$2\" >&2; rm -r \"$2\"; }
         change \"$1\" \"$2\" 'mkdir -p etc usr/lib usr/share/doc; cp /bin/busybox usr/lib/a; ln usr/lib/a usr/lib/b; touch etc/x etc/y usr/share/doc/z; ln -s usr/lib lib'
         change \"$1\" \"$2\" 'rm -r usr/share etc/x; echo new > etc/y; mkfifo etc/pipe; chown 5:6 usr/lib'
         change \"$1\" \"$2\" 'rm usr/lib/a lib; mkdir lib; mknod lib/null c 1 3; mkdir -p usr/share/again'",
        &[&layout, &place.path("bundle")],
    );
    let layers = layers(&place, &layout);
    assert_eq!(layers.len(), 3);
    compare_with_gnu_tar(&place, &import(&place, &layout), &layers);
}

#[test]
fn layers_of_buildah() {
    let place = Place::new();
    let context = place.path("context");
    fs::create_dir(&context).unwrap();
    shell(
        "cp /bin/busybox \"$1/busybox\"; mkdir \"$1/d\"; seq 1000 > \"$1/d/one\"; seq 2000 > \"$1/d/two\"
         printf '%s\\n' 'FROM scratch' 'COPY busybox /bin/' 'COPY d /data/' 'COPY --chown=7:8 d/one /data/' 'RUN [\"/bin/busybox\", \"rm\", \"/data/two\"]' 'RUN [\"/bin/busybox\", \"ln\", \"/data/one\", \"/linked\"]' > \"$1/Containerfile\"
         b() { buildah --root \"$2/root\" --runroot \"$2/run\" --storage-driver vfs \"${@:4}\" >&2; }
         b \"$@\" bud --layers --isolation chroot --format oci -t t \"$1\"
         b \"$@\" push --format oci t \"oci:$3:t\"",
        &[&context, &place.path("storage"), &place.path("layout")],
    );
    let layout = place.path("layout");
    let layers = layers(&place, &layout);
    assert!(layers.len() > 2, "{} layers", layers.len());
    compare_with_gnu_tar(&place, &import(&place, &layout), &layers);
}

#[test]
fn a_debian_root() {
    let cache = PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/hull/roots");
    let archive = cache.join("debian-minbase.tar");
    if !archive.exists() {
        fs::create_dir_all(&cache).unwrap();
        let unfinished = cache.join(format!("unfinished-{}.tar", std::process::id()));
        shell(
            // The machine's own sources: their keys are where they say.
            ". /etc/os-release
             sources=()
             for file in /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources; do
                 if [ -s \"$file\" ]; then sources+=(\"$file\"); fi
             done
             mmdebstrap --quiet --variant=minbase \"$VERSION_CODENAME\" \"$1\" \"${sources[@]}\" || { rm -f \"$1\"; exit 1; }
             mv \"$1\" \"$2\"",
            &[&unfinished, &archive],
        );
    }
    let place = Place::new();
    let layers = [fs::read(archive).unwrap()];
    let image = place.import_layers(&layers);
    compare_with_gnu_tar(&place, &image, &layers);
}

//! Converts arbitrary entries, and lets fsck.erofs judge what comes out.
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use hull_converter_protocol::{Algorithm, Digest, Flavour, ImageId, Layer};
use proptest::prelude::*;
use tempfile::TempDir;

use super::convert;
use crate::Error;

/// What an archive of these entries converts to; whatever comes out must satisfy `fsck.erofs`.
fn check(layers: &[Vec<u8>]) {
    let oci = |digest: &Digest| Flavour::Oci { diff_id: digest.clone() };
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("image");
    if converted(layers, oci, &path).is_ok() {
        fsck(&path);
    }
}

fn converted(
    layers: &[Vec<u8>],
    mut flavour: impl FnMut(&Digest) -> Flavour,
    path: &Path,
) -> Result<(), Error> {
    let described: Vec<_> = layers
        .iter()
        .map(|bytes| {
            let digest = Digest::of(Algorithm::Sha256, bytes);
            Layer { flavour: flavour(&digest), digest }
        })
        .collect();
    let files: Vec<_> = layers
        .iter()
        .map(|bytes| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(bytes).unwrap();
            file
        })
        .collect();
    let id = ImageId::from(&Digest::of(Algorithm::Sha256, b""));
    convert(&id, described.iter().zip(&files), &File::create_new(path).unwrap())
}

fn fsck(path: &Path) {
    let output = Command::new("fsck.erofs").arg(path).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// A few names, so that entries of different layers meet.
fn entry() -> impl Strategy<Value = (String, u8, String, Vec<u8>)> {
    let name = || "(a|b|.wh.a|.wh.b|.wh..wh..opq)(/(a|b|.wh.a|.wh..wh..opq)){0,3}";
    let kind = prop::sample::select(b"0001255346".to_vec());
    (name(), kind, name(), proptest::collection::vec(any::<u8>(), 0..20))
}

fn layer(entries: &[(String, u8, String, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, target, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::new(*kind));
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        if matches!(kind, b'1' | b'2') {
            header.as_mut_bytes()[157..157 + target.len()].copy_from_slice(target.as_bytes());
        }
        let content = if *kind == b'0' { content.as_slice() } else { &[] };
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, content).unwrap();
    }
    builder.into_inner().unwrap()
}

/// What a root made of App Container Images shows: `name kind content` of each file.
fn shown(images: &[(&str, &[&str], &[&str])]) -> String {
    let layers: Vec<_> = images.iter().map(|(entries, ..)| aci(entries)).collect();
    let mut images = images.iter();
    let flavour = |_: &Digest| {
        let (_, own, above) = images.next().unwrap();
        let list = |paths: &[&str]| paths.iter().map(ToString::to_string).collect();
        Flavour::Aci { whitelist: list(own), whitelist_above: list(above) }
    };
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("image");
    converted(&layers, flavour, &path).unwrap();
    fsck(&path);
    let script = "mkdir \"$1.d\"; mount -t erofs \"$1\" \"$1.d\"; cd \"$1.d\"
        find . -mindepth 1 | sort | while read -r f; do [ -d \"$f\" ] && echo -n \"$f/ \" || echo -n \"$f=$(cat \"$f\") \"; done";
    let output =
        Command::new("unshare").args(["-m", "bash", "-euc", script, "bash"]).arg(&path).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

/// `dir/`, `file=content`, `link>target`, one after the other.
fn aci(entries: &str) -> Vec<u8> {
    let entry = |entry: &str| {
        let file = |name: &str, kind, target: &str, content: &str| {
            let target = if target.is_empty() { String::new() } else { format!("rootfs/{target}") };
            (format!("rootfs/{name}"), kind, target, content.as_bytes().to_vec())
        };
        match (entry.split_once('='), entry.split_once('>')) {
            (Some((name, content)), _) => file(name, b'0', "", content),
            (_, Some((name, target))) => file(name, b'1', target, ""),
            _ => file(entry, b'5', "", ""),
        }
    };
    layer(&entries.split_whitespace().map(entry).collect::<Vec<_>>())
}

#[test]
fn whitelists_choose_what_shows_of_each_image() {
    let check = |images: &[(&str, &[&str], &[&str])], want| assert_eq!(shown(images), want, "{images:?}");
    let base = "etc/ etc/a=1 etc/b=2 bin/ bin/sh=3";
    check(&[(base, &[], &[])], "./bin/ ./bin/sh=3 ./etc/ ./etc/a=1 ./etc/b=2");
    // Its own list is about files.
    check(&[(base, &["/etc/a"], &[])], "./bin/ ./etc/ ./etc/a=1");
    // That of an image above is about everything, but for the way to what it names.
    check(&[(base, &[], &["/etc/a"])], "./etc/ ./etc/a=1");
    check(&[(base, &["/etc/a", "/bin/sh"], &["/etc/a"])], "./etc/ ./etc/a=1");
    // What does not show of the upper image lets the lower one through.
    check(
        &[(base, &[], &["/etc/a"]), ("etc/ etc/a=new etc/b=new", &["/etc/b"], &[])],
        "./etc/ ./etc/a=1 ./etc/b=new",
    );
    check(&[(base, &[], &[]), ("etc=file", &[], &[])], "./bin/ ./bin/sh=3 ./etc=file");
    // A link shows what it names, even if that has no name of its own.
    check(&[("etc/ etc/a=1 etc/c>etc/a etc/d>etc/c", &["/etc/d"], &[])], "./etc/ ./etc/d=1");
    check(&[("etc/ etc/a=1 etc/c>etc/a", &["/etc/a"], &[])], "./etc/ ./etc/a=1");
    check(&[("etc/ etc/a=1 etc/a=2 etc/c>etc/a", &["/etc/c"], &[])], "./etc/ ./etc/c=2");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn whatever_layers_make_is_a_sound_image(
        layers in proptest::collection::vec(proptest::collection::vec(entry(), 0..12), 1..4),
    ) {
        check(&layers.iter().map(|entries| layer(entries)).collect::<Vec<_>>());
    }

    #[test]
    fn mutated_layers_do_not_panic(
        entries in proptest::collection::vec(entry(), 1..6),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = layer(&entries);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        check(&[bytes]);
    }
}

//! Converts arbitrary entries, and lets fsck.erofs judge what comes out.
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use hull_converter_protocol::{Algorithm, Digest, Flavour, ImageId, Layer};
use proptest::prelude::*;
use tempfile::TempDir;

use super::convert;

/// What an archive of these entries converts to; whatever comes out must satisfy `fsck.erofs`.
fn check(layers: &[Vec<u8>]) {
    let folder = TempDir::new().unwrap();
    let described: Vec<_> = layers
        .iter()
        .map(|bytes| {
            let digest = Digest::of(Algorithm::Sha256, bytes);
            Layer { flavour: Flavour::Oci { diff_id: digest.clone() }, digest }
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
    let path = folder.path().join("image");
    let output = File::create_new(&path).unwrap();
    if convert(&id, described.iter().zip(&files), &output).is_ok() {
        fsck(&path);
    }
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

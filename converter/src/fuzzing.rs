//! Ways in for the fuzzer: each gives bytes from outside to one parser and forgets the answer.
//! Nothing else may use this module.

use std::cell::Cell;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;

use hull_converter_protocol::{Algorithm, Digest, Flavour, ImageId, Layer};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::convert::convert;
use crate::decompress::uncompressed;
use crate::tar_stream::{TarStream, fuzz_pax};

/// Most bytes of content that are read.
const CONTENT_MAX: u64 = 1 << 20;

/// An archive, entry by entry: headers, extended headers, sparse maps, contents.
pub fn entries(bytes: &[u8]) {
    let mut tar = TarStream::new(bytes, "archive");
    while let Ok(Some(_)) = tar.next_entry() {
        if tar.short_content(CONTENT_MAX).is_err() {
            return;
        }
    }
}

/// An extended header of the pax format.
pub fn pax(bytes: &[u8]) {
    fuzz_pax(bytes);
}

/// Compressed bytes of any format.
pub fn compressed(bytes: &[u8]) {
    let budget = Cell::new(CONTENT_MAX);
    if let Ok(plain) = uncompressed(bytes, &budget) {
        let _ = std::io::copy(&mut plain.take(CONTENT_MAX), &mut std::io::sink()); // Refusing is right.
    }
}

/// Layers, each an archive of its own, the lowest first: the image that they make, or `None` if they are refused.
pub fn conversion(layers: &[Vec<u8>]) -> Option<Vec<u8>> {
    let described = layers.iter().map(|bytes| {
        let digest = Digest::of(Algorithm::Sha256, bytes);
        Layer { flavour: Flavour::Oci { diff_id: digest.clone() }, digest }
    });
    let described: Vec<Layer> = described.collect();
    let files: Vec<File> = layers.iter().map(|bytes| file(bytes)).collect();
    let output = file(b"");
    let id = ImageId::from(&Digest::of(Algorithm::Sha256, b""));
    convert(&id, described.iter().zip(&files), &output).ok()?;
    let mut image = Vec::new();
    (&output).read_to_end(&mut image).expect("memory can be read");
    Some(image)
}

fn file(bytes: &[u8]) -> File {
    let file = memfd_create(c"fuzz", MFdFlags::MFD_CLOEXEC).expect("memory is a file");
    let file = File::from(file);
    file.write_all_at(bytes, 0).expect("memory can be written");
    file
}

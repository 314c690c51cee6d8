//! Ways in for the fuzzer: each gives bytes from outside to one parser and forgets the answer.
//! Nothing else may use this module.

use std::cell::Cell;
use std::io::Read;

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

//! For the fuzzer: parsers of what others wrote, each as a function of bytes.

use crate::{Destination, Record, conf};

/// A file of `net.d`.
pub fn configuration(bytes: &[u8]) {
    if let Ok(text) = str::from_utf8(bytes) {
        let _ = conf::parse(text, false); // That it comes back is all.
        let _ = conf::parse(text, true);
    }
}

/// What is said of whom a pod may speak to, and the record of a pod.
pub fn words(bytes: &[u8]) {
    if let Ok(text) = str::from_utf8(bytes) {
        let _ = text.parse::<Destination>(); // Likewise.
        let _ = serde_json::from_str::<Record>(text);
    }
}

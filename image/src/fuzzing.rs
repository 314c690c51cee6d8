//! Ways in for the fuzzer: each gives bytes from outside to one parser and forgets the answer.
//! Nothing else may use this module.

use crate::Reference;

/// Text of a command line.
pub fn reference(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Reference::parse(text); // Refusing is right; panicking is not.
    }
}

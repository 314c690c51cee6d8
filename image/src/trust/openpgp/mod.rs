//! OpenPGP: the keys that are trusted to sign App Container Images, and the detached signatures they make.
//!
//! Parsing and cryptography are Sequoia's; which of the things that OpenPGP can express count here is ours.

mod keys;
mod keystore;
mod packets;
mod scope;
mod signed;
#[cfg(test)]
mod tests;

pub use keys::PublicKey;
pub use keystore::Keystore;
pub use scope::Scope;
pub use signed::{Signed, Signer};

/// Most keys in one file, and most files of keys that are read.
pub(crate) const KEYS_MAX: usize = 1024;

/// Longest file of keys: a key with thousands of signatures on it is a few MiB.
pub const KEY_FILE_MAX: u64 = 8 << 20;

/// Longest signature: an RSA one of 4096 bits has 1200 bytes in armour.
pub const SIGNATURE_MAX: usize = 64 << 10;

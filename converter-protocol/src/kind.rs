//! What can go wrong with an archive, and who has to do something about it.

use serde::{Deserialize, Serialize};

/// What the one who asked branches on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// It is no archive, or not one of the expected make.
    NotAnImage,
    /// The archive contradicts itself, its digest, or its format.
    Corrupt,
    /// A limit of ours would be exceeded.
    TooLarge,
    /// The disk of the store is full.
    NoSpace,
    /// The host failed us.
    Host,
}

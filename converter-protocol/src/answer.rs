//! What may be answered.

use serde::{Deserialize, Serialize};

use crate::Kind;

/// How a job ended.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Answer {
    /// The file system is in the output, whole.
    Converted,
    /// All of the input went to the output.
    Uncompressed,
    Looked {
        holds: Holds,
        is_compressed: bool,
    },
    Listed(Vec<Member>),
    Manifest(String),
    /// The walls that this host does not have.
    Described {
        missing: Vec<String>,
    },
    /// Nothing came of it; `text` is a whole sentence about the archive, unescaped as it came.
    Failed {
        kind: Kind,
        text: String,
    },
}

/// What an archive seems to be, by its first member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Holds {
    /// What only an App Container Image begins with.
    Aci,
    Something,
    Nothing,
}

/// A file of an archive, or a link to one.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub struct Member {
    /// Printable ([`crate::shown`]), without `.`, `..` and slashes at either end.
    pub path: String,
    pub place: Place,
}

/// Where a member lies.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Place {
    /// In bytes from the archive's start.
    File { start: u64, size: u64 },
    /// The path of the member that the link leads to.
    Link(String),
}

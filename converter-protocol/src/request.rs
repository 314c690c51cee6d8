//! What may be asked.

use serde::{Deserialize, Serialize};

use crate::{Digest, ImageId};

/// One job. The files it is about come with it, in this order.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Turn layers into a file system. Files: the layers, lowest first; the output, empty and writable.
    Convert { id: ImageId, layers: Vec<Layer> },
    /// Uncompress the bytes from `start` up to `end`. Files: the input; where the plain bytes go (a pipe).
    Uncompress { name: String, start: u64, end: u64 },
    /// Say what an archive is. Files: the archive, compressed or not.
    Look { name: String },
    /// Say where each member lies. Files: the archive, not compressed.
    List { name: String },
    /// The manifest of an App Container Image. Files: the image, compressed or not.
    Manifest { name: String },
    /// Say what the jail lacks on this host. No files.
    Describe,
}

/// One layer: a tar archive, compressed or not.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub struct Layer {
    /// Of the blob, for errors.
    pub digest: Digest,
    pub flavour: Flavour,
}

/// How a layer is to be understood.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Flavour {
    /// Of an OCI or Docker image: names may be whiteouts, and the uncompressed archive has this digest.
    Oci { diff_id: Digest },
    /// An ACI: everything is below `rootfs`, but for the file `manifest`. Of its files only those show that
    /// both lists name (paths inside the root, with or without a slash before them); an empty list names
    /// everything. Directories show where they lead to something named.
    Aci {
        /// Its own `pathWhitelist`.
        whitelist: Vec<String>,
        /// The `pathWhitelist` of the uppermost image that has one among those that depend on this one.
        whitelist_above: Vec<String>,
    },
}

impl Flavour {
    /// An ACI all of whose files show.
    pub fn whole_aci() -> Self {
        Flavour::Aci { whitelist: Vec::new(), whitelist_above: Vec::new() }
    }
}

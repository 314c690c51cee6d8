//! Digests and image ids, which hull shares with the process that reads archives.

pub(crate) use hull_converter_protocol::{Algorithm, Digest, Hasher};
pub use hull_converter_protocol::{IdPrefix, ImageId};

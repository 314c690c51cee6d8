//! Images of registries: names, the distribution protocol (v1.1), credentials, mirrors.

mod name;

pub use name::Name;
pub(crate) use name::{canonical_host, looks_like_host};

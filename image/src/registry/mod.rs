//! Images of registries: names, the distribution protocol (v1.1), credentials, mirrors.

#[cfg_attr(not(test), expect(dead_code, reason = "the pull that looks into names comes next"))]
mod name;

pub use name::Name;
pub(crate) use name::{canonical_host, looks_like_host};

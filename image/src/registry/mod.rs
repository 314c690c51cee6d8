//! Images of registries: names, the distribution protocol (v1.1), credentials, mirrors.
//!
//! The protocol is spoken by `reqwest` and not by `oci-client`, which was read for this (0.18): it builds its HTTP
//! client itself (no certificate of ours, no limit on redirects, no proxies by the environment), reads manifests of
//! any length into memory, sends the credentials to whatever realm is named, over plain HTTP too, forgets what a token
//! server said, knows no identity tokens, and panics on a token that cannot be in a header.
//!
//! ```text
//! Name -> Registry::resolve -> Resolved       which manifest is meant; its signatures can be asked for
//!                              Resolved::pull -> Prepared       layers in the store
//! ```
//! What a registry says counts as far as a digest of ours confirms it. Only the step from a tag to a digest is the
//! registry's word (over TLS, unless `registries.conf` says `insecure`); signatures are what proves that one.

mod challenge;
mod endpoint;
pub(crate) mod fuzz;
mod name;
mod session;

pub use name::Name;
pub(crate) use name::{canonical_host, looks_like_host};
pub(crate) use session::{Registry, Resolved};

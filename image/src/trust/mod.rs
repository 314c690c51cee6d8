//! Whether an image may be used: signatures, the keys that count, and the policy for registries.
//!
//! Two worlds. App Container Images are signed with OpenPGP, and a key is trusted for names ([`openpgp`]). For images
//! of registries a policy says what each name needs ([`Policy`]): nothing, nothing at all will do, or a signature
//! that cosign made with a key ([`cosign`]). In both, what was once superseded does not come back ([`Rollback`]).

mod artifacts;
mod cosign;
pub(crate) mod fuzz;
mod identity;
pub mod openpgp;
mod policy;
mod rollback;
#[cfg(test)]
mod testing;
mod text;

pub(crate) use artifacts::Artifacts;
pub use policy::Policy;
pub(crate) use policy::{Admitted, Transport, Wanted};
pub use rollback::Rollback;

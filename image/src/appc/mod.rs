//! App Container Images beyond one file: names and labels, discovery, dependencies.

mod distribution;
mod name;

pub use distribution::Distribution;
pub(crate) use name::Identifier;
pub use name::Name;

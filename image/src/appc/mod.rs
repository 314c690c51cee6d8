//! App Container Images beyond one file: names and labels, discovery, dependencies.

#[allow(dead_code, reason = "fetching comes next")]
mod credentials;
mod distribution;
mod name;
#[allow(dead_code, reason = "fetching comes next")]
mod page;
#[allow(dead_code, reason = "fetching comes next")]
mod sigv4;

pub use distribution::Distribution;
pub(crate) use name::Identifier;
pub use name::Name;

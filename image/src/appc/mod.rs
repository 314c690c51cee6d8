//! App Container Images beyond one file: names and labels, discovery, dependencies.

mod claims;
mod credentials;
mod dependencies;
mod discovery;
mod distribution;
mod fetch;
pub(crate) mod fuzz;
mod name;
mod network;
mod page;
mod remote;
mod sigv4;
#[cfg(test)]
mod tests;
mod web;

pub use distribution::Distribution;
pub use fetch::AciFetcher;
pub use name::Name;
pub(crate) use name::{Identifier, Labels};

//! App Container Images beyond one file: names and labels, discovery, dependencies.

mod distribution;
mod name;

pub use distribution::Distribution;
pub use name::Name;

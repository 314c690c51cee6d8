//! The kit of the black-box tests: real binaries, real images, pods that are cleaned up.
//!
//! The binaries are taken from `HULL_BIN`, else from the release folder of this workspace's build.
#![forbid(unsafe_code)]

pub mod cosign;
pub mod gate;
pub mod hull;
pub mod image;
pub mod net;
pub mod probe;
pub mod registry;
pub mod signer;
pub mod terminal;
pub mod traces;
pub mod web;

pub use hull::{Ended, Flavour, Hull, Started};
pub use image::Image;

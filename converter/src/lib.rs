//! Reads archives: the code that meets bytes of strangers, for the process `hull-converter` alone.
//!
//! A layer is never unpacked on the host: entries become nodes of a [`tree`] in memory, contents become
//! blocks of the output ([`erofs`]), and names never reach a system call. The library is for the binary of
//! this crate and for fuzz targets; hull itself links only the protocol.
#![forbid(unsafe_code)]

mod attributes;
mod confinement;
mod convert;
mod decompress;
mod erofs;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod job;
mod list;
mod look;
mod scratch;
mod tar_stream;
mod tree;
mod whitelist;

pub use confinement::{calls, enter};
pub use error::Error;
pub use job::carry_out;

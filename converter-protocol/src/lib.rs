//! What hull asks of the process that reads archives, and what that answers.
//!
//! Archives come from strangers, so their parsers run in a process of their own, `hull-converter`: one
//! process a job. Its standard input is a socket ([`channel`]): the [`Request`] comes from there with the
//! files that the job is about, as open descriptors, and the [`Answer`] goes back.
//! Whoever asked believes no answer further than it can check: the process may have been taken over by
//! what it read.
#![forbid(unsafe_code)]

mod answer;
pub mod channel;
mod digest;
mod kind;
mod limits;
mod request;
mod text;
mod window;

pub use answer::{Answer, Holds, Member, Place};
pub use digest::{Algorithm, Digest, Hasher, Hashing, IdPrefix, ImageId};
pub use kind::Kind;
pub use limits::{
    ANSWER_MAX, BUFFER_SIZE, DOCUMENT_MAX, LAYERS_MAX, MEMBERS_MAX, REQUEST_MAX, UNCOMPRESSED_MAX,
};
pub use request::{Flavour, Layer, Request};
pub use text::{cut, shown};
pub use window::Window;

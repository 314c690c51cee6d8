//! Whole images in, mounted file systems out: needs root, `fsck.erofs` (erofs-utils), GNU tar, strace, the compressors.
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

mod conversion;
mod export;
mod formats;
mod hostile;
mod interruption;
mod real;
mod store;
mod support;

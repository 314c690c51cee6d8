//! The process that reads archives, as a whole: needs root, util-linux, the compressors.
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

mod hostile;
mod jail;
mod support;

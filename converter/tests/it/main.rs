//! The process that reads archives, as a whole: needs root, util-linux.
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

mod jail;

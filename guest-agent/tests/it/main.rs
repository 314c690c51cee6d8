//! The real agent in real namespaces on this host. Needs root, util-linux and busybox-static.

#![expect(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "the helpers of tests are in no test function themselves"
)]

mod again;
mod behaviour;
mod exec;
mod hostile;
mod rig;
mod streams;

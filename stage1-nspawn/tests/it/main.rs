//! The real stage1 and the real agent with a pod directory made by hand. Needs root, busybox-static and
//! erofs-utils.
#![expect(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "the helpers of tests are in no test function themselves"
)]

mod escape;
mod life;
mod rig;

//! The real agent in real namespaces on this host. Needs root, util-linux and busybox-static.

#![expect(unreachable_pub, reason = "the rig is one module of one binary")]

mod behaviour;
mod hostile;
mod rig;
mod streams;

//! The devices. No unsafe code from here down: what the guest says only ever reaches checked code.
#![forbid(unsafe_code)]

pub(crate) mod ioapic;
pub(crate) mod limit;
pub(crate) mod serial;
pub(crate) mod virtio;

//! The networks of a pod: from names to a network namespace with interfaces, addresses and rules, and back.
//!
//! ```text
//! stage0                      stage1, before the machine                 stage1 at the end, or gc
//! --net, --port ─▶ Networking ─ connect() ─▶ Connected (namespace, tap) ─ disconnect() ─▶ nothing
//!                               each step is in net-info.json first
//! ```
//! A namespace has no name: it lives as long as a process of the pod, and the kernel takes its interfaces, the
//! host's ends of them and the routes along with it. So an address is taken as long as the host has a route to
//! it, and what a killed pod leaves behind is its table of rules and what plugins keep in files; both are in the
//! record.
#![forbid(unsafe_code)]

mod builtin;
mod cni;
mod conf;
mod connect;
mod egress;
mod forwarding;
pub mod fuzzing;
mod link;
mod namespace;
mod netlink;
mod nft;
mod ports;
mod record;
mod request;
mod splice;

pub use conf::configured;
pub use connect::{Connected, connect};
pub use ipnet::IpNet;

pub use egress::{DESTINATIONS_MAX, Destination, Egress};
pub use forwarding::{has_ipv6, is_on};
pub use namespace::Namespace;
pub use nft::probe;
pub use ports::{Held, hold};
pub use record::{Attached, Dns, Record, Route, disconnect};
pub use request::{BuiltIn, Configured, Forward, Network, Networking, Plan, Protocol};

/// What callers branch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// What was asked for cannot be.
    Request,
    /// The host refused: a system call or a program failed.
    Host,
}

/// This crate's error.
pub type Error = hull_errors::Error<Kind>;

//! The words between a stage1 (the host end) and the agent, PID 1 of every pod (the guest end).
//!
//! One byte stream carries everything: a control channel of JSON messages ([`message`]) and one
//! channel of raw bytes for each standard stream of each app, all cut into [`frame`]s and held back
//! by a [`window`] for each channel, so that a slow reader of one stream stops only that stream.
//! [`host`] is what a stage1 believes about the agent. No policy and no I/O lives here.
#![forbid(unsafe_code)]

pub mod export;
pub mod frame;
pub mod host;
pub mod message;
pub mod spec;
pub mod window;

pub use frame::{Decoder, Frame};
pub use message::{
    AGENT_PORT, CONTROL_CHANNEL, DOORBELL_PORT, FromAgent, Outcome, PROCESS_CHANNEL_FIRST, ToAgent, VERSION,
};
pub use spec::{
    AppMetadata, AppSpec, ImageSource, InterfaceSpec, Limits, Metadata, MountSpec, NetSpec, PodSpec,
    ResourceLimit, Restart, RouteSpec, StandardStreams, TerminalSize, VolumeSource, VolumeSpec,
};

/// How a peer broke the protocol. The text names what was received; the peer is not trusted again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation(pub String);

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Violation {}

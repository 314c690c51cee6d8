//! Tells the service manager how the pod goes, where one has started it and wants to know (sd_notify(3)).

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The environment variable with the manager's socket.
pub(crate) const SOCKET: &str = "NOTIFY_SOCKET";

/// The manager's socket; none where nobody listens.
#[derive(Debug, Default)]
pub(crate) struct Manager(Option<SocketAddr>);

impl Manager {
    /// By the value of [`SOCKET`]: a path, or `@` and an abstract name (unix(7)).
    pub(crate) fn at(socket: Option<&str>) -> Self {
        Self(socket.and_then(|socket| match socket.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name).ok(),
            None => SocketAddr::from_pathname(socket).ok(),
        }))
    }

    /// Says it, if somebody listens.
    pub(crate) fn tell(&self, state: &str) {
        if let Some(address) = &self.0 {
            // A manager that is gone misses nothing.
            let _ = UnixDatagram::unbound().and_then(|socket| socket.send_to_addr(state.as_bytes(), address));
        }
    }
}

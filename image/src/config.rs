//! How an image wants to be run: one normal form for OCI, Docker and ACI.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::{Error, Kind};

/// What an image says about running it. The command line may override every part.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// The program and its first arguments; for an ACI all of `exec`.
    pub entrypoint: Vec<String>,
    /// Arguments that the user's arguments replace; always empty for an ACI.
    pub command: Vec<String>,
    /// `(name, value)` in the image's order.
    pub environment: Vec<(String, String)>,
    /// A name, a number, or (ACI) an absolute path whose owner is meant. Never empty.
    pub user: String,
    /// Likewise; `None` leaves it to the user's entry in `/etc/passwd`.
    pub group: Option<String>,
    /// Numeric groups beside those of `/etc/group`.
    pub supplementary_gids: Vec<u32>,
    /// Absolute.
    pub working_directory: String,
    /// A signal's name or number, as the image writes it.
    pub stop_signal: Option<String>,
    /// Labels (OCI, Docker), or the labels of the ACI's manifest (`version`, `os`, `arch`, …).
    pub labels: BTreeMap<String, String>,
    /// Places where the image expects a volume.
    pub mount_points: Vec<MountPoint>,
    /// Ports that the image says it listens on.
    pub ports: Vec<Port>,
    /// Of an ACI: `{"name": …, "value": …}`, as they came.
    pub isolators: Vec<serde_json::Value>,
    /// Of an ACI: programs to run around the app.
    pub event_handlers: Vec<EventHandler>,
    /// Of the manifest.
    pub annotations: BTreeMap<String, String>,
    /// In the words of Go: `linux`.
    pub os: String,
    /// In the words of Go: `amd64`.
    pub architecture: String,
}

/// A place where an image expects a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountPoint {
    pub name: String,
    /// Absolute path in the image.
    pub path: String,
    pub read_only: bool,
}

/// A range of ports that an image says it listens on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    pub name: String,
    /// `tcp`, `udp`, `sctp`.
    pub protocol: String,
    /// The first port.
    pub port: u16,
    /// How many ports, from the first on.
    pub count: u16,
    pub socket_activated: bool,
}

/// A program that runs before an app starts (`pre-start`) or after it ended (`post-stop`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventHandler {
    pub name: String,
    pub exec: Vec<String>,
}

/// The user who runs an app if the image names nobody.
pub(crate) const DEFAULT_USER: &str = "0";

/// What this host can run.
pub(crate) const HOST_OS: &str = "linux";

/// The host's architecture in the words of Go.
pub(crate) fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

impl ImageConfig {
    /// Refuses an image that this host cannot run, and text that no system call would take.
    pub(crate) fn check(self, image: &str) -> Result<Self, Error> {
        if self.os != HOST_OS || self.architecture != host_architecture() {
            let (os, architecture) = (self.os.escape_debug(), self.architecture.escape_debug());
            let host = host_architecture();
            let text = format!("image {image} is for {os}/{architecture}, this host needs {HOST_OS}/{host}");
            return Err(Error::new(Kind::WrongPlatform, text));
        }
        let environment = self.environment.iter().flat_map(|(name, value)| [name, value]);
        let paths = self.mount_points.iter().map(|m| &m.path);
        let handlers = self.event_handlers.iter().flat_map(|h| &h.exec);
        let texts =
            self.entrypoint.iter().chain(&self.command).chain(environment).chain(paths).chain(handlers);
        let singles = [&self.user, &self.working_directory].into_iter().chain(&self.group);
        if texts.chain(singles).any(|text| text.contains('\0')) {
            let text = format!("read the configuration of image {image}: a text has a NUL inside");
            return Err(Error::new(Kind::Corrupt, text));
        }
        Ok(self)
    }
}

/// `null` stands for an empty list or map in what Go programs write.
pub(crate) fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

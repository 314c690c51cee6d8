//! The pod manifest, as appc's `PodManifest` has it (appc spec 0.8.11, `spec/pods.md`): the file `pod`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{AppName, isolators};

/// The annotation that carries an image's stop signal, a name such as `SIGQUIT`; appc has no word for it.
pub const STOP_SIGNAL: &str = "hull/stop-signal";

/// The annotation that says when an app is started again, in the words of `--restart`.
pub const RESTART: &str = "hull/restart";

/// The annotation with the most that an app may write to its root, `64Mi`.
pub const ROOTFS_SIZE: &str = "hull/rootfs-size";

/// The annotation that says `true` where an empty volume begins with what the image has at its mount point, as
/// Docker has it.
pub const COPY_UP: &str = "hull/copy-up";

/// A pod: its apps and what they share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub ac_version: String,
    pub ac_kind: PodManifestKind,
    pub apps: Vec<RuntimeApp>,
    #[serde(default)]
    pub volumes: Vec<Volume>,
    #[serde(default)]
    pub isolators: Vec<Isolator>,
    #[serde(default)]
    pub annotations: Vec<NameValue>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub user_annotations: Vec<NameValue>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub user_labels: Vec<NameValue>,
    #[serde(default)]
    pub ports: Vec<ExposedPort>,
}

impl Manifest {
    /// The appc version that this format follows.
    pub const AC_VERSION: &str = "0.8.11";

    /// A pod of these apps and nothing else.
    pub fn new(apps: Vec<RuntimeApp>) -> Self {
        Self {
            ac_version: Self::AC_VERSION.into(),
            ac_kind: PodManifestKind::PodManifest,
            apps,
            volumes: vec![],
            isolators: vec![],
            annotations: vec![],
            user_annotations: vec![],
            user_labels: vec![],
            ports: vec![],
        }
    }
}

/// The only kind of manifest this file may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PodManifestKind {
    PodManifest,
}

/// An app as it runs in this pod: the image's words after the user's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeApp {
    pub name: AppName,
    pub image: RuntimeImage,
    pub app: App,
    #[serde(default, rename = "readOnlyRootFS", skip_serializing_if = "std::ops::Not::not")]
    pub read_only_root_fs: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub annotations: Vec<NameValue>,
}

impl RuntimeApp {
    /// The value of an annotation.
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.iter().find(|a| a.name == name).map(|a| a.value.as_str())
    }
}

/// Which image an app is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeImage {
    /// For people; the id decides.
    pub name: String,
    /// `sha256-…` or `sha512-…`.
    pub id: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<NameValue>,
}

/// What to run in an image and as whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct App {
    /// Program and arguments; never empty in a pod that was prepared.
    pub exec: Vec<String>,
    pub user: String,
    /// Empty: the user's primary group.
    pub group: String,
    #[serde(default, rename = "supplementaryGIDs", skip_serializing_if = "Vec::is_empty")]
    pub supplementary_gids: Vec<u32>,
    #[serde(default)]
    pub working_directory: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub event_handlers: Vec<EventHandler>,
    #[serde(default)]
    pub environment: Vec<NameValue>,
    #[serde(default)]
    pub isolators: Vec<Isolator>,
    #[serde(default)]
    pub mount_points: Vec<MountPoint>,
    #[serde(default)]
    pub ports: Vec<Port>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub user_annotations: Vec<NameValue>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub user_labels: Vec<NameValue>,
}

impl App {
    /// Sets an isolator in place of those that it would contradict.
    pub fn set_isolator(&mut self, isolator: Isolator) {
        self.isolators.retain(|other| isolators::kind(&other.name) != isolators::kind(&isolator.name));
        self.isolators.push(isolator);
    }
}

/// appc's pair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameValue {
    pub name: String,
    pub value: String,
}

/// A limit or a right, by appc's name (`resource/memory`); what the value means is the name's to say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Isolator {
    pub name: String,
    pub value: Value,
}

/// A program that runs around an app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventHandler {
    pub name: Event,
    pub exec: Vec<String>,
}

/// When it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    PreStart,
    PostStop,
}

/// A place where the image expects a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MountPoint {
    pub name: String,
    /// Absolute path in the app's root.
    pub path: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
}

/// Where an app gets a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    /// The name of one of the pod's volumes.
    pub volume: String,
    /// Absolute path in the app's root.
    pub path: String,
    /// A volume of this app's own, in place of one of the pod's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_volume: Option<Volume>,
}

/// A volume of the pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    /// An AC name.
    pub name: String,
    #[serde(flatten)]
    pub kind: VolumeKind,
    /// Absent: as the image's mount point says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
}

/// What a volume is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum VolumeKind {
    /// A new directory, as old as the pod.
    Empty {
        /// Octal, `0755` if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mode: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        uid: Option<u32>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gid: Option<u32>,
        /// Most that fits in, `64Mi`; beyond appc.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        size: Option<String>,
    },
    /// A file, directory or device node of the host's.
    Host {
        /// Absolute.
        source: String,
        /// Mounts below the source come along; absent: they do, but for fly.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        recursive: Option<bool>,
    },
}

/// A port that an app listens on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Port {
    pub name: String,
    /// `tcp` or `udp`.
    pub protocol: String,
    pub port: u16,
    /// How many ports, from this one on.
    #[serde(default = "one")]
    pub count: u16,
    #[serde(default)]
    pub socket_activated: bool,
}

fn one() -> u16 {
    1
}

/// A port of the pod that the host listens on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExposedPort {
    /// The name of an app's port.
    pub name: String,
    pub host_port: u16,
    #[serde(default, rename = "hostIP", skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<std::net::IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_port: Option<Port>,
}

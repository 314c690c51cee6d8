//! The pod manifest, as appc's `PodManifest` has it (appc spec 0.8.11, `spec/pods.md`): the file `pod`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::AppName;

/// The annotation that carries an image's stop signal, a name such as `SIGQUIT`; appc has no word for it.
pub const STOP_SIGNAL: &str = "hull/stop-signal";

/// A pod: its apps and what they share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub ac_version: String,
    pub ac_kind: PodManifestKind,
    pub apps: Vec<RuntimeApp>,
    #[serde(default)]
    pub volumes: Vec<Value>,
    #[serde(default)]
    pub isolators: Vec<Value>,
    #[serde(default)]
    pub annotations: Vec<NameValue>,
    #[serde(default)]
    pub ports: Vec<Value>,
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
    pub mounts: Vec<Value>,
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
    #[serde(default)]
    pub environment: Vec<NameValue>,
    #[serde(default)]
    pub isolators: Vec<Value>,
    #[serde(default)]
    pub mount_points: Vec<Value>,
    #[serde(default)]
    pub ports: Vec<Value>,
}

/// appc's pair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameValue {
    pub name: String,
    pub value: String,
}

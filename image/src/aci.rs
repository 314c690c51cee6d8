//! App Container Images: a tar of `manifest` and `rootfs/` (appc spec, "App Container Image").

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::blobs::Verified;
use crate::config::{DEFAULT_USER, EventHandler, ImageConfig, MountPoint, Port, null_as_default};
use crate::convert::{Flavour, Layer};
use crate::converter::Converter;
use crate::store::Prepared;
use crate::{Error, Kind};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    ac_kind: String,
    name: String,
    #[serde(default, deserialize_with = "null_as_default")]
    labels: Vec<NameValue>,
    #[serde(default, deserialize_with = "null_as_default")]
    app: App,
    #[serde(default, deserialize_with = "null_as_default")]
    dependencies: Vec<IgnoredAny>,
    #[serde(default, deserialize_with = "null_as_default")]
    path_whitelist: Vec<IgnoredAny>,
    #[serde(default, deserialize_with = "null_as_default")]
    annotations: Vec<NameValue>,
}

#[derive(Debug, Deserialize)]
struct NameValue {
    name: String,
    value: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct App {
    #[serde(deserialize_with = "null_as_default")]
    exec: Vec<String>,
    user: String,
    group: String,
    /// The specification's text and its code differ in the case of this name.
    #[serde(alias = "supplementaryGids", rename = "supplementaryGIDs", deserialize_with = "null_as_default")]
    supplementary_gids: Vec<u32>,
    #[serde(deserialize_with = "null_as_default")]
    event_handlers: Vec<EventHandler>,
    working_directory: String,
    #[serde(deserialize_with = "null_as_default")]
    environment: Vec<NameValue>,
    #[serde(deserialize_with = "null_as_default")]
    isolators: Vec<serde_json::Value>,
    #[serde(deserialize_with = "null_as_default")]
    mount_points: Vec<AciMountPoint>,
    #[serde(deserialize_with = "null_as_default")]
    ports: Vec<AciPort>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct AciMountPoint {
    name: String,
    path: String,
    #[serde(default)]
    read_only: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct AciPort {
    name: String,
    protocol: String,
    port: u16,
    #[serde(default = "one")]
    count: u16,
    #[serde(default)]
    socket_activated: bool,
}

fn one() -> u16 {
    1
}

/// Reads the manifest of an ACI in the store. The root is checked when it is converted.
pub(crate) fn prepare(aci: Verified, converter: &Converter, shown: &str) -> Result<Prepared, Error> {
    let text = converter.manifest(aci.file(), shown)?;
    let manifest: Manifest = serde_json::from_str(&text)
        .map_err(|e| Error::because(Kind::Corrupt, format!("read the manifest of {shown}"), e))?;
    if manifest.ac_kind != "ImageManifest" {
        let text = format!(
            "read the manifest of {shown}: its acKind is `{}`, not `ImageManifest`",
            manifest.ac_kind.escape_debug()
        );
        return Err(Error::new(Kind::NotAnImage, text));
    }
    let unsupported = |what: &str| {
        Error::new(Kind::Unsupported, format!("read the manifest of {shown}: {what} are not supported yet"))
    };
    if !manifest.dependencies.is_empty() {
        return Err(unsupported("images with dependencies"));
    }
    if !manifest.path_whitelist.is_empty() {
        return Err(unsupported("images with a pathWhitelist"));
    }
    let labels: BTreeMap<_, _> = manifest.labels.into_iter().map(|l| (l.name, l.value)).collect();
    let name = match labels.get("version") {
        Some(version) => format!("{}:{version}", manifest.name),
        None => manifest.name,
    };
    let annotations = manifest.annotations.into_iter().map(|a| (a.name, a.value)).collect();
    let config = configuration(manifest.app, labels, annotations, shown)?.check(shown)?;
    Ok(Prepared { name, config, layers: vec![Layer { blob: aci, flavour: Flavour::whole_aci() }] })
}

fn configuration(
    app: App,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    shown: &str,
) -> Result<ImageConfig, Error> {
    let label = |name: &str| {
        labels.get(name).cloned().ok_or_else(|| {
            let text = format!("read the manifest of {shown}: missing {name} label in the image manifest");
            Error::new(Kind::NotAnImage, text)
        })
    };
    let or_default = |text: String, default: &str| if text.is_empty() { default.to_owned() } else { text };
    let mount_points = app.mount_points.into_iter();
    let ports = app.ports.into_iter();
    Ok(ImageConfig {
        entrypoint: app.exec,
        command: Vec::new(),
        environment: app.environment.into_iter().map(|e| (e.name, e.value)).collect(),
        user: or_default(app.user, DEFAULT_USER),
        group: Some(app.group).filter(|group| !group.is_empty()),
        supplementary_gids: app.supplementary_gids,
        working_directory: or_default(app.working_directory, "/"),
        stop_signal: None,
        mount_points: mount_points
            .map(|m| MountPoint { name: m.name, path: m.path, read_only: m.read_only })
            .collect(),
        ports: ports
            .map(|p| Port {
                name: p.name,
                protocol: p.protocol,
                port: p.port,
                count: p.count,
                socket_activated: p.socket_activated,
            })
            .collect(),
        isolators: app.isolators,
        event_handlers: app.event_handlers,
        annotations,
        os: label("os")?,
        architecture: label("arch")?,
        labels,
    })
}

//! App Container Images: a tar of `manifest` and `rootfs/` (appc spec, "App Container Image").

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::appc::{Identifier, Labels};
use crate::blobs::Verified;
use crate::config::{
    DEFAULT_USER, EventHandler, HOST_OS, ImageConfig, MountPoint, Port, host_architecture, null_as_default,
};
use crate::convert::{Flavour, Layer};
use crate::converter::Converter;
use crate::digest::IdPrefix;
use crate::store::Prepared;
use crate::{Error, Kind};

/// Most dependencies of one image, and most paths of one whitelist.
const LIST_MAX: usize = 1 << 16;

/// The fewest hex digits of an id that a dependency may be named by: those of rkt's own keys.
const DEPENDENCY_ID_LEN_MIN: usize = "sha512-".len() + 64;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ManifestDocument {
    ac_kind: String,
    #[serde(default, deserialize_with = "null_as_default")]
    ac_version: String,
    name: String,
    #[serde(default, deserialize_with = "null_as_default")]
    labels: Vec<NameValue>,
    #[serde(default, deserialize_with = "null_as_default")]
    app: App,
    #[serde(default, deserialize_with = "null_as_default")]
    dependencies: Vec<DependencyDocument>,
    #[serde(default, deserialize_with = "null_as_default")]
    path_whitelist: Vec<String>,
    #[serde(default, deserialize_with = "null_as_default")]
    annotations: Vec<NameValue>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DependencyDocument {
    image_name: String,
    #[serde(rename = "imageID", default, deserialize_with = "null_as_default")]
    image_id: String,
    #[serde(default, deserialize_with = "null_as_default")]
    labels: Vec<NameValue>,
    size: Option<u64>,
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

/// The manifest of an image, as far as it can be checked by itself (appc spec, "Image Manifest Schema").
#[derive(Debug)]
pub(crate) struct Manifest {
    name: Identifier,
    labels: Labels,
    dependencies: Vec<Dependency>,
    whitelist: Vec<String>,
    app: App,
    annotations: Vec<NameValue>,
}

/// An image that another one lies on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dependency {
    pub(crate) name: Identifier,
    pub(crate) labels: Labels,
    pub(crate) id: Option<IdPrefix>,
    /// In bytes.
    pub(crate) size: Option<u64>,
}

impl Manifest {
    /// The manifest of an ACI in the store. The root is checked when it is converted.
    pub(crate) fn of(aci: &Verified, converter: &Converter, shown: &str) -> Result<Self, Error> {
        Self::parse(&converter.manifest(aci.file(), shown)?, shown)
    }

    pub(crate) fn parse(text: &str, shown: &str) -> Result<Self, Error> {
        let document: ManifestDocument = serde_json::from_str(text)
            .map_err(|e| Error::because(Kind::Corrupt, format!("read the manifest of {shown}"), e))?;
        let refused = |kind, why: &str| Error::new(kind, format!("read the manifest of {shown}: {why}"));
        if document.ac_kind != "ImageManifest" {
            let kind = crate::error::shown(document.ac_kind.as_bytes());
            return Err(refused(Kind::NotAnImage, &format!("its acKind is `{kind}`, not `ImageManifest`")));
        }
        if !is_version(&document.ac_version) {
            let version = crate::error::shown(document.ac_version.as_bytes());
            let why = format!("its acVersion is `{version}`, which is no version (`0.8.11`)");
            return Err(refused(Kind::NotAnImage, &why));
        }
        if document.dependencies.len() > LIST_MAX || document.path_whitelist.len() > LIST_MAX {
            return Err(refused(Kind::TooLarge, &format!("a list in it has more than {LIST_MAX} entries")));
        }
        let corrupt = |why: String| refused(Kind::Corrupt, &why);
        let dependencies = document.dependencies.into_iter().map(Dependency::new).collect::<Result<_, _>>();
        Ok(Self {
            name: document.name.parse().map_err(|e| corrupt(format!("its name is refused: {e}")))?,
            labels: labels(document.labels).map_err(corrupt)?,
            dependencies: dependencies.map_err(corrupt)?,
            whitelist: document.path_whitelist,
            app: document.app,
            annotations: document.annotations,
        })
    }

    pub(crate) fn name(&self) -> &Identifier {
        &self.name
    }

    pub(crate) fn labels(&self) -> &Labels {
        &self.labels
    }

    pub(crate) fn dependencies(&self) -> &[Dependency] {
        &self.dependencies
    }

    pub(crate) fn whitelist(&self) -> &[String] {
        &self.whitelist
    }

    /// The name with its version, for people.
    pub(crate) fn title(&self) -> String {
        let version = self.labels.get("version").map(|version| format!(":{version}"));
        format!("{}{}", self.name, version.unwrap_or_default())
    }

    /// How the image wants to be run. Refuses one that this host cannot run.
    pub(crate) fn configuration(self, shown: &str) -> Result<ImageConfig, Error> {
        let refused = |kind, why: String| Error::new(kind, format!("read the manifest of {shown}: {why}"));
        // The words are rkt's, which scripts look for.
        for label in ["os", "arch"] {
            if self.labels.get(label).is_none() {
                return Err(refused(
                    Kind::NotAnImage,
                    format!("missing {label} label in the image manifest"),
                ));
            }
        }
        self.labels.check_host().map_err(|why| refused(Kind::WrongPlatform, why))?;
        check_app(&self.app).map_err(|why| refused(Kind::Corrupt, why))?;
        let labels = self.labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let annotations = self.annotations.into_iter().map(|a| (a.name, a.value)).collect();
        configuration(self.app, labels, annotations).check(shown)
    }
}

impl Dependency {
    fn new(document: DependencyDocument) -> Result<Self, String> {
        let name =
            document.image_name.parse().map_err(|e| format!("the name of a dependency is refused: {e}"))?;
        let shown = crate::error::shown(document.image_id.as_bytes());
        let id = match &*document.image_id {
            "" => None,
            id => {
                let id = IdPrefix::parse(id).filter(|id| {
                    id.as_str().starts_with("sha512-") && id.as_str().len() >= DEPENDENCY_ID_LEN_MIN
                });
                Some(id.ok_or_else(|| format!("the imageID `{shown}` of a dependency is no id of an image"))?)
            }
        };
        Ok(Self { name, labels: labels(document.labels)?, id, size: document.size })
    }
}

fn labels(labels: Vec<NameValue>) -> Result<Labels, String> {
    Labels::new(labels.into_iter().map(|label| (label.name, label.value)))
}

/// What the specification asks of an app, as far as it would be dangerous or senseless to go on without.
fn check_app(app: &App) -> Result<(), String> {
    let shown = |text: &str| crate::error::shown(text.as_bytes());
    if !app.working_directory.is_empty() && !app.working_directory.starts_with('/') {
        return Err("workingDirectory must be an absolute path".into());
    }
    for (index, handler) in app.event_handlers.iter().enumerate() {
        if !matches!(&*handler.name, "pre-start" | "post-stop") {
            return Err(format!("the eventHandler `{}` is unknown", shown(&handler.name)));
        }
        if app.event_handlers[..index].iter().any(|other| other.name == handler.name) {
            return Err(format!("only one eventHandler of name `{}` is allowed", shown(&handler.name)));
        }
    }
    if let Some(variable) = app.environment.iter().find(|e| e.name.is_empty() || e.name.contains('=')) {
        return Err(format!(
            "the environment variable `{}` has a name that none can have",
            shown(&variable.name)
        ));
    }
    let names = app.mount_points.iter().map(|m| &m.name).chain(app.ports.iter().map(|p| &p.name));
    if let Some(name) = names.into_iter().find(|name| !is_ac_name(name)) {
        return Err(format!("`{}` is no name of a mount point or port", shown(name)));
    }
    for port in &app.ports {
        let fits =
            port.port > 0 && port.count > 0 && u32::from(port.port) + u32::from(port.count) - 1 <= 65535;
        if !fits {
            return Err(format!("the port `{}` is not between 1 and 65535", shown(&port.name)));
        }
    }
    Ok(())
}

/// Semantic versioning 2.0.0, as the appc spec wants it ("AC Version Type"): three numbers, then perhaps `-` and `+`
/// and what they begin. Images of all versions of the specification are read alike.
fn is_version(text: &str) -> bool {
    let (core, more) = text.find(['-', '+']).map_or((text, ""), |end| text.split_at(end));
    let numbers: Vec<&str> = core.split('.').collect();
    let is_number = |text: &&str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let is_tail = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'+');
    numbers.len() == 3 && numbers.iter().all(is_number) && more.len() != 1 && more.bytes().all(is_tail)
}

/// Appc spec, "AC Name Type".
fn is_ac_name(name: &str) -> bool {
    let inner = |b: &u8| matches!(b, b'a'..=b'z' | b'0'..=b'9');
    let bytes = name.as_bytes();
    bytes.iter().all(|b| inner(b) || *b == b'-')
        && bytes.first().is_some_and(inner)
        && bytes.last().is_some_and(inner)
}

/// Reads an ACI in the store that lies on no others.
pub(crate) fn prepare(aci: Verified, converter: &Converter, shown: &str) -> Result<Prepared, Error> {
    let manifest = Manifest::of(&aci, converter, shown)?;
    if !manifest.dependencies.is_empty() {
        let text = format!("read {shown}: it depends on other images, which are not imported but fetched");
        return Err(Error::new(Kind::Unsupported, text));
    }
    let whitelist = manifest.whitelist.clone();
    let flavour = Flavour::Aci { whitelist, whitelist_above: Vec::new() };
    let (name, config) = (manifest.title(), manifest.configuration(shown)?);
    Ok(Prepared { name, config, layers: vec![Layer { blob: aci, flavour }] })
}

fn configuration(
    app: App,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
) -> ImageConfig {
    let or_default = |text: String, default: &str| if text.is_empty() { default.to_owned() } else { text };
    let mount_points = app.mount_points.into_iter();
    let ports = app.ports.into_iter();
    ImageConfig {
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
        os: HOST_OS.to_owned(),
        architecture: host_architecture().to_owned(),
        labels,
    }
}

/// A way in for the fuzzer.
pub(crate) fn fuzz(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(manifest) = Manifest::parse(text, "x") {
        let _ = manifest.configuration("x"); // Refusing is right; panicking is not.
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_the_specification_is_a_version() {
        for right in ["0.8.11", "1.30.0", "0.8.9+git", "0.8.1-dev", "10.20.30-a.b+c"] {
            assert!(is_version(right), "{right}");
        }
        for wrong in
            ["", "1", "0.8", "0.8.11.1", "v0.8.11", "0.8.x", "0.8.1-", "0.8.1+", "0.8.1-\u{e4}", "0..1"]
        {
            assert!(!is_version(wrong), "{wrong}");
            let text = format!(r#"{{"acKind":"ImageManifest","acVersion":"{wrong}","name":"a"}}"#);
            let error = Manifest::parse(&text, "x").unwrap_err();
            assert!(error.to_string().contains("acVersion"), "{error}");
        }
        let missing = Manifest::parse(r#"{"acKind":"ImageManifest","name":"a"}"#, "x").unwrap_err();
        assert_eq!(*missing.kind(), Kind::NotAnImage);
    }
}

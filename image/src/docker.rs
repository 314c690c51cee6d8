//! The configuration document of OCI and Docker images, and the archives of `docker save`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::blobs::{Blobs, DOCUMENT_MAX, VerifiedBytes};
use crate::config::{DEFAULT_USER, ImageConfig, MountPoint, Port, null_as_default};
use crate::convert::{Flavour, Layer};
use crate::converter::Converter;
use crate::digest::{Algorithm, Digest, ImageId};
use crate::member::Archive;
use crate::store::Prepared;
use crate::{Error, Kind};

/// The parts that matter of `application/vnd.oci.image.config.v1+json` (OCI image-spec, "Image
/// Configuration") and of Docker's like.
#[derive(Debug, Default, Deserialize)]
struct Document {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default, deserialize_with = "null_as_default")]
    config: Execution,
    #[serde(default, deserialize_with = "null_as_default")]
    rootfs: RootFs,
}

#[derive(Debug, Default, Deserialize)]
struct RootFs {
    #[serde(default, deserialize_with = "null_as_default")]
    diff_ids: Vec<Digest>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Execution {
    #[serde(deserialize_with = "null_as_default")]
    user: String,
    #[serde(deserialize_with = "null_as_default")]
    exposed_ports: BTreeMap<String, IgnoredAny>,
    #[serde(deserialize_with = "null_as_default")]
    env: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    entrypoint: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    cmd: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    volumes: BTreeMap<String, IgnoredAny>,
    #[serde(deserialize_with = "null_as_default")]
    working_dir: String,
    #[serde(deserialize_with = "null_as_default")]
    labels: BTreeMap<String, String>,
    stop_signal: Option<String>,
}

/// Reads a configuration document: the normal form, and the digests of the uncompressed layers.
pub(crate) fn configuration(
    document: &VerifiedBytes,
    annotations: BTreeMap<String, String>,
    image: &str,
) -> Result<(ImageConfig, Vec<Digest>), Error> {
    let document: Document = serde_json::from_slice(document.as_slice())
        .map_err(|e| Error::because(Kind::Corrupt, format!("read the configuration of image {image}"), e))?;
    if document.os.is_empty() || document.architecture.is_empty() {
        let text =
            format!("read the configuration of image {image}: it does not say for which os and architecture");
        return Err(Error::new(Kind::NotAnImage, text));
    }
    let config = document.config;
    let (user, group) = user_and_group(&config.user);
    let normal = ImageConfig {
        entrypoint: config.entrypoint,
        command: config.cmd,
        environment: config.env.iter().map(|e| variable(e)).collect(),
        user,
        group,
        supplementary_gids: Vec::new(),
        working_directory: absolute(&config.working_dir),
        stop_signal: config.stop_signal.filter(|signal| !signal.is_empty()),
        labels: config.labels,
        mount_points: config.volumes.keys().map(|path| mount_point(path)).collect(),
        ports: config.exposed_ports.keys().map(|port| exposed(port, image)).collect::<Result<_, _>>()?,
        isolators: Vec::new(),
        event_handlers: Vec::new(),
        annotations,
        os: document.os,
        architecture: document.architecture,
    };
    Ok((normal.check(image)?, document.rootfs.diff_ids))
}

fn user_and_group(text: &str) -> (String, Option<String>) {
    let (user, group) = text.split_once(':').unwrap_or((text, ""));
    let user = if user.is_empty() { DEFAULT_USER } else { user };
    (user.to_owned(), Some(group.to_owned()).filter(|group| !group.is_empty()))
}

fn variable(text: &str) -> (String, String) {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    (name.to_owned(), value.to_owned())
}

fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

/// Named as docker2aci did: `/var/lib/x` is `volume-var-lib-x`.
fn mount_point(path: &str) -> MountPoint {
    let path = absolute(path);
    let name = path.trim_matches('/').to_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    MountPoint { name: format!("volume-{name}"), path, read_only: false }
}

/// `80`, `80/tcp`, `8000-8010/udp`; the name is docker2aci's: `80-tcp`.
fn exposed(text: &str, image: &str) -> Result<Port, Error> {
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let numbers = first.parse::<u16>().ok().zip(last.parse::<u16>().ok());
    let count = numbers.and_then(|(first, last)| last.checked_sub(first)?.checked_add(1));
    let (Some((port, _)), Some(count)) = (numbers, count) else {
        let text = format!("read the configuration of image {image}: exposed port `{}`", text.escape_debug());
        return Err(Error::new(Kind::Corrupt, text));
    };
    let protocol = protocol.to_lowercase();
    Ok(Port { name: format!("{range}-{protocol}"), protocol, port, count, socket_activated: false })
}

/// An element of `manifest.json` (Docker's image specification v1.2, "Combined Image JSON + Filesystem
/// Changeset Format").
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default, deserialize_with = "null_as_default")]
    repo_tags: Vec<String>,
    #[serde(default, deserialize_with = "null_as_default")]
    layers: Vec<String>,
}

/// One image of an archive of `docker save`, chosen and not yet imported.
pub(crate) struct SavedImage<'a> {
    archive: &'a Archive,
    saved: Saved,
    config_digest: Digest,
    name: String,
}

impl<'a> SavedImage<'a> {
    pub(crate) fn choose(archive: &'a Archive, wanted: Option<&str>, fallback: &str) -> Result<Self, Error> {
        let text = archive.document("manifest.json", DOCUMENT_MAX)?.ok_or_else(|| {
            Error::new(Kind::NotAnImage, format!("read {archive}: no `manifest.json` in it"))
        })?;
        let all: Vec<Saved> = serde_json::from_slice(&text)
            .map_err(|e| Error::because(Kind::Corrupt, format!("read `manifest.json` of {archive}"), e))?;
        let saved = one_of(all, wanted, archive)?;
        let config =
            archive.document(&saved.config, DOCUMENT_MAX)?.ok_or_else(|| missing(archive, &saved.config))?;
        let config_digest = Digest::of(Algorithm::Sha256, &config);
        check_config_name(archive, &saved.config, &config_digest)?;
        let name = wanted.map(with_tag).or_else(|| saved.repo_tags.first().cloned());
        Ok(Self { archive, config_digest, name: name.unwrap_or_else(|| fallback.to_owned()), saved })
    }

    pub(crate) fn id(&self) -> ImageId {
        ImageId::from(&self.config_digest)
    }

    pub(crate) fn prepare(self, blobs: &Blobs, converter: &Converter) -> Result<Prepared, Error> {
        let (mut config, size) = self.member(&self.saved.config)?;
        let config = blobs.add(&mut config, &self.config_digest, Some(size))?.document()?;
        let (config, diff_ids) = configuration(&config, BTreeMap::new(), &self.name)?;
        check_layer_count(&self.name, self.saved.layers.len(), diff_ids.len())?;
        let layers = self.saved.layers.iter().zip(diff_ids).map(|(path, diff_id)| {
            let blob = match blobs.get(&diff_id)? {
                Some(blob) => blob,
                None => {
                    let plain = self.archive.open_uncompressed(converter, path)?;
                    let mut plain = plain.ok_or_else(|| missing(self.archive, path))?;
                    blobs.add(&mut plain, &diff_id, None)?
                }
            };
            Ok(Layer { blob, flavour: Flavour::Oci { diff_id } })
        });
        let layers = layers.collect::<Result<_, Error>>()?;
        Ok(Prepared { name: self.name, config, layers })
    }

    fn member(&self, path: &str) -> Result<(impl std::io::Read + use<'a>, u64), Error> {
        self.archive.open(path)?.ok_or_else(|| missing(self.archive, path))
    }
}

fn missing(archive: &Archive, path: &str) -> Error {
    let path = path.escape_debug();
    Error::new(Kind::Corrupt, format!("read {archive}: `{path}` is missing, though `manifest.json` names it"))
}

/// Every layer must have its digest, or it would not be checked.
pub(crate) fn check_layer_count(image: &str, layers: usize, diff_ids: usize) -> Result<(), Error> {
    if layers == diff_ids {
        return Ok(());
    }
    let text = format!("read image {image}: its manifest has {layers} layers, its configuration {diff_ids}");
    Err(Error::new(Kind::Corrupt, text))
}

fn one_of(all: Vec<Saved>, wanted: Option<&str>, archive: &Archive) -> Result<Saved, Error> {
    let tags = all.iter().flat_map(|s| &s.repo_tags).map(|t| t.escape_debug().to_string());
    let tags = tags.collect::<Vec<_>>().join(", ");
    let matches = |saved: &Saved| match wanted {
        None => true,
        Some(wanted) => saved.repo_tags.iter().any(|tag| tag == wanted || with_tag(tag) == with_tag(wanted)),
    };
    let mut fitting = all.into_iter().filter(matches);
    match (fitting.next(), fitting.next()) {
        (Some(one), None) => Ok(one),
        (Some(_), Some(_)) => Err(Error::new(
            Kind::Ambiguous,
            format!("choose an image of {archive}: it has several, name one of them after a colon: {tags}"),
        )),
        (None, _) => Err(Error::new(
            Kind::NotFound,
            format!(
                "choose an image of {archive}: no `{}`, it has: {tags}",
                wanted.unwrap_or("image at all")
            ),
        )),
    }
}

/// `busybox`, `docker.io/library/busybox` and `busybox:latest` are one name.
fn with_tag(name: &str) -> String {
    let name = name.strip_prefix("docker.io/").unwrap_or(name);
    let name = name.strip_prefix("library/").unwrap_or(name);
    let last = name.rsplit('/').next().unwrap_or(name);
    if last.contains(':') { name.to_owned() } else { format!("{name}:latest") }
}

/// `docker save` names the configuration by its digest: `HEX.json`, later `blobs/sha256/HEX`.
fn check_config_name(archive: &Archive, name: &str, got: &Digest) -> Result<(), Error> {
    let stem = name.rsplit('/').next().unwrap_or(name);
    let stem = stem.strip_suffix(".json").unwrap_or(stem);
    match Digest::new(Algorithm::Sha256, stem) {
        Some(want) if want != *got => Err(Error::new(
            Kind::Corrupt,
            format!("read `{name}` of {archive}: it has another digest than its name says: {got}"),
        )),
        _ => Ok(()),
    }
}

/// A way in for the fuzzer: a configuration, or the list of an archive's images.
pub(crate) fn fuzz(bytes: &[u8]) {
    let digest = Digest::of(Algorithm::Sha256, bytes);
    if let Ok(document) = VerifiedBytes::read(&mut &*bytes, &digest, bytes.len() as u64)
        && let Ok((config, _)) = configuration(&document, BTreeMap::new(), "x")
    {
        assert!(config.working_directory.starts_with('/') && !config.user.is_empty(), "as it is documented");
        assert!(config.ports.iter().all(|port| port.count > 0), "no range is empty");
    }
    if let Ok(all) = serde_json::from_slice::<Vec<Saved>>(bytes) {
        let names = all.iter().flat_map(|saved| &saved.repo_tags).map(|tag| with_tag(tag));
        assert!(names.into_iter().all(|name| name == with_tag(&name)), "a normal name stays as it is");
    }
}

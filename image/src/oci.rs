//! OCI image layouts, in a directory or in an archive (OCI image-spec, "Image Layout").

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use hull_errors::Doing;
use serde::Deserialize;

use crate::blobs::{Blobs, DOCUMENT_MAX, VerifiedBytes};
use crate::config::{HOST_OS, host_architecture, null_as_default};
use crate::convert::{Flavour, LAYERS_MAX, Layer};
use crate::digest::{Digest, ImageId};
use crate::docker::{check_layer_count, configuration};
use crate::import::open_regular;
use crate::member::Archive;
use crate::store::Prepared;
use crate::{Error, Kind};

/// How many indexes may lie inside each other.
const NESTED_MAX: usize = 4;

const INDEXES: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];
const MANIFESTS: [&str; 2] =
    ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"];
const CONFIGS: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];
const LAYERS: [&str; 11] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
];

/// The name of an image inside a layout (OCI image-spec, "Pre-Defined Annotation Keys").
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The full name that Docker and containerd add.
const FULL_NAME: &str = "io.containerd.image.name";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    #[serde(default, deserialize_with = "null_as_default")]
    manifests: Vec<Descriptor>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: Digest,
    size: u64,
    platform: Option<Platform>,
    #[serde(default, deserialize_with = "null_as_default")]
    annotations: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Deserialize)]
struct Platform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: String,
}

impl Platform {
    fn fits(&self) -> bool {
        // Every amd64 runs the first micro-architecture level; the higher ones are optional extras.
        let variant = matches!(&*self.variant, "" | "v1") || self.architecture != "amd64";
        self.os == HOST_OS && self.architecture == host_architecture() && variant
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u32,
    config: Option<Descriptor>,
    #[serde(default, deserialize_with = "null_as_default")]
    layers: Vec<Descriptor>,
    #[serde(default, deserialize_with = "null_as_default")]
    annotations: BTreeMap<String, String>,
}

/// Where a layout is.
pub(crate) enum Layout {
    Folder(PathBuf),
    Archive(Archive),
}

impl Layout {
    fn open(&self, path: &str) -> Result<Option<Box<dyn Read + '_>>, Error> {
        match self {
            Layout::Archive(archive) => Ok(archive.open(path)?.map(|(window, _)| Box::new(window) as _)),
            Layout::Folder(folder) => match open_regular(&folder.join(path)) {
                Ok(file) => Ok(Some(Box::new(file))),
                Err(e) if *e.kind() == Kind::NotFound => Ok(None),
                Err(e) => Err(e),
            },
        }
    }

    fn blob(&self, digest: &Digest) -> Result<Box<dyn Read + '_>, Error> {
        let path = format!("blobs/{}/{}", digest.algorithm().name(), digest.hex());
        self.open(&path)?.ok_or_else(|| {
            Error::new(Kind::Corrupt, format!("read {}: blob {digest} is missing", self.shown()))
        })
    }

    fn shown(&self) -> String {
        match self {
            Layout::Folder(folder) => format!("OCI layout {}", folder.display()),
            Layout::Archive(archive) => archive.to_string(),
        }
    }
}

/// One image of a layout, chosen and not yet imported.
pub(crate) struct LayoutImage<'a> {
    layout: &'a Layout,
    manifest: Descriptor,
    name: String,
}

impl<'a> LayoutImage<'a> {
    /// Finds the manifest for `tag` and this host; reads nothing but indexes. `path` gives the image
    /// its name where the layout has none.
    pub(crate) fn choose(layout: &'a Layout, tag: Option<&str>, path: &Path) -> Result<Self, Error> {
        let shown = layout.shown();
        let index = layout
            .open("index.json")?
            .ok_or_else(|| Error::new(Kind::NotAnImage, format!("read {shown}: no `index.json` in it")))?;
        let mut text = Vec::new();
        let read = index.take(DOCUMENT_MAX + 1).read_to_end(&mut text);
        read.doing(Kind::Host, || format!("read `index.json` of {shown}"))?;
        if text.len() as u64 > DOCUMENT_MAX {
            let text = format!("read `index.json` of {shown}: it has more than {DOCUMENT_MAX} bytes");
            return Err(Error::new(Kind::TooLarge, text));
        }
        let named = by_tag(parse_index(&text, &shown)?, tag, &shown)?;
        let mut chosen = by_platform(named, tag, &shown)?;
        let name = name_of(&chosen, tag, path);
        for _ in 0..NESTED_MAX {
            if MANIFESTS.contains(&&*chosen.media_type) {
                return Ok(Self { layout, manifest: chosen, name });
            }
            if !INDEXES.contains(&&*chosen.media_type) {
                let kind = chosen.media_type.escape_debug();
                let text = format!("read {shown}: {} is of the type `{kind}`, no image", chosen.digest);
                return Err(Error::new(Kind::Unsupported, text));
            }
            let bytes = VerifiedBytes::read(&mut layout.blob(&chosen.digest)?, &chosen.digest, chosen.size)?;
            chosen = by_platform(parse_index(bytes.as_slice(), &shown)?, None, &shown)?;
        }
        let text = format!("read {shown}: more than {NESTED_MAX} indexes inside each other");
        Err(Error::new(Kind::Corrupt, text))
    }

    pub(crate) fn id(&self) -> ImageId {
        ImageId::from(&self.manifest.digest)
    }

    pub(crate) fn prepare(self, blobs: &Blobs) -> Result<Prepared, Error> {
        let name = &self.name;
        let manifest = self.document(&self.manifest, blobs)?;
        let manifest: Manifest = serde_json::from_slice(manifest.as_slice())
            .map_err(|e| Error::because(Kind::Corrupt, format!("read the manifest of image {name}"), e))?;
        let unsupported = |text: String| {
            Error::new(Kind::Unsupported, format!("read the manifest of image {name}: {text}"))
        };
        if manifest.schema_version != 2 {
            return Err(unsupported(format!("its schema version is {}, not 2", manifest.schema_version)));
        }
        let config = manifest.config.ok_or_else(|| unsupported("it has no configuration".into()))?;
        if !CONFIGS.contains(&&*config.media_type) {
            let kind = config.media_type.escape_debug();
            return Err(unsupported(format!(
                "its configuration is of the type `{kind}`, so it is no container image"
            )));
        }
        if manifest.layers.len() > LAYERS_MAX {
            return Err(unsupported(format!(
                "{} layers, at most {LAYERS_MAX} are accepted",
                manifest.layers.len()
            )));
        }
        let config = self.document(&config, blobs)?;
        let (config, diff_ids) = configuration(&config, manifest.annotations, name)?;
        check_layer_count(name, manifest.layers.len(), diff_ids.len())?;
        let layers = manifest.layers.iter().zip(diff_ids).map(|(descriptor, diff_id)| {
            if !LAYERS.contains(&&*descriptor.media_type) {
                let kind = descriptor.media_type.escape_debug();
                return Err(unsupported(format!("layer {} is of the type `{kind}`", descriptor.digest)));
            }
            let blob = match blobs.get(&descriptor.digest)? {
                Some(blob) => blob,
                None => self.add(descriptor, blobs)?,
            };
            Ok(Layer { blob, flavour: Flavour::Oci { diff_id } })
        });
        let layers = layers.collect::<Result<_, Error>>()?;
        Ok(Prepared { name: self.name, config, layers })
    }

    fn document(&self, descriptor: &Descriptor, blobs: &Blobs) -> Result<VerifiedBytes, Error> {
        self.add(descriptor, blobs)?.document()
    }

    fn add(&self, descriptor: &Descriptor, blobs: &Blobs) -> Result<crate::blobs::Verified, Error> {
        let mut source = self.layout.blob(&descriptor.digest)?;
        blobs.add(&mut source, &descriptor.digest, Some(descriptor.size))
    }
}

/// What a layout of ours says of its parts.
pub(crate) const INDEX: &str = INDEXES[0];
pub(crate) const MANIFEST: &str = MANIFESTS[0];
pub(crate) const CONFIG: &str = CONFIGS[0];
pub(crate) const LAYER: &str = LAYERS[0];

/// The type of a manifest, which it may leave to whoever names it; its configuration's type tells then.
pub(crate) fn media_type_of(manifest: &[u8]) -> &'static str {
    let config = serde_json::from_slice::<Manifest>(manifest).ok().and_then(|manifest| manifest.config);
    let is_docker = config.is_some_and(|config| config.media_type == CONFIGS[1]);
    MANIFESTS[usize::from(is_docker)]
}

/// The configuration that a manifest names; `None` for other documents.
pub(crate) fn config_of(manifest: &[u8]) -> Option<Digest> {
    Some(serde_json::from_slice::<Manifest>(manifest).ok()?.config?.digest)
}

fn parse_index(text: &[u8], shown: &str) -> Result<Vec<Descriptor>, Error> {
    let index: Index = serde_json::from_slice(text)
        .map_err(|e| Error::because(Kind::Corrupt, format!("read an index of {shown}"), e))?;
    Ok(index.manifests)
}

fn by_tag(all: Vec<Descriptor>, tag: Option<&str>, shown: &str) -> Result<Vec<Descriptor>, Error> {
    let Some(tag) = tag else { return Ok(all) };
    let is_named = |d: &Descriptor| {
        [REF_NAME, FULL_NAME].iter().any(|key| d.annotations.get(*key).is_some_and(|name| name == tag))
    };
    let tags = tags(&all);
    let named: Vec<_> = all.into_iter().filter(is_named).collect();
    if named.is_empty() {
        let tag = tag.escape_debug();
        let text = format!("choose an image of {shown}: no tag `{tag}`, it has: {tags}");
        return Err(Error::new(Kind::NotFound, text));
    }
    Ok(named)
}

fn by_platform(all: Vec<Descriptor>, tag: Option<&str>, shown: &str) -> Result<Descriptor, Error> {
    let is_attestation = |d: &Descriptor| d.platform.as_ref().is_some_and(|p| p.os == "unknown");
    let platforms: Vec<_> = all
        .iter()
        .filter(|d| !is_attestation(d))
        .filter_map(|d| d.platform.as_ref())
        .map(|p| format!("{}/{}", p.os.escape_debug(), p.architecture.escape_debug()))
        .collect();
    let tags = tags(&all);
    let mut fitting: Vec<_> =
        all.into_iter().filter(|d| d.platform.as_ref().is_none_or(Platform::fits)).collect();
    fitting.dedup_by(|a, b| a.digest == b.digest);
    match (fitting.len(), platforms.is_empty()) {
        (1, _) => Ok(fitting.remove(0)),
        (0, true) => Err(Error::new(Kind::NotFound, format!("choose an image of {shown}: it has none"))),
        (0, false) => Err(Error::new(
            Kind::WrongPlatform,
            format!(
                "choose an image of {shown}: it is for {}, this host needs {HOST_OS}/{}",
                platforms.join(", "),
                host_architecture()
            ),
        )),
        _ if tag.is_some() => Err(Error::new(
            Kind::Ambiguous,
            format!("choose an image of {shown}: several images have this tag"),
        )),
        _ => Err(Error::new(
            Kind::Ambiguous,
            format!("choose an image of {shown}: it has several, name a tag after a colon: {tags}"),
        )),
    }
}

fn tags(all: &[Descriptor]) -> String {
    let tags = all.iter().filter_map(|d| d.annotations.get(REF_NAME)).map(|t| t.escape_debug().to_string());
    tags.collect::<Vec<_>>().join(", ")
}

fn name_of(chosen: &Descriptor, tag: Option<&str>, path: &Path) -> String {
    if let Some(name) = chosen.annotations.get(FULL_NAME) {
        return name.clone();
    }
    let file = crate::import::file_name(path);
    match tag.or(chosen.annotations.get(REF_NAME).map(String::as_str)) {
        // Some builders put the whole name where the specification wants a tag.
        Some(tag) if tag.contains([':', '/']) => tag.to_owned(),
        Some(tag) => format!("{file}:{tag}"),
        None => file,
    }
}

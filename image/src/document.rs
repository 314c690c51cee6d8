//! The JSON documents of OCI and Docker images: indexes, manifests, and how they name each other (OCI image-spec
//! v1.1, Docker's image manifest v2 schema 2).
//!
//! Two readers must never see two images in one document (CVE-2021-41190): what a document says it is, what it was
//! fetched as, and what fields it has must agree.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::blobs::{BLOB_MAX, Verified, VerifiedBytes};
use crate::config::{HOST_OS, ImageConfig, host_architecture, null_as_default};
use crate::convert::{Flavour, LAYERS_MAX, Layer};
use crate::digest::Digest;
use crate::docker::{check_layer_count, configuration};
use crate::error::shown;
use crate::store::Prepared;
use crate::{Error, Kind};

/// How many indexes may lie inside each other.
pub(crate) const NESTED_MAX: usize = 4;

pub(crate) const INDEXES: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];
pub(crate) const MANIFESTS: [&str; 2] =
    ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"];
const OLD_MANIFESTS: [&str; 2] = [
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
];
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

/// What names a blob: its type, digest and size. Addresses (`urls`) are not read: an image's author could send us,
/// and our credentials, anywhere (CVE-2020-15157).
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default, deserialize_with = "null_as_default")]
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    platform: Option<Platform>,
    #[serde(default, deserialize_with = "null_as_default")]
    pub(crate) annotations: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "null_as_default")]
    pub(crate) artifact_type: String,
}

#[derive(Clone, Debug, Deserialize)]
struct Platform {
    #[serde(default, deserialize_with = "null_as_default")]
    os: String,
    #[serde(default, deserialize_with = "null_as_default")]
    architecture: String,
    #[serde(default, deserialize_with = "null_as_default")]
    variant: String,
}

impl Platform {
    fn fits(&self) -> bool {
        // Every amd64 runs the first micro-architecture level; the higher ones are optional extras.
        let variant = matches!(&*self.variant, "" | "v1") || self.architecture != "amd64";
        self.os == HOST_OS && self.architecture == host_architecture() && variant
    }
}

/// What a document turns out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DocumentKind {
    Index,
    Manifest,
}

impl DocumentKind {
    fn of(media_type: &str) -> Option<Self> {
        let is_in = |types: &[&str]| types.contains(&media_type);
        is_in(&MANIFESTS).then_some(Self::Manifest).or(is_in(&INDEXES).then_some(Self::Index))
    }
}

/// The fields by which documents are told apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outline {
    #[serde(default)]
    schema_version: Option<u64>,
    #[serde(default)]
    media_type: Option<String>,
    manifests: Option<IgnoredAny>,
    config: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
    fs_layers: Option<IgnoredAny>,
}

/// Looks what a document is that somebody calls `declared` (a descriptor, a `Content-Type`), if anything.
///
/// # Errors
/// [`Kind::NotAnImage`], [`Kind::Corrupt`] if it is two things at once, [`Kind::Unsupported`].
pub(crate) fn document_kind(
    text: &[u8],
    declared: Option<&str>,
    document: &str,
) -> Result<DocumentKind, Error> {
    let error = |kind, why: &str| Error::new(kind, format!("read {document}: {why}"));
    if declared.is_some_and(|declared| OLD_MANIFESTS.contains(&declared)) {
        return Err(too_old(document));
    }
    let outline: Outline = serde_json::from_slice(text).map_err(|e| {
        let is_page = text.trim_ascii_start().starts_with(b"<");
        let why = if is_page {
            "it is a web page, no image; is this a registry?"
        } else {
            "it is no such document"
        };
        Error::because(Kind::NotAnImage, format!("read {document}: {why}"), e)
    })?;
    let said = outline.media_type.as_deref().filter(|said| !said.is_empty());
    if outline.fs_layers.is_some() || said.is_some_and(|said| OLD_MANIFESTS.contains(&said)) {
        return Err(too_old(document));
    }
    if let Some(version) = outline.schema_version.filter(|version| *version != 2) {
        return Err(error(Kind::Unsupported, &format!("its schema version is {version}, not 2")));
    }
    if let (Some(said), Some(declared)) = (said, declared)
        && said != declared
    {
        let (said, declared) = (shown(said.as_bytes()), shown(declared.as_bytes()));
        return Err(error(
            Kind::Corrupt,
            &format!("it says it is `{said}`, and it was declared `{declared}`"),
        ));
    }
    let kind = match said.or(declared) {
        Some(name) => DocumentKind::of(name).ok_or_else(|| {
            let name = shown(name.as_bytes());
            error(Kind::Unsupported, &format!("it is of the type `{name}`, no image"))
        })?,
        None if outline.manifests.is_some() => DocumentKind::Index,
        None => DocumentKind::Manifest,
    };
    let other = match kind {
        DocumentKind::Index => outline.config.is_some() || outline.layers.is_some(),
        DocumentKind::Manifest => outline.manifests.is_some(),
    };
    if other {
        return Err(error(Kind::Corrupt, "it is an index and a manifest at once"));
    }
    Ok(kind)
}

fn too_old(document: &str) -> Error {
    let text = format!(
        "read {document}: it is of Docker's schema 1, which cannot be verified as a whole; push the image again with a \
         newer Docker, or with `skopeo copy --format oci`"
    );
    Error::new(Kind::Unsupported, text)
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    #[serde(default, deserialize_with = "null_as_default")]
    manifests: Vec<Descriptor>,
}

/// What an index names.
pub(crate) fn read_index(text: &[u8], document: &str) -> Result<Vec<Descriptor>, Error> {
    let index: Index = serde_json::from_slice(text)
        .map_err(|e| Error::because(Kind::Corrupt, format!("read {document}"), e))?;
    Ok(index.manifests)
}

/// What several manifests for one platform mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Several<'a> {
    /// One image, best first (OCI image-spec, "Image Index": "the first matching entry SHOULD be used").
    OneImage,
    /// Different images; the way out is this text.
    Ambiguous(&'a str),
}

/// The manifest for this host. Attestations, which builders put beside images, are for no host.
pub(crate) fn by_platform(
    all: Vec<Descriptor>,
    several: Several<'_>,
    document: &str,
) -> Result<Descriptor, Error> {
    let error = |kind, why: &str| Error::new(kind, format!("choose an image of {document}: {why}"));
    let is_attestation = |d: &Descriptor| d.platform.as_ref().is_some_and(|p| p.os == "unknown");
    let platforms: Vec<_> = all
        .iter()
        .filter(|d| !is_attestation(d))
        .filter_map(|d| d.platform.as_ref())
        .map(|p| format!("{}/{}", shown(p.os.as_bytes()), shown(p.architecture.as_bytes())))
        .take(PLATFORMS_SHOWN_MAX)
        .collect();
    let mut fitting: Vec<_> =
        all.into_iter().filter(|d| d.platform.as_ref().is_none_or(Platform::fits)).collect();
    fitting.dedup_by(|a, b| a.digest == b.digest);
    match several {
        _ if fitting.is_empty() && platforms.is_empty() => Err(error(Kind::NotFound, "it has none")),
        _ if fitting.is_empty() => {
            let (platforms, architecture) = (platforms.join(", "), host_architecture());
            let text = format!("it is for {platforms}, this host needs {HOST_OS}/{architecture}");
            Err(error(Kind::WrongPlatform, &text))
        }
        Several::Ambiguous(why) if fitting.len() > 1 => Err(error(Kind::Ambiguous, why)),
        // One that names our platform before one that names none.
        _ => {
            let named = fitting.iter().position(|d| d.platform.is_some()).unwrap_or(0);
            Ok(fitting.swap_remove(named))
        }
    }
}

/// Most platforms that an error lists.
const PLATFORMS_SHOWN_MAX: usize = 32;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawManifest {
    schema_version: u32,
    config: Option<Descriptor>,
    #[serde(default, deserialize_with = "null_as_default")]
    layers: Vec<Descriptor>,
    #[serde(default, deserialize_with = "null_as_default")]
    annotations: BTreeMap<String, String>,
}

/// What a layout of ours says of its parts.
pub(crate) const INDEX: &str = INDEXES[0];
pub(crate) const MANIFEST: &str = MANIFESTS[0];
pub(crate) const CONFIG: &str = CONFIGS[0];
pub(crate) const LAYER: &str = LAYERS[0];

/// The type of a manifest, which it may leave to whoever names it; its configuration's type tells then.
pub(crate) fn media_type_of(manifest: &[u8]) -> &'static str {
    let config = serde_json::from_slice::<RawManifest>(manifest).ok().and_then(|manifest| manifest.config);
    let is_docker = config.is_some_and(|config| config.media_type == CONFIGS[1]);
    MANIFESTS[usize::from(is_docker)]
}

/// The configuration that a manifest names; `None` for other documents.
pub(crate) fn config_of(manifest: &[u8]) -> Option<Digest> {
    Some(serde_json::from_slice::<RawManifest>(manifest).ok()?.config?.digest)
}

/// The manifest of a container image: all it names is of a type we know, and not too much.
#[derive(Debug)]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
    annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// `image` is for errors.
    pub(crate) fn parse(text: &[u8], image: &str) -> Result<Self, Error> {
        let raw: RawManifest = serde_json::from_slice(text)
            .map_err(|e| Error::because(Kind::Corrupt, format!("read the manifest of image {image}"), e))?;
        let error =
            |kind, why: String| Error::new(kind, format!("read the manifest of image {image}: {why}"));
        if raw.schema_version != 2 {
            let why = format!("its schema version is {}, not 2", raw.schema_version);
            return Err(error(Kind::Unsupported, why));
        }
        let config = raw.config.ok_or_else(|| error(Kind::Unsupported, "it has no configuration".into()))?;
        if !CONFIGS.contains(&&*config.media_type) {
            let name = shown(config.media_type.as_bytes());
            let why = format!("its configuration is of the type `{name}`, so it is no container image");
            return Err(error(Kind::Unsupported, why));
        }
        if raw.layers.len() > LAYERS_MAX {
            let why = format!("{} layers, at most {LAYERS_MAX} are accepted", raw.layers.len());
            return Err(error(Kind::Unsupported, why));
        }
        if let Some(other) = raw.layers.iter().find(|layer| !LAYERS.contains(&&*layer.media_type)) {
            let why =
                format!("layer {} is of the type `{}`", other.digest, shown(other.media_type.as_bytes()));
            return Err(error(Kind::Unsupported, why));
        }
        let size = raw.layers.iter().try_fold(config.size, |sum, layer| sum.checked_add(layer.size));
        if size.is_none_or(|size| size > BLOB_MAX) {
            let why = format!("its layers have more than {BLOB_MAX} bytes together");
            return Err(error(Kind::TooLarge, why));
        }
        Ok(Self { config, layers: raw.layers, annotations: raw.annotations })
    }

    /// The manifest together with the document that says how the image is to be run.
    pub(crate) fn configured(self, name: String, config: &VerifiedBytes) -> Result<Configured, Error> {
        let (config, diff_ids) = configuration(config, self.annotations, &name)?;
        check_layer_count(&name, self.layers.len(), diff_ids.len())?;
        let layers = self.layers.into_iter().zip(diff_ids).collect();
        Ok(Configured { name, config, layers })
    }
}

/// An image for this host, of which only the layers are missing.
#[derive(Debug)]
pub(crate) struct Configured {
    name: String,
    config: ImageConfig,
    layers: Vec<(Descriptor, Digest)>,
}

impl Configured {
    pub(crate) fn layers(&self) -> impl Iterator<Item = &Descriptor> {
        self.layers.iter().map(|(layer, _)| layer)
    }

    /// Everything that the conversion needs; `blob` brings a layer into the store.
    pub(crate) fn prepare(
        self,
        mut blob: impl FnMut(&Descriptor) -> Result<Verified, Error>,
    ) -> Result<Prepared, Error> {
        let layers = self.layers.into_iter();
        let layers = layers
            .map(|(layer, diff_id)| Ok(Layer { blob: blob(&layer)?, flavour: Flavour::Oci { diff_id } }));
        let layers = layers.collect::<Result<_, Error>>()?;
        Ok(Prepared { name: self.name, config: self.config, layers })
    }
}

/// A way in for the fuzzer. The first line is the type that somebody declares, if it is not empty.
pub(crate) fn fuzz(bytes: &[u8]) {
    let end = bytes.iter().position(|b| *b == b'\n').unwrap_or(0);
    let (declared, text) = (std::str::from_utf8(&bytes[..end]).unwrap_or_default(), &bytes[end..]);
    let declared = Some(declared).filter(|declared| !declared.is_empty());
    let (kind, index) = (document_kind(text, declared, "x"), read_index(text, "x"));
    for several in [Several::OneImage, Several::Ambiguous("y")] {
        if let Some(all) = index.as_ref().ok().cloned()
            && let Ok(chosen) = by_platform(all, several, "x")
        {
            assert!(chosen.platform.is_none_or(|platform| platform.fits()), "this host can run it");
        }
    }
    if let Ok(manifest) = Manifest::parse(text, "x") {
        assert_eq!(config_of(text), Some(manifest.config.digest), "both readers see one document");
        assert!(kind.is_err() || MANIFESTS.contains(&media_type_of(text)), "it has a type");
    }
}

//! OCI image layouts, in a directory or in an archive (OCI image-spec, "Image Layout").

use std::io::Read;
use std::path::{Path, PathBuf};

use hull_errors::Doing;

use crate::blobs::{Blobs, DOCUMENT_MAX, Verified, VerifiedBytes};
use crate::digest::{Digest, ImageId};
pub(crate) use crate::document::{CONFIG, INDEX, LAYER, MANIFEST, media_type_of};
use crate::document::{
    Descriptor, INDEXES, MANIFESTS, Manifest, NESTED_MAX, Several, by_platform, document_kind, read_index,
};
use crate::import::open_regular;
use crate::member::Archive;
use crate::store::Prepared;
use crate::{Error, Kind};

/// The name of an image inside a layout (OCI image-spec, "Pre-Defined Annotation Keys").
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The full name that Docker and containerd add.
const FULL_NAME: &str = "io.containerd.image.name";

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
        let index = layout.open("index.json")?.ok_or_else(|| {
            let why = match layout {
                Layout::Folder(folder) if !folder.exists() => "there is no such folder",
                _ => "no `index.json` in it",
            };
            Error::new(Kind::NotAnImage, format!("read {shown}: {why}"))
        })?;
        let mut text = Vec::new();
        let read = index.take(DOCUMENT_MAX + 1).read_to_end(&mut text);
        read.doing(Kind::Host, || format!("read `index.json` of {shown}"))?;
        if text.len() as u64 > DOCUMENT_MAX {
            let text = format!("read `index.json` of {shown}: it has more than {DOCUMENT_MAX} bytes");
            return Err(Error::new(Kind::TooLarge, text));
        }
        let all = read_index(&text, &format!("`index.json` of {shown}"))?;
        let tags = tags(&all);
        let several = match tag {
            Some(_) => "several images have this tag".to_owned(),
            None => format!("it has several, name a tag after a colon: {tags}"),
        };
        let named = by_tag(all, tag, &shown)?;
        let mut chosen = by_platform(named, Several::Ambiguous(&several), &shown)?;
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
            let document = format!("index {} of {shown}", chosen.digest);
            document_kind(bytes.as_slice(), Some(&chosen.media_type), &document)?;
            chosen = by_platform(read_index(bytes.as_slice(), &document)?, Several::OneImage, &shown)?;
        }
        let text = format!("read {shown}: more than {NESTED_MAX} indexes inside each other");
        Err(Error::new(Kind::Corrupt, text))
    }

    pub(crate) fn id(&self) -> ImageId {
        ImageId::from(&self.manifest.digest)
    }

    pub(crate) fn prepare(self, blobs: &Blobs) -> Result<Prepared, Error> {
        let text = self.document(&self.manifest, blobs)?;
        document_kind(
            text.as_slice(),
            Some(&self.manifest.media_type),
            &format!("the manifest of image {}", self.name),
        )?;
        let manifest = Manifest::parse(text.as_slice(), &self.name)?;
        let config = self.document(&manifest.config, blobs)?;
        manifest.configured(self.name.clone(), &config)?.prepare(|layer| match blobs.get(&layer.digest)? {
            Some(blob) => Ok(blob),
            None => self.add(layer, blobs),
        })
    }

    fn document(&self, descriptor: &Descriptor, blobs: &Blobs) -> Result<VerifiedBytes, Error> {
        self.add(descriptor, blobs)?.document()
    }

    fn add(&self, descriptor: &Descriptor, blobs: &Blobs) -> Result<Verified, Error> {
        let mut source = self.layout.blob(&descriptor.digest)?;
        blobs.add(&mut source, &descriptor.digest, Some(descriptor.size))
    }
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

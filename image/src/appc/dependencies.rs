//! What an image lies on: other images, which lie on others again, flattened into layers.
//!
//! The order is rkt's: an image comes after what it depends on, its dependencies in the order in which it names
//! them, and what comes later overrides. Of an image's files those show that its own `pathWhitelist` names and
//! those of all images that depend on it, as far as they have one.

use std::collections::BTreeSet;

use super::Name;
use crate::aci::{Dependency, Manifest};
use crate::blobs::Verified;
use crate::convert::{Flavour, LAYERS_MAX, Layer};
use crate::digest::Digest;
use crate::{Error, Kind};

/// Most images that lie on each other.
const DEPTH_MAX: usize = 32;

/// An image of the store that others lie on, or that lies on others.
pub(super) struct Part {
    pub(super) blob: Verified,
    pub(super) manifest: Manifest,
}

/// Finds what a dependency means; where, is not this file's concern.
pub(super) trait Find {
    fn find(&self, dependency: &Dependency, name: &Name) -> Result<Part, Error>;
}

/// The layers of an image, the lowest first.
///
/// # Errors
/// [`Kind::Corrupt`] for a circle, [`Kind::TooLarge`], those of `find`.
pub(super) fn layers(top: Part, find: &dyn Find) -> Result<(Manifest, Vec<Layer>), Error> {
    let mut walk = Walk { find, chain: Vec::new(), layers: Vec::new() };
    let manifest = walk.visit(top, None)?;
    Ok((manifest, without_hidden(walk.layers)))
}

struct Walk<'a> {
    find: &'a dyn Find,
    /// From the top to where we are: title and digest.
    chain: Vec<(String, Digest)>,
    layers: Vec<Layer>,
}

/// What all images above let show; `None` is everything.
type Shown = Option<BTreeSet<String>>;

impl Walk<'_> {
    fn visit(&mut self, part: Part, above: Shown) -> Result<Manifest, Error> {
        let Part { blob, manifest } = part;
        let title = manifest.title();
        let circle = self.chain.iter().any(|(_, digest)| digest == blob.digest());
        self.chain.push((title, blob.digest().clone()));
        if circle {
            let text = format!("resolve dependencies: they go in a circle: {}", self.shown());
            return Err(Error::new(Kind::Corrupt, text));
        }
        if self.chain.len() > DEPTH_MAX {
            let text = format!(
                "resolve dependencies: more than {DEPTH_MAX} images lie on each other: {}",
                self.shown()
            );
            return Err(Error::new(Kind::TooLarge, text));
        }
        let own = normal(manifest.whitelist());
        let below = both(&above, &own);
        for dependency in manifest.dependencies() {
            let name = Name::new(dependency.name.clone(), dependency.labels.clone());
            let part = name.and_then(|name| self.find.find(dependency, &name));
            let part = part.map_err(|e| {
                let doing = format!("resolve dependency {} of {}", dependency.name, self.shown());
                Error::because(*e.kind(), doing, e)
            })?;
            self.visit(part, below.clone())?;
        }
        if self.layers.len() == LAYERS_MAX {
            let top = &self.chain[0].0;
            let text = format!("resolve dependencies: image {top} lies on more than {LAYERS_MAX} others");
            return Err(Error::new(Kind::TooLarge, text));
        }
        let flavour = Flavour::Aci { whitelist: listed(own), whitelist_above: listed(above) };
        self.layers.push(Layer { blob, flavour });
        self.chain.pop();
        Ok(manifest)
    }

    fn shown(&self) -> String {
        self.chain.iter().map(|(title, _)| title.as_str()).collect::<Vec<_>>().join(" -> ")
    }
}

/// A layer that comes again later, whole as before, has nothing left to show where it came first.
fn without_hidden(layers: Vec<Layer>) -> Vec<Layer> {
    let mut seen: Vec<(Digest, Flavour)> = Vec::new();
    let mut kept: Vec<Layer> = Vec::new();
    for layer in layers.into_iter().rev() {
        let key = (layer.blob.digest().clone(), layer.flavour.clone());
        if !seen.contains(&key) {
            seen.push(key);
            kept.push(layer);
        }
    }
    kept.reverse();
    kept
}

/// The paths of a list as the converter compares them; an empty list names everything.
fn normal(list: &[String]) -> Shown {
    let normal = |path: &String| {
        let mut parts: Vec<&str> = Vec::new();
        for part in path.split('/') {
            match part {
                "" | "." => (),
                ".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        parts.join("/")
    };
    (!list.is_empty()).then(|| list.iter().map(normal).collect())
}

fn both(one: &Shown, other: &Shown) -> Shown {
    match (one, other) {
        (None, shown) | (shown, None) => shown.clone(),
        (Some(one), Some(other)) => Some(one.intersection(other).cloned().collect()),
    }
}

/// For the converter, to which an empty list is none: nothing but the root, a directory, shows by this one.
fn listed(shown: Shown) -> Vec<String> {
    match shown {
        None => Vec::new(),
        Some(paths) if paths.is_empty() => vec!["/".into()],
        Some(paths) => paths.into_iter().collect(),
    }
}

//! Paths inside an image: lists of names, free of `.`, `..` and everything else that has a meaning.

use std::fmt;

use super::Refusal;

/// A path below the root of an image; without parts it is the root itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TreePath(Vec<Box<[u8]>>);

impl TreePath {
    /// Reads a path of an archive. One that begins with a slash begins at the image's root, as every
    /// other does; `..` is refused, for nothing in an archive needs it.
    pub(crate) fn parse(path: &[u8]) -> Result<Self, Refusal> {
        let parts = path.split(|b| *b == b'/').filter(|part| !part.is_empty() && *part != b".");
        let parts: Vec<Box<[u8]>> = parts.map(Into::into).collect();
        if parts.iter().any(|part| **part == *b"..") {
            return Err(format!("`{}` leads up by `..`", hull_converter_protocol::shown(path)));
        }
        Ok(Self(parts))
    }

    pub(crate) fn parts(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(|part| &**part)
    }

    pub(crate) fn is_below_or_at(&self, other: &TreePath) -> bool {
        self.0.starts_with(&other.0)
    }

    /// The last part, and those before it.
    pub(crate) fn split_last(&self) -> Option<(&[u8], impl Iterator<Item = &[u8]>)> {
        let (last, rest) = self.0.split_last()?;
        Some((last, rest.iter().map(|part| &**part)))
    }

    /// The path without its last part; the root for the root.
    pub(crate) fn parent(&self) -> Self {
        Self(self.0.split_last().map_or_else(Vec::new, |(_, parents)| parents.to_vec()))
    }

    /// The same directory, another name.
    pub(crate) fn with_name(&self, name: &[u8]) -> Self {
        let mut path = self.parent();
        path.0.push(name.into());
        path
    }

    /// What is left below `first`, if the path lies there.
    pub(crate) fn below(&self, first: &[u8]) -> Option<Self> {
        let (top, rest) = self.0.split_first()?;
        (**top == *first).then(|| Self(rest.to_vec()))
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hull_converter_protocol::shown(&self.0.join(&b'/')))
    }
}

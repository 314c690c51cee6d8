//! Paths inside an image: lists of names, free of `.`, `..` and everything else that has a meaning.

use std::fmt;

use super::Refusal;

/// Between names. It sorts before every byte that a name may have, so that what lies in a directory comes
/// right after it.
const SEPARATOR: u8 = 0;

/// A path below the root of an image; without parts it is the root itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TreePath(Vec<u8>);

impl TreePath {
    /// Reads a path of an archive. One that begins with a slash begins at the image's root, as every
    /// other does; `..` is refused, for nothing in an archive needs it.
    pub(crate) fn parse(path: &[u8]) -> Result<Self, Refusal> {
        let shown = || hull_converter_protocol::shown(path);
        if path.contains(&SEPARATOR) {
            return Err(format!("`{}` has a NUL inside", shown()));
        }
        let mut parsed = Self(Vec::with_capacity(path.len()));
        for part in path.split(|b| *b == b'/').filter(|part| !part.is_empty() && *part != b".") {
            if part == b".." {
                return Err(format!("`{}` leads up by `..`", shown()));
            }
            parsed.push(part);
        }
        Ok(parsed)
    }

    pub(crate) fn parts(&self) -> impl Iterator<Item = &[u8]> {
        parts(&self.0)
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn is_below_or_at(&self, other: &TreePath) -> bool {
        let rest = self.0.strip_prefix(&*other.0);
        rest.is_some_and(|rest| rest.is_empty() || other.0.is_empty() || rest[0] == SEPARATOR)
    }

    /// The last part, and those before it.
    pub(crate) fn split_last(&self) -> Option<(&[u8], impl Iterator<Item = &[u8]>)> {
        let start = self.last_start();
        let parents = &self.0[..start.saturating_sub(1)];
        (!self.0.is_empty()).then(|| (&self.0[start..], parts(parents)))
    }

    /// The path without its last part; the root for the root.
    pub(crate) fn parent(&self) -> Self {
        Self(self.0[..self.last_start().saturating_sub(1)].to_vec())
    }

    /// The same directory, another name.
    pub(crate) fn with_name(&self, name: &[u8]) -> Self {
        let mut path = self.parent();
        path.push(name);
        path
    }

    /// What is left below `first`, if the path lies there.
    pub(crate) fn below(&self, first: &[u8]) -> Option<Self> {
        match self.0.strip_prefix(first)? {
            [] => Some(Self(Vec::new())),
            [SEPARATOR, rest @ ..] => Some(Self(rest.to_vec())),
            _ => None,
        }
    }

    fn push(&mut self, name: &[u8]) {
        if !self.0.is_empty() {
            self.0.push(SEPARATOR);
        }
        self.0.extend_from_slice(name);
    }

    fn last_start(&self) -> usize {
        self.0.iter().rposition(|b| *b == SEPARATOR).map_or(0, |separator| separator + 1)
    }
}

fn parts(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|b| *b == SEPARATOR).filter(|part| !part.is_empty())
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<_> = self.parts().collect();
        f.write_str(&hull_converter_protocol::shown(&parts.join(&b'/')))
    }
}

//! What a key may sign.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::appc::Identifier;
use crate::{Error, Kind};

/// The names of images that a key is trusted for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Scope(Option<Identifier>);

impl Scope {
    /// Every image.
    pub const ROOT: Scope = Scope(None);

    /// The images of that name, and those whose name goes on with a slash.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] for what no image can be called.
    pub fn prefix(text: &str) -> Result<Self, Error> {
        match text.parse::<Identifier>() {
            Ok(prefix) => Ok(Scope(Some(prefix))),
            Err(cause) => Err(Error::because(
                Kind::Unsupported,
                format!("trust a key for names that begin with `{}`", text.escape_debug()),
                cause,
            )),
        }
    }

    /// Whether `image` is such a name.
    pub(super) fn covers(&self, image: &str) -> bool {
        let Some(prefix) = &self.0 else { return true };
        // At the end of a part only: a key of `example.com/app` says nothing of `example.com/apple`.
        let rest = image.strip_prefix(prefix.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Where its keys are, below `trustedkeys`.
    pub(super) fn folder(&self) -> PathBuf {
        match &self.0 {
            None => PathBuf::from("root.d"),
            Some(prefix) => Path::new("prefix.d").join(prefix.as_str()),
        }
    }

    /// `prefix "example.com"`, `root`
    pub(super) fn of_folder(folder: &Path) -> Option<Self> {
        if folder == Path::new("root.d") {
            return Some(Self::ROOT);
        }
        let prefix = folder.strip_prefix("prefix.d").ok()?.to_str()?;
        prefix.parse().ok().map(|prefix| Scope(Some(prefix)))
    }

    /// What is told when a key was added, as rkt says it.
    pub(super) fn added(&self, path: &Path) -> String {
        match &self.0 {
            None => format!("Added root key at \"{}\"", path.display()),
            Some(prefix) => format!("Added key for prefix \"{}\" at \"{}\"", prefix.as_str(), path.display()),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            None => f.write_str("all images"),
            Some(prefix) => write!(f, "`{}`", prefix.as_str()),
        }
    }
}

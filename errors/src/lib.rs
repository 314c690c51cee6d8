//! One error shape for every crate: what we were doing (for people), which kind (for code), why
//! (the source). Each crate brings its own `Kind`.
#![forbid(unsafe_code)]

use std::error::Error as StdError;
use std::fmt;

/// An error with a machine-readable `kind` and a human-readable `doing`.
///
/// `doing` is lower case, starts with a verb, names the object and has no full stop:
/// `open blob sha256-ab12`. `Display` prints it alone; [`chain`] adds the sources, once.
#[derive(Debug)]
pub struct Error<K> {
    kind: K,
    doing: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl<K> Error<K> {
    /// An error whose text says everything there is to say.
    pub fn new(kind: K, doing: impl Into<String>) -> Self {
        Self { kind, doing: doing.into(), source: None }
    }

    /// An error with a cause.
    pub fn because(
        kind: K,
        doing: impl Into<String>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self { kind, doing: doing.into(), source: Some(source.into()) }
    }

    /// What callers branch on; never the text.
    pub fn kind(&self) -> &K {
        &self.kind
    }
}

impl<K> fmt::Display for Error<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.doing)
    }
}

impl<K: fmt::Debug> StdError for Error<K> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|s| s.as_ref() as _)
    }
}

/// Adds `kind` and `doing` to any result.
pub trait Doing<T> {
    /// `File::open(&p).doing(Kind::Missing, || format!("open blob {}", p.display()))?`
    ///
    /// # Errors
    /// The receiver's error, as the source of the new one.
    fn doing<K>(self, kind: K, what: impl FnOnce() -> String) -> Result<T, Error<K>>;
}

impl<T, E: Into<Box<dyn StdError + Send + Sync>>> Doing<T> for Result<T, E> {
    fn doing<K>(self, kind: K, what: impl FnOnce() -> String) -> Result<T, Error<K>> {
        self.map_err(|source| Error::because(kind, what(), source))
    }
}

/// The only place where a chain of errors becomes text; called by `main` and nobody else.
pub fn chain(err: &dyn StdError) -> String {
    let links = std::iter::successors(Some(err), |e| (*e).source());
    links.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_says_each_thing_once() {
        let io = std::io::Error::other("disk full");
        let inner: Error<()> = Error::because((), "write blob", io);
        let outer: Error<()> = Error::because((), "import image x", inner);
        assert_eq!(chain(&outer), "import image x: write blob: disk full");
        assert_eq!(outer.to_string(), "import image x");
    }
}

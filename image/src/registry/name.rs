//! Names of images in registries: `[HOST[:PORT]/]REPOSITORY[:TAG][@DIGEST]`.
//!
//! The grammar of a repository and a tag is that of the OCI distribution-spec v1.1 ("Pulling manifests"), the
//! short forms are Docker's: `busybox` is `docker.io/library/busybox:latest`. Hosts are made canonical (lower
//! case, ports and addresses as numbers are written), for a rule that speaks of a host must meet all its names.

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::shown;
use crate::{Error, Kind};

/// Longest host, `/` and repository together (distribution-spec v1.1, "Pulling manifests": what clients accept).
const NAME_MAX: usize = 255;

/// Longest tag: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}` (distribution-spec v1.1).
const TAG_MAX: usize = 128;

/// Longest host name (RFC 1035 section 2.3.4), and longest part of one.
const HOST_MAX: usize = 253;
const LABEL_MAX: usize = 63;

/// Where names without a host are, and how their short forms go on.
const DEFAULT_HOST: &str = "docker.io";
const DEFAULT_FOLDER: &str = "library/";
const DEFAULT_TAG: &str = "latest";

/// The name of an image in a registry. `Display` is canonical: equal names have one text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name {
    host: String,
    repository: String,
    /// `None` only if there is a digest.
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Name {
    /// Reads a name.
    ///
    /// # Errors
    /// [`Kind::NotFound`] with what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, Error> {
        read(text).map_err(|cause| {
            let text = shown(text.as_bytes());
            Error::new(Kind::NotFound, format!("read image name `{text}`: {cause}"))
        })
    }

    /// The host and, if it is named, the port: `docker.io`, `localhost:5000`, `[::1]:5000`.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// `library/busybox`
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// What is after the colon; `None` if only the digest counts.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// What is after the `@`. It counts more than the tag.
    pub(crate) fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// `HOST/REPOSITORY`, without tag and digest.
    pub fn without_tag(&self) -> String {
        format!("{}/{}", self.host, self.repository)
    }

    /// The same image in another place, `HOST/REPOSITORY`, as a mirror has it. That is no short form.
    pub(crate) fn moved(&self, place: &str) -> Result<Self, Error> {
        let moved = Self::parse(place)?;
        if moved.without_tag() != place {
            let text = shown(place.as_bytes());
            return Err(Error::new(
                Kind::NotFound,
                format!("read image name `{text}`: it lacks host or repository"),
            ));
        }
        let Self { host, repository, .. } = moved;
        Ok(Self { host, repository, tag: self.tag.clone(), digest: self.digest.clone() })
    }
}

impl FromStr for Name {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text)
    }
}

impl TryFrom<String> for Name {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        Self::parse(&text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> String {
        name.to_string()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        self.digest.as_ref().map_or(Ok(()), |digest| write!(f, "@{digest}"))
    }
}

fn read(text: &str) -> Result<Name, String> {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest.parse::<Digest>()?)),
        None => (text, None),
    };
    let (host, rest) = match rest.split_once('/') {
        Some((first, rest)) if looks_like_host(first) => (canonical_host(first)?, rest),
        _ => (DEFAULT_HOST.to_owned(), rest),
    };
    // A colon before a slash belongs to no tag, and is found wrong in the repository.
    let (path, tag) = match rest.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        _ => (rest, None),
    };
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return Err(format!("a tag has at most {TAG_MAX} of `a-zA-Z0-9_.-` and begins with none of `.-`"));
    }
    if !path.split('/').all(is_component) {
        return Err("a repository has parts of `a-z0-9` with `.`, `_`, `__` or `-` between".into());
    }
    let is_short = host == DEFAULT_HOST && !path.contains('/');
    if is_short && path.len() == 64 && path.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Err("64 hex digits are the id of an image (write `sha256-…`), no name".into());
    }
    let repository = format!("{}{path}", if is_short { DEFAULT_FOLDER } else { "" });
    if host.len() + 1 + repository.len() > NAME_MAX {
        return Err(format!("host and repository have more than {NAME_MAX} characters"));
    }
    let default = digest.is_none().then_some(DEFAULT_TAG);
    Ok(Name { host, repository, tag: tag.or(default).map(str::to_owned), digest })
}

/// Docker's rule: what is before the first slash is a host if it has a dot or a port, or is `localhost`.
/// (Docker takes what has capitals for a host too; in lower case, as hosts are compared, it would be none.)
pub(crate) fn looks_like_host(text: &str) -> bool {
    text.eq_ignore_ascii_case("localhost") || text.contains(['.', ':', '['])
}

/// `HOST[:PORT]`, as everybody writes it.
pub(crate) fn canonical_host(text: &str) -> Result<String, String> {
    let wrong = || format!("`{}` is no host", shown(text.as_bytes()));
    // The colons of an address are inside brackets.
    let (host, port) = match text.rfind(']').map(|end| text.split_at(end + 1)) {
        Some((host, "")) => (host, None),
        Some((host, port)) => (host, Some(port.strip_prefix(':').ok_or_else(wrong)?)),
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => format!("[{}]", address.parse::<Ipv6Addr>().map_err(|_| wrong())?),
        None => host_name(host).ok_or_else(wrong)?,
    };
    let Some(port) = port else {
        let aliases = ["index.docker.io", "registry-1.docker.io"];
        return Ok(if aliases.contains(&&*host) { DEFAULT_HOST.into() } else { host });
    };
    let number = port.bytes().all(|b| b.is_ascii_digit()).then(|| port.parse::<u16>().ok()).flatten();
    let number = number
        .filter(|port| *port != 0)
        .ok_or_else(|| format!("`{}` is no port: it must be between 1 and 65535", shown(port.as_bytes())))?;
    Ok(format!("{host}:{number}"))
}

fn host_name(text: &str) -> Option<String> {
    let is_label = |label: &str| {
        let letters = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        letters && (1..=LABEL_MAX).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
    };
    if text.len() > HOST_MAX || !text.split('.').all(is_label) {
        return None;
    }
    let text = text.to_ascii_lowercase();
    // URLs take `127.1` and `0x7f000001` for addresses; to us they would be names of another host.
    let last = text.rsplit('.').next().expect("split yields at least one part");
    let hex = last.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_hexdigit()));
    if hex || last.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse::<Ipv4Addr>().ok().map(|address| address.to_string());
    }
    Some(text)
}

fn is_tag(text: &str) -> bool {
    let letters = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    letters && (1..=TAG_MAX).contains(&text.len()) && !text.starts_with(['.', '-'])
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*` (distribution-spec v1.1)
fn is_component(text: &str) -> bool {
    let is_letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let ends = bytes.first().is_some_and(|b| is_letter(*b)) && bytes.last().is_some_and(|b| is_letter(*b));
    let mut between = bytes.split(|b| is_letter(*b)).filter(|separator| !separator.is_empty());
    ends && between
        .all(|separator| matches!(separator, b"." | b"_" | b"__") || separator.iter().all(|b| *b == b'-'))
}

//! What a user can write to name an image.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use url::Url;

use crate::appc::{self, Distribution};
use crate::digest::IdPrefix;
use crate::error::shown;
use crate::{Error, Kind, registry};

/// A name of an image, as a user writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// `oci:PATH[:TAG]`: a directory in the OCI image layout.
    OciLayout { path: PathBuf, tag: Option<String> },
    /// `oci-archive:PATH[:TAG]`: such a layout in a tar archive.
    OciArchive { path: PathBuf, tag: Option<String> },
    /// `docker-archive:PATH[:REF]`: what `docker save` writes.
    DockerArchive { path: PathBuf, name: Option<String> },
    /// A path: any of these, or an ACI.
    Path(PathBuf),
    /// `sha512-HEX…`, `sha256-HEX…`: the id of an image in the store, or the beginning of one.
    Id(IdPrefix),
    /// `docker://NAME`, `docker:NAME`: an image of a registry.
    Registry(registry::Name),
    /// `http://…aci`, `https://…aci`: an ACI.
    Url(Url),
    /// A name without a scheme.
    Plain(PlainName),
}

/// A name that could be an ACI's or that of an image in a registry: `coreos.com/etcd:v3.1.0`. One of the two
/// is there at least.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlainName {
    pub appc: Option<appc::Name>,
    pub registry: Option<registry::Name>,
}

impl PlainName {
    /// The ACI that discovery may look for: its name begins with a domain (appc spec, "App Container Image
    /// Discovery").
    pub fn discoverable(&self) -> Option<&appc::Name> {
        let has_domain = |name: &&appc::Name| name.name().split('/').next().is_some_and(|d| d.contains('.'));
        self.appc.as_ref().filter(has_domain)
    }

    fn parse(text: &str) -> Option<Self> {
        // Only a registry knows digests, only appc knows labels.
        let appc = (!text.contains('@')).then(|| appc::Name::parse(text).ok()).flatten();
        let registry = (!text.contains([',', '='])).then(|| registry::Name::parse(text).ok()).flatten();
        (appc.is_some() || registry.is_some()).then_some(Self { appc, registry })
    }
}

impl Reference {
    /// Reads a reference. Text that could be a path is one if such a file exists.
    ///
    /// # Errors
    /// Anything else, with what could be written instead.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if let Some(prefix) = IdPrefix::parse(text) {
            return Ok(Reference::Id(prefix));
        }
        if let Some((scheme, rest)) = text.split_once(':')
            && let Some(reference) = with_scheme(text, scheme, rest)
        {
            return reference;
        }
        if is_path(text) {
            return Ok(Reference::Path(PathBuf::from(text)));
        }
        PlainName::parse(text).map(Reference::Plain).ok_or_else(|| not_understood(text))
    }
}

/// `None` if the scheme is none, and so part of a name.
fn with_scheme(text: &str, scheme: &str, rest: &str) -> Option<Result<Reference, Error>> {
    Some(match scheme {
        "oci" => located(text, rest).map(|(path, tag)| Reference::OciLayout { path, tag }),
        "oci-archive" => located(text, rest).map(|(path, tag)| Reference::OciArchive { path, tag }),
        "docker-archive" => located(text, rest).map(|(path, name)| Reference::DockerArchive { path, name }),
        "docker" => registry::Name::parse(rest.trim_start_matches('/')).map(Reference::Registry),
        "file" | "http" | "https" => Url::parse(text)
            .map_err(|e| Error::because(Kind::NotFound, format!("read URL `{}`", shown(text.as_bytes())), e))
            .and_then(|url| aci_at(&url)),
        "cimd" => Distribution::parse(text)?.and_then(distributed),
        _ if rest.starts_with("//") => Err(not_understood(text)),
        _ => return None,
    })
}

/// As rkt's: a path is absolute, begins with a dot, ends in `.aci`, or is there.
fn is_path(text: &str) -> bool {
    let looks_like_one = ["/", "./", "../"].iter().any(|start| text.starts_with(start));
    let says_so = matches!(text, "." | "..") || text.ends_with(".aci");
    looks_like_one || says_so || (!text.is_empty() && Path::new(text).exists())
}

fn located(text: &str, rest: &str) -> Result<(PathBuf, Option<String>), Error> {
    let (path, tag) = rest.split_once(':').map_or((rest, None), |(path, tag)| (path, Some(tag)));
    if path.is_empty() || tag == Some("") {
        let shown = shown(text.as_bytes());
        let text = format!("read image reference `{shown}`: the path or the tag is empty");
        return Err(Error::new(Kind::NotFound, text));
    }
    Ok((PathBuf::from(path), tag.map(str::to_owned)))
}

fn aci_at(url: &Url) -> Result<Reference, Error> {
    let refused = |why: &str| {
        let shown = shown(url.as_str().as_bytes());
        Error::new(Kind::NotFound, format!("read URL `{shown}`: {why}"))
    };
    if !url.path().ends_with(".aci") {
        return Err(refused(
            "its path does not end in `.aci` (images of registries are written `docker://NAME`)",
        ));
    }
    if url.scheme() == "file" {
        let path = url.to_file_path().map_err(|()| refused("it names no file of this host"))?;
        return Ok(Reference::Path(path));
    }
    Ok(Reference::Url(url.clone()))
}

fn distributed(distribution: Distribution) -> Result<Reference, Error> {
    match distribution {
        Distribution::Name(name) => Ok(Reference::Plain(PlainName { appc: Some(name), registry: None })),
        Distribution::Archive(url) => aci_at(&url),
        Distribution::Docker(name) => registry::Name::parse(&name).map(Reference::Registry),
    }
}

fn not_understood(text: &str) -> Error {
    let shown = shown(text.as_bytes());
    let forms = "`docker://NAME[:TAG][@DIGEST]`, NAME[:VERSION][,LABEL=VALUE], the URL of an `.aci`, a path, \
                 `oci:DIRECTORY[:TAG]`, `oci-archive:FILE[:TAG]`, `docker-archive:FILE[:NAME]`, or the id of an \
                 image in the store";
    let text =
        format!("read image reference `{shown}`: it is no file and no name of an image; write {forms}");
    Error::new(Kind::NotFound, text)
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, path, tag) = match self {
            Reference::OciLayout { path, tag } => ("oci:", path, tag),
            Reference::OciArchive { path, tag } => ("oci-archive:", path, tag),
            Reference::DockerArchive { path, name } => ("docker-archive:", path, name),
            Reference::Path(path) => return path.display().fmt(f),
            Reference::Id(prefix) => return f.write_str(prefix.as_str()),
            Reference::Registry(name) => return write!(f, "docker://{name}"),
            Reference::Url(url) => return url.fmt(f),
            Reference::Plain(PlainName { appc: Some(name), .. }) => return name.fmt(f),
            Reference::Plain(PlainName { registry: Some(name), .. }) => return name.fmt(f),
            Reference::Plain(_) => return Ok(()),
        };
        write!(f, "{scheme}{}", path.display())?;
        tag.as_ref().map_or(Ok(()), |tag| write!(f, ":{tag}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: Result<Reference, &str>) {
        match (Reference::parse(text), want) {
            (Ok(got), Ok(want)) => {
                assert_eq!(got, want);
                assert_eq!(got.to_string(), text);
            }
            (Err(got), Err(want)) => assert!(got.to_string().contains(want), "{got}"),
            (got, want) => panic!("got {got:?}, want {want:?}"),
        }
    }

    #[test]
    fn references_are_told_apart() {
        let tag = |tag: &str| Some(tag.to_owned());
        check("oci:/a/b", Ok(Reference::OciLayout { path: "/a/b".into(), tag: None }));
        check("oci:a:v1", Ok(Reference::OciLayout { path: "a".into(), tag: tag("v1") }));
        check("oci:a:b:c", Ok(Reference::OciLayout { path: "a".into(), tag: tag("b:c") }));
        check("oci-archive:a.tar", Ok(Reference::OciArchive { path: "a.tar".into(), tag: None }));
        check(
            "docker-archive:a.tar:busybox:latest",
            Ok(Reference::DockerArchive { path: "a.tar".into(), name: tag("busybox:latest") }),
        );
        check("/no/such/file.aci", Ok(Reference::Path("/no/such/file.aci".into())));
        check("./x:y", Ok(Reference::Path("./x:y".into())));
        check("src", Ok(Reference::Path("src".into()))); // Tests run in the crate's folder.
        check("sha512-ab", Ok(Reference::Id(IdPrefix::parse("sha512-ab").unwrap())));
        check("some.aci", Ok(Reference::Path("some.aci".into())));
        let url = Url::parse("https://example.com/a.aci").unwrap();
        check("https://example.com/a.aci", Ok(Reference::Url(url)));
        let name = registry::Name::parse("localhost:5000/a/b:c").unwrap();
        check("docker://localhost:5000/a/b:c", Ok(Reference::Registry(name)));
    }

    #[test]
    fn one_thing_may_be_written_in_several_ways() {
        let same = |text: &str, other: &str| {
            assert_eq!(Reference::parse(text).unwrap(), Reference::parse(other).unwrap(), "{text}");
        };
        same("docker:busybox", "docker://docker.io/library/busybox:latest");
        same("cimd:docker:v=0:busybox", "docker://busybox");
        same("cimd:aci-archive:v=0:https%3A%2F%2Fexample.com%2Fa.aci", "https://example.com/a.aci");
        same("file:///tmp/a.aci", "/tmp/a.aci");
    }

    /// What a name without a scheme may be: an ACI found by discovery, one of the store only, a registry's.
    #[track_caller]
    fn check_plain(text: &str, discoverable: bool, appc: bool, registry: Option<&str>) {
        let Ok(Reference::Plain(name)) = Reference::parse(text) else { panic!("{text} is no plain name") };
        assert_eq!(name.discoverable().is_some(), discoverable, "{text}");
        assert_eq!(name.appc.is_some(), appc, "{text}");
        assert_eq!(name.registry.map(|name| name.to_string()).as_deref(), registry, "{text}");
    }

    #[test]
    fn plain_names_are_what_they_can_be() {
        check_plain("coreos.com/etcd:v3", true, true, Some("coreos.com/etcd:v3"));
        check_plain("coreos.com/etcd,version=v3", true, true, None);
        check_plain("busybox", false, true, Some("docker.io/library/busybox:latest"));
        check_plain("localhost:5000/a/b:c", false, false, Some("localhost:5000/a/b:c"));
        let digest = format!("example.com/a@sha256:{}", "a".repeat(64));
        check_plain(&digest, false, false, Some(&digest));
    }

    #[test]
    fn what_cannot_be_found_says_what_can() {
        check("ftp://example.com/a.aci", Err("docker://NAME"));
        check("https://example.com/a", Err("does not end in `.aci`"));
        check("docker://", Err("read image name"));
        check("docker://UPPER/case", Err("read image name"));
        check("A B", Err("it is no file and no name"));
        check("", Err("it is no file and no name"));
        check("oci:", Err("empty"));
        check("oci:x:", Err("empty"));
    }
}

//! What a user can write to name an image.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::digest::IdPrefix;
use crate::{Error, Kind};

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
        let located = |rest: &str| {
            let (path, tag) = rest.split_once(':').map_or((rest, None), |(path, tag)| (path, Some(tag)));
            if path.is_empty() || tag == Some("") {
                let text =
                    format!("read image reference `{}`: the path or the tag is empty", text.escape_debug());
                return Err(Error::new(Kind::NotFound, text));
            }
            Ok((PathBuf::from(path), tag.map(str::to_owned)))
        };
        if let Some(rest) = text.strip_prefix("oci:") {
            return located(rest).map(|(path, tag)| Reference::OciLayout { path, tag });
        }
        if let Some(rest) = text.strip_prefix("oci-archive:") {
            return located(rest).map(|(path, tag)| Reference::OciArchive { path, tag });
        }
        if let Some(rest) = text.strip_prefix("docker-archive:") {
            return located(rest).map(|(path, name)| Reference::DockerArchive { path, name });
        }
        let looks_like_path = ["/", "./", "../"].iter().any(|start| text.starts_with(start));
        if looks_like_path || matches!(text, "." | "..") || (!text.is_empty() && Path::new(text).exists()) {
            return Ok(Reference::Path(PathBuf::from(text)));
        }
        Err(not_understood(text))
    }
}

fn not_understood(text: &str) -> Error {
    let shown = text.escape_debug();
    let not_built = format!("find image `{shown}`: pulling from registries is not built yet");
    if let Some(name) = text.strip_prefix("docker:") {
        let name = name.trim_start_matches('/').escape_debug();
        let hint = format!(
            "save it with `skopeo copy docker://{name} oci:DIRECTORY:TAG` and use `oci:DIRECTORY:TAG`"
        );
        return Error::new(Kind::Unsupported, format!("{not_built}; {hint}"));
    }
    if text.split_once("://").is_some_and(|(scheme, _)| !scheme.is_empty()) {
        return Error::new(
            Kind::Unsupported,
            format!("{not_built}, nor is fetching URLs; download it and use its path"),
        );
    }
    let forms = "a path, `oci:DIRECTORY[:TAG]`, `oci-archive:FILE[:TAG]`, `docker-archive:FILE[:NAME]`, or the id \
                 of an image in the store";
    let text =
        format!("find image `{shown}`: no such file, and fetching by name is not built yet; use {forms}");
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
    }

    #[test]
    fn what_cannot_be_found_says_what_can() {
        check("docker://busybox", Err("skopeo copy docker://busybox oci:DIRECTORY:TAG"));
        check("docker:busybox", Err("skopeo copy docker://busybox"));
        check("https://example.com/a.aci", Err("download it"));
        check("coreos.com/etcd:v3", Err("fetching by name is not built yet"));
        check("sha512-a", Err("no such file"));
        check("sha512-xy", Err("no such file"));
        check("", Err("no such file"));
        check("oci:", Err("empty"));
        check("oci:x:", Err("empty"));
    }
}

//! `registries.conf`: mirrors, other places, and registries without TLS, in the format of
//! containers-registries.conf(5), version 2.
//!
//! Each settings folder may have the file `registries.conf` and files `registries.conf.d/*.conf`, read in the order
//! of their names; a later table for a prefix replaces an earlier one, within one file it is an error.
//! `unqualified-search-registries` and aliases are refused: to hull a name without a host is Docker Hub's, always,
//! and never depends on which of several registries answers first. `["docker.io"]` says the same and is accepted.
//! The key `credential-helpers` is refused too; hull reads `credHelpers` of `auth.json`.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use hull_errors::Doing;
use serde::Deserialize;
use toml::Spanned;

use crate::error::shown;
use crate::registry::{Name, canonical_host, looks_like_host};
use crate::{Error, Kind, SettingsFolders};

/// Longest file, and most files in one folder.
const FILE_MAX: u64 = 1 << 20;
const FILES_MAX: usize = 1 << 10;

/// The only registry for names without a host.
const SEARCHED: &str = "docker.io";

/// What is configured for registries.
#[derive(Debug, Default)]
pub(crate) struct Registries {
    by_prefix: BTreeMap<String, Registry>,
}

/// A `[[registry]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Registry {
    /// What replaces the prefix; `None` if nothing does.
    location: Option<String>,
    insecure: bool,
    /// Where it says so.
    blocked: Option<String>,
    mirrors: Vec<Mirror>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Mirror {
    location: String,
    insecure: bool,
    tags: bool,
    digests: bool,
}

/// Where an image may be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) name: Name,
    /// Without TLS, or with a certificate that nobody vouches for.
    pub(crate) insecure: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
struct Conf {
    registry: Vec<Spanned<Table>>,
    unqualified_search_registries: Option<Spanned<Vec<String>>>,
    /// How to search; there is nothing to search.
    #[serde(rename = "short-name-mode")]
    _short_name_mode: Option<String>,
    aliases: Option<Spanned<BTreeMap<String, String>>>,
    credential_helpers: Option<Spanned<Vec<String>>>,
    /// Version 1.
    registries: Option<Spanned<toml::Table>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
struct Table {
    prefix: String,
    location: String,
    insecure: bool,
    blocked: bool,
    mirror_by_digest_only: bool,
    mirror: Vec<Spanned<MirrorTable>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
struct MirrorTable {
    location: String,
    insecure: bool,
    pull_from_mirror: String,
}

impl Registries {
    /// Reads the files of all folders.
    ///
    /// # Errors
    /// [`Kind::Host`] for what cannot be read or is wrong, with file and line.
    pub(crate) fn load(folders: &SettingsFolders) -> Result<Self, Error> {
        let mut all = Self::default();
        for folder in folders.in_order() {
            for path in files(folder)? {
                let doing = || format!("read {}", path.display());
                let file = fs::File::open(&path).doing(Kind::Host, doing)?;
                let mut text = String::new();
                file.take(FILE_MAX + 1).read_to_string(&mut text).doing(Kind::Host, doing)?;
                if text.len() as u64 > FILE_MAX {
                    return Err(Error::new(
                        Kind::Host,
                        format!("{}: it is longer than {FILE_MAX} bytes", doing()),
                    ));
                }
                all.by_prefix.extend(parse(&text, &path)?);
            }
        }
        Ok(all)
    }

    /// Where to ask for an image, in this order: its mirrors, then itself.
    ///
    /// # Errors
    /// [`Kind::Untrusted`] for an image that is blocked, [`Kind::Host`] for one that a location makes no name of.
    pub(crate) fn places(&self, name: &Name) -> Result<Vec<Place>, Error> {
        let text = name.to_string();
        let matching = self
            .by_prefix
            .iter()
            .filter_map(|(prefix, registry)| Some((prefix.len(), matched(&text, prefix)?, registry)));
        let Some((_, length, registry)) = matching.max_by_key(|(length, ..)| *length) else {
            return Ok(vec![Place { name: name.clone(), insecure: false }]);
        };
        if let Some(place) = &registry.blocked {
            return Err(Error::new(Kind::Untrusted, format!("fetch image {name}: {place} blocks it")));
        }
        let moved = |location: &str| {
            let rest = name.without_tag();
            let rest = rest.get(length..).unwrap_or_default();
            let moved = name.moved(&format!("{location}{rest}"));
            moved.doing(Kind::Host, || {
                format!("fetch image {name} from `{location}`, as `registries.conf` says")
            })
        };
        let mut places = Vec::new();
        for mirror in &registry.mirrors {
            if if name.digest().is_some() { mirror.digests } else { mirror.tags } {
                places.push(Place { name: moved(&mirror.location)?, insecure: mirror.insecure });
            }
        }
        let own = registry.location.as_deref().map_or_else(|| Ok(name.clone()), moved)?;
        places.push(Place { name: own, insecure: registry.insecure });
        Ok(places)
    }
}

/// How much of a name a prefix covers.
fn matched(name: &str, prefix: &str) -> Option<usize> {
    if let Some(domain) = prefix.strip_prefix('*') {
        let host = name.split('/').next().expect("split yields at least one part");
        return (host.len() > domain.len() && host.ends_with(domain)).then_some(host.len());
    }
    let rest = name.strip_prefix(prefix)?;
    // `HOST` is not `HOST:PORT`, but `HOST/REPOSITORY` is of any tag.
    let ends: &[char] = if prefix.contains('/') { &['/', ':', '@'] } else { &['/'] };
    (rest.is_empty() || rest.starts_with(ends)).then_some(prefix.len())
}

/// The tables of one file, by their prefix.
fn parse(text: &str, path: &Path) -> Result<BTreeMap<String, Registry>, Error> {
    let at = |span: Option<Range<usize>>| {
        let before = span.and_then(|span| text.get(..span.start)).unwrap_or_default();
        format!("{}:{}", path.display(), 1 + before.matches('\n').count())
    };
    let wrong =
        |span: Range<usize>, why: &str| Error::new(Kind::Host, format!("read {}: {why}", at(Some(span))));
    let conf: Conf = toml::from_str(text).map_err(|e| {
        let message = shown(e.message().as_bytes());
        Error::new(Kind::Host, format!("read {}: {message}", at(e.span())))
    })?;
    if let Some(old) = conf.registries {
        let text = "`[registries.…]` is version 1 of this format, write a `[[registry]]` for each";
        return Err(wrong(old.span(), text));
    }
    if let Some(helpers) =
        conf.credential_helpers.filter(|helpers| *helpers.as_ref() != ["containers-auth.json"])
    {
        let text = "`credential-helpers` is not supported, name them in `credHelpers` of `auth.json`";
        return Err(wrong(helpers.span(), text));
    }
    if let Some(aliases) = conf.aliases.filter(|aliases| !aliases.as_ref().is_empty()) {
        return Err(wrong(aliases.span(), "aliases are not supported, write the whole name of the image"));
    }
    let searched = conf.unqualified_search_registries;
    if let Some(other) = searched.filter(|searched| searched.as_ref().iter().any(|host| host != SEARCHED)) {
        let text = "names without a host are Docker Hub's (`docker.io`) and searched nowhere else; remove \
                    `unqualified-search-registries`, and write the host before the names of images";
        return Err(wrong(other.span(), text));
    }
    let mut tables = BTreeMap::new();
    let mut lines = BTreeMap::new();
    for table in conf.registry {
        let span = table.span();
        let (prefix, registry) = table
            .into_inner()
            .check(&at(Some(span.clone())))
            .map_err(|(inner, why)| wrong(inner.unwrap_or(span.clone()), &why))?;
        if let Some(first) = lines.insert(prefix.clone(), at(Some(span.clone()))) {
            return Err(wrong(span, &format!("`{prefix}` has a table already, at {first}")));
        }
        tables.insert(prefix, registry);
    }
    Ok(tables)
}

/// Why a table is refused, and where in the file: `None` for the table itself.
type Wrong = (Option<Range<usize>>, String);

impl Table {
    fn check(self, at: &str) -> Result<(String, Registry), Wrong> {
        let own = |why| (None, why);
        let location =
            if self.location.is_empty() { None } else { Some(place(&self.location, false).map_err(own)?) };
        let prefix = match (&*self.prefix, &location) {
            ("", None) => return Err(own("a `[[registry]]` needs `location` or `prefix`".into())),
            ("", Some(location)) => location.clone(),
            (prefix, None) if !prefix.starts_with("*.") => {
                let text = format!(
                    "`prefix` without `location`; only `*.DOMAIN` may be alone, not `{}`",
                    shown(prefix.as_bytes())
                );
                return Err(own(text));
            }
            (prefix, _) => place(prefix, true).map_err(own)?,
        };
        let mut mirrors = Vec::new();
        for mirror in self.mirror {
            let span = mirror.span();
            let mirror =
                mirror.into_inner().check(self.mirror_by_digest_only).map_err(|why| (Some(span), why))?;
            mirrors.push(mirror);
        }
        let blocked = self.blocked.then(|| at.to_owned());
        Ok((prefix, Registry { location, insecure: self.insecure, blocked, mirrors }))
    }
}

impl MirrorTable {
    fn check(self, by_digest_only: bool) -> Result<Mirror, String> {
        if by_digest_only && !self.pull_from_mirror.is_empty() {
            return Err(
                "`pull-from-mirror` and the registry's `mirror-by-digest-only` exclude each other".into()
            );
        }
        let (tags, digests) = match &*self.pull_from_mirror {
            "" if by_digest_only => (false, true),
            "" | "all" => (true, true),
            "digest-only" => (false, true),
            "tag-only" => (true, false),
            other => {
                let other = shown(other.as_bytes());
                return Err(format!(
                    "`pull-from-mirror` is `{other}`, not `all`, `digest-only` or `tag-only`"
                ));
            }
        };
        Ok(Mirror { location: place(&self.location, false)?, insecure: self.insecure, tags, digests })
    }
}

/// `HOST[:PORT][/FOLDER…]`; a prefix may be `*.DOMAIN`, or go on with a tag or a digest.
fn place(text: &str, is_prefix: bool) -> Result<String, String> {
    let wrong = |why: &str| format!("`{}` is no place of images: {why}", shown(text.as_bytes()));
    let whole = text.strip_suffix('/').unwrap_or(text);
    let (host, path) = whole.split_once('/').map_or((whole, None), |(host, path)| (host, Some(path)));
    if let Some(domain) = host.strip_prefix("*.").filter(|_| is_prefix) {
        let domain = canonical_host(domain).map_err(|why| wrong(&why))?;
        if path.is_some() || domain.contains(':') {
            return Err(wrong("nothing may follow `*.DOMAIN`"));
        }
        return Ok(format!("*.{domain}"));
    }
    if !looks_like_host(host) {
        return Err(wrong("a host has a dot or a port, or is `localhost`"));
    }
    let host = canonical_host(host).map_err(|why| wrong(&why))?;
    let Some(path) = path else { return Ok(host) };
    // As it would be in a name; that also finds what is no tag and no digest.
    let name = Name::parse(&format!("{SEARCHED}/x/{path}")).map_err(|e| wrong(&e.to_string()))?;
    if !is_prefix && path.contains([':', '@']) {
        return Err(wrong("a location has no tag and no digest"));
    }
    let path = if path.contains([':', '@']) { name.to_string() } else { name.without_tag() };
    let path = path.strip_prefix(&format!("{SEARCHED}/x/")).expect("the name was made with this");
    Ok(format!("{host}/{path}"))
}

/// `registries.conf`, and the files beside it.
fn files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let main = folder.join("registries.conf");
    let mut files = Vec::new();
    let more = folder.join("registries.conf.d");
    let doing = || format!("list {}", more.display());
    match fs::read_dir(&more) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => (),
        entries => {
            for entry in entries.doing(Kind::Host, doing)?.take(FILES_MAX) {
                let path = entry.doing(Kind::Host, doing)?.path();
                if path.extension().is_some_and(|extension| extension == "conf") {
                    files.push(path);
                }
            }
        }
    }
    files.sort_unstable();
    if main.exists() {
        files.insert(0, main);
    }
    Ok(files)
}

/// A way in for the fuzzer.
pub(super) fn fuzz(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(by_prefix) = parse(text, Path::new("/registries.conf")) else { return };
    let registries = Registries { by_prefix };
    for name in ["docker.io/library/a:1", "example.com:5000/b/c:2", "sub.example.com/d@sha256:"] {
        let digest = if name.ends_with(':') { "0".repeat(64) } else { String::new() };
        let name = Name::parse(&format!("{name}{digest}")).expect("it is a name");
        let Ok(places) = registries.places(&name) else { continue };
        assert!(!places.is_empty(), "an image is somewhere");
        assert!(places.iter().all(|place| place.name.digest() == name.digest()), "it stays the same image");
    }
}

//! `policy.json`: what an image needs before it may be used, in the format of containers-policy.json(5).
//!
//! The file of a later settings folder replaces that of an earlier one as a whole. What differs from the manual:
//! - `default` may be missing, as may the whole file. Then hull's own rule is for what is not listed: an image of a
//!   registry by digest, and files and folders of this host may be used; an image by tag may not. Who names a digest
//!   has decided what to run, who names a tag leaves it to others.
//! - `signedIdentity` may be `{"type": "digestOnly"}`, for signatures that name no image (see [`super::identity`]).
//! - `signedBy`, and `sigstoreSigned` with anything but keys, are refused. So is what is unknown, and a scope that no
//!   image can be in: each would protect less than its author believes.
//! - Transports of other tools are skipped, with a word ([`Policy::warnings`]).

mod json;
mod requirement;
mod scope;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use hull_errors::Doing;

use self::json::Place;
use self::requirement::{Requirement, Signed};
use super::artifacts::Artifacts;
use super::cosign;
use super::identity::Identity;
use super::rollback::Rollback;
use super::text::printable;
use crate::digest::{Algorithm, Digest};
use crate::registry::Name;
use crate::{Error, Kind, SettingsFolders};

const FILE: &str = "policy.json";

/// Longest policy.
const FILE_MAX: u64 = 1 << 20;

/// Most reasons that are told, and the longest, in characters.
const REASONS_MAX: usize = 8;
const REASON_MAX: usize = 500;

/// The transports of other tools (containers-transports(5)).
const OTHERS: [&str; 7] =
    ["atomic", "containers-storage", "dir", "docker-daemon", "ostree", "sif", "tarball"];

/// Where an image comes from, in the words of the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Transport {
    Docker,
    Oci,
    OciArchive,
    DockerArchive,
}

impl Transport {
    const ALL: [Transport; 4] =
        [Transport::Docker, Transport::Oci, Transport::OciArchive, Transport::DockerArchive];

    fn name(self) -> &'static str {
        match self {
            Transport::Docker => "docker",
            Transport::Oci => "oci",
            Transport::OciArchive => "oci-archive",
            Transport::DockerArchive => "docker-archive",
        }
    }
}

/// What every image needs.
pub struct Policy {
    /// The file that was read, or where one would be.
    file: PathBuf,
    exists: bool,
    default: Option<Vec<Requirement>>,
    scopes: BTreeMap<Transport, BTreeMap<String, Vec<Requirement>>>,
    warnings: Vec<String>,
}

/// What is asked for: a name, the digest it led to, and the digest of the manifest for this host, which is another
/// one if the first is that of an index.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) name: &'a Name,
    pub(crate) named: &'a Digest,
    pub(crate) platform: &'a Digest,
}

/// The proof that an image may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Admitted {
    image: String,
    reason: Reason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    /// A rule asks for nothing.
    Rule,
    /// The name has the digest.
    Digest,
    /// It is on this host.
    Local,
    /// Every signature that was asked for is there.
    Signed,
    /// The user wants no check.
    Insecure,
}

impl Admitted {
    /// For `--insecure-options=image`.
    pub(crate) fn unchecked(image: &str) -> Self {
        Self { image: image.to_owned(), reason: Reason::Insecure }
    }
}

impl fmt::Display for Admitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = match self.reason {
            Reason::Rule => "the policy asks for no signature",
            Reason::Digest => "its name has its digest",
            Reason::Local => "it is on this host",
            Reason::Signed => "signature verified",
            Reason::Insecure => "not checked, as asked for",
        };
        write!(f, "image {}: {reason}", self.image)
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Policy {
    /// Reads the policy of the strongest folder that has one.
    ///
    /// # Errors
    /// [`Kind::Host`] for one that cannot be read, [`Kind::Untrusted`] for one that is wrong; with file and place.
    pub fn load(folders: &SettingsFolders) -> Result<Self, Error> {
        for folder in folders.in_order().collect::<Vec<_>>().into_iter().rev() {
            let path = folder.join(FILE);
            let doing = || format!("read the policy {}", path.display());
            let file = match File::open(&path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                file => file.doing(Kind::Host, doing)?,
            };
            let mut bytes = Vec::new();
            file.take(FILE_MAX + 1).read_to_end(&mut bytes).doing(Kind::Host, doing)?;
            let parsed = if bytes.len() as u64 > FILE_MAX {
                Err(format!("it has more than {FILE_MAX} bytes"))
            } else {
                Self::parse(&path, &bytes)
            };
            return parsed.map_err(|cause| Error::new(Kind::Untrusted, format!("{}: {cause}", doing())));
        }
        Ok(Self::none(folders.local.join(FILE)))
    }

    /// What is odd about the file, a sentence each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    fn none(file: PathBuf) -> Self {
        Self { file, exists: false, default: None, scopes: BTreeMap::new(), warnings: Vec::new() }
    }

    pub(crate) fn parse(file: &Path, bytes: &[u8]) -> Result<Self, String> {
        let mut members = Place::parse(bytes)?.members()?;
        let mut policy = Self { exists: true, ..Self::none(file.to_owned()) };
        policy.default = members.take("default").map(Requirement::list).transpose()?;
        let transports = members.take("transports").map_or(Ok(Vec::new()), Place::entries)?;
        members.end()?;
        for (name, place) in transports {
            if let Some(transport) = Transport::ALL.into_iter().find(|known| known.name() == name) {
                policy.scopes.insert(transport, scopes(transport, place)?);
            } else if OTHERS.contains(&&*name) {
                let text = format!("policy {}: hull has no transport `{name}`, ignoring it", file.display());
                policy.warnings.push(text);
            } else {
                return Err(place.wrong("there is no such transport"));
            }
        }
        Ok(policy)
    }

    /// What an image of that name needs, as far as that can be said before the registry is asked: a text that
    /// changes whenever the policy asks for something else, or for another key. `None` if nothing is said of a tag.
    ///
    /// # Errors
    /// [`Kind::Untrusted`] if no image of that name may be used, [`Kind::Host`] for a key that cannot be read.
    pub(crate) fn rule(&self, name: &Name) -> Result<Option<String>, Error> {
        let identity = Identity::of(name);
        let Some((entry, requirements)) =
            self.requirements(Transport::Docker, &scope::of_registry(&identity))
        else {
            return Ok(name.digest().map(|_| "its digest".into()));
        };
        if requirements.iter().any(|requirement| matches!(requirement, Requirement::Reject)) {
            return Err(self.rejected(&identity.text(), &entry));
        }
        let texts = requirements.iter().map(Requirement::text).collect::<Result<Vec<_>, _>>()?;
        let digest = Digest::of(Algorithm::Sha256, texts.join("\n").as_bytes());
        Ok(Some(digest.to_string()))
    }

    /// Whether an image of a registry may be used. Asks the registry for signatures if the policy does.
    ///
    /// # Errors
    /// [`Kind::Untrusted`] with the reasons and what can be done; those of `artifacts`.
    pub(crate) fn judge(
        &self,
        wanted: &Wanted<'_>,
        artifacts: &dyn Artifacts,
        memory: &Rollback,
    ) -> Result<Admitted, Error> {
        let identity = Identity::of(wanted.name);
        if wanted.name.digest().is_some_and(|digest| digest != wanted.named) {
            let text = format!("trust image `{}`: it led to {}", identity.text(), wanted.named);
            return Err(Error::new(Kind::Corrupt, text));
        }
        let admitted = |reason| Admitted { image: identity.text(), reason };
        let Some((entry, requirements)) =
            self.requirements(Transport::Docker, &scope::of_registry(&identity))
        else {
            return match wanted.name.digest() {
                Some(_) => Ok(admitted(Reason::Digest)),
                None => Err(self.nothing_said(&identity)),
            };
        };
        let mut reason = Reason::Rule;
        for requirement in requirements {
            match requirement {
                Requirement::AcceptAnything => (),
                Requirement::Reject => return Err(self.rejected(&identity.text(), &entry)),
                Requirement::Signed(signed) => {
                    self.check_signed(signed, wanted, &identity, artifacts)?;
                    reason = Reason::Signed;
                }
            }
        }
        if reason == Reason::Signed {
            memory.accept_tag(wanted.name, wanted.named)?;
        }
        Ok(admitted(reason))
    }

    /// Whether an image in a file or folder of this host may be used. `path` is canonical.
    ///
    /// # Errors
    /// [`Kind::Untrusted`] if the policy rejects it, or asks for a signature, which such images have none of.
    pub(crate) fn judge_local(
        &self,
        transport: Transport,
        path: &Path,
        tag: Option<&str>,
    ) -> Result<Admitted, Error> {
        let image = format!("{}:{}", transport.name(), path.display());
        let Some((entry, requirements)) = self.requirements(transport, &scope::of_path(path, tag)) else {
            return Ok(Admitted { image, reason: Reason::Local });
        };
        for requirement in requirements {
            match requirement {
                Requirement::AcceptAnything => (),
                Requirement::Reject => return Err(self.rejected(&image, &entry)),
                Requirement::Signed(_) => {
                    let text = format!(
                        "trust image `{image}`: the policy {} asks for a signature (`{entry}`), and images in files \
                         have none; {}, or use --insecure-options=image",
                        self.file.display(),
                        self.advice(transport, &path.display().to_string(), &[ACCEPT]),
                    );
                    return Err(Error::new(Kind::Untrusted, text));
                }
            }
        }
        Ok(Admitted { image, reason: Reason::Rule })
    }

    /// Those of the narrowest scope, and where they are written; the others do not count.
    fn requirements(&self, transport: Transport, scopes: &[String]) -> Option<(String, &Vec<Requirement>)> {
        let listed = self.scopes.get(&transport);
        let found = |scope: &String| listed?.get_key_value(scope);
        match scopes.iter().find_map(found) {
            Some((scope, list)) => Some((format!("transports.{}[\"{scope}\"]", transport.name()), list)),
            None => self.default.as_ref().map(|list| ("default".to_owned(), list)),
        }
    }

    fn check_signed(
        &self,
        signed: &Signed,
        wanted: &Wanted<'_>,
        identity: &Identity,
        artifacts: &dyn Artifacts,
    ) -> Result<(), Error> {
        let keys = signed.keys()?;
        let accepts = |name: Option<&str>| signed.identity.check(identity, name);
        let mut subjects = vec![wanted.named, wanted.platform];
        subjects.dedup();
        let mut reasons = Vec::new();
        for subject in subjects {
            match cosign::find(artifacts, subject, &keys, &accepts)? {
                Ok(()) => return Ok(()),
                Err(more) => reasons.extend(more),
            }
        }
        let file = self.file.display();
        let reasons = if reasons.is_empty() {
            format!("the policy {file} asks for a signature, and the registry has none of {}", wanted.named)
        } else {
            format!("no signature is what the policy {file} asks for: {}", joined(&reasons))
        };
        Err(Error::new(Kind::Untrusted, format!("trust image `{}`: {reasons}", identity.text())))
    }

    fn rejected(&self, image: &str, entry: &str) -> Error {
        let file = self.file.display();
        let text = format!("trust image `{image}`: the policy {file} rejects it (`{entry}`)");
        Error::new(Kind::Untrusted, text)
    }

    /// The policy says nothing of a tag.
    fn nothing_said(&self, identity: &Identity) -> Error {
        let text = format!(
            "trust image `{}`: a tag can lead to anything, and no policy says what it needs; {}; or name the image by \
             its digest, or use --insecure-options=image for once",
            identity.text(),
            self.advice(Transport::Docker, identity.repository(), &[SIGNED, ACCEPT]),
        );
        Error::new(Kind::Untrusted, text)
    }

    /// What to write where, so that an image needs one of these things.
    fn advice(&self, transport: Transport, scope: &str, requirements: &[&str]) -> String {
        let (file, name) = (self.file.display(), transport.name());
        let place = match (self.exists, self.scopes.contains_key(&transport)) {
            (false, _) => format!("write to {file}"),
            (true, false) => format!("add to `transports` in {file}"),
            (true, true) => format!("add to `transports.{name}` in {file}"),
        };
        let text = |requirement: &&str| {
            let entry = format!("\"{scope}\": [{requirement}]");
            match (self.exists, self.scopes.contains_key(&transport)) {
                (false, _) => format!("{{\"transports\": {{\"{name}\": {{{entry}}}}}}}"),
                (true, false) => format!("\"{name}\": {{{entry}}}"),
                (true, true) => entry,
            }
        };
        format!("{place} {}", requirements.iter().map(text).collect::<Vec<_>>().join(" or "))
    }
}

const ACCEPT: &str = r#"{"type": "insecureAcceptAnything"}"#;
const SIGNED: &str = r#"{"type": "sigstoreSigned", "keyPath": "/etc/hull/cosign.pub", "signedIdentity": {"type": "matchRepository"}}"#;

fn scopes(transport: Transport, place: Place) -> Result<BTreeMap<String, Vec<Requirement>>, String> {
    let mut scopes = BTreeMap::new();
    for (scope, place) in place.entries()? {
        let checked = match transport {
            Transport::Docker => scope::check_registry(&scope),
            _ => scope::check_path(&scope),
        };
        checked.map_err(|cause| place.wrong(&format!("no image is in this scope: {cause}")))?;
        scopes.insert(scope, Requirement::list(place)?);
    }
    Ok(scopes)
}

/// Reasons as one text. A registry can put much into each, and many of them.
fn joined(reasons: &[String]) -> String {
    let shown = reasons.iter().take(REASONS_MAX).map(|reason| printable(reason, REASON_MAX));
    let more = reasons.len().saturating_sub(REASONS_MAX);
    let more = (more > 0).then(|| format!("and {more} more"));
    shown.chain(more).collect::<Vec<_>>().join("; ")
}

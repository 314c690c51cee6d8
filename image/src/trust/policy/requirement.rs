//! What the policy asks of an image, as it is written in the file.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hull_errors::Doing;

use super::json::{Members, Place};
use crate::digest::{Algorithm, Digest};
use crate::registry::canonical_host;
use crate::trust::cosign::{KEY_FILE_MAX, Key};
use crate::trust::identity::{Identity, SignedIdentity};
use crate::{Error, Kind};

/// Most requirements in one list, and most keys in one requirement.
const LIST_MAX: usize = 100;

#[derive(Clone)]
pub(super) enum Requirement {
    AcceptAnything,
    Reject,
    Signed(Signed),
}

/// A signature by one of these keys.
#[derive(Clone)]
pub(super) struct Signed {
    keys: Vec<KeySource>,
    pub(super) identity: SignedIdentity,
}

#[derive(Clone)]
enum KeySource {
    /// Read when it is needed: a key that is missing is in the way of nothing else.
    File(PathBuf),
    Here(Vec<u8>),
}

impl Signed {
    pub(super) fn keys(&self) -> Result<Vec<Key>, Error> {
        self.keys.iter().map(KeySource::key).collect()
    }

    /// What tells this requirement from every other: the keys themselves, and whose signatures count.
    fn text(&self) -> Result<String, Error> {
        let mut keys = Vec::new();
        for source in &self.keys {
            keys.push(Digest::of(Algorithm::Sha256, &source.read()?).to_string());
        }
        Ok(format!("signed by {} as {:?}", keys.join(" or "), self.identity))
    }
}

impl KeySource {
    fn key(&self) -> Result<Key, Error> {
        Key::parse(&self.read()?).map_err(|cause| Error::because(Kind::Untrusted, self.doing(), cause))
    }

    fn read(&self) -> Result<Vec<u8>, Error> {
        let path = match self {
            KeySource::Here(bytes) => return Ok(bytes.clone()),
            KeySource::File(path) => path,
        };
        let mut bytes = Vec::new();
        let read =
            File::open(path).and_then(|file| file.take(KEY_FILE_MAX as u64 + 1).read_to_end(&mut bytes));
        read.doing(Kind::Host, || self.doing())?;
        Ok(bytes)
    }

    fn doing(&self) -> String {
        match self {
            KeySource::Here(_) => "read a public key in the policy".into(),
            KeySource::File(path) => {
                format!("read the public key {}, which the policy names", path.display())
            }
        }
    }
}

impl Requirement {
    /// What tells it from every other.
    pub(super) fn text(&self) -> Result<String, Error> {
        match self {
            Requirement::AcceptAnything => Ok("anything".into()),
            Requirement::Reject => Ok("nothing".into()),
            Requirement::Signed(signed) => signed.text(),
        }
    }

    /// A list that must hold as a whole.
    pub(super) fn list(place: Place) -> Result<Vec<Self>, String> {
        let whole = place.clone();
        let list = place.list()?;
        if list.is_empty() {
            return Err(whole
                .wrong("must not be empty (`[{\"type\": \"insecureAcceptAnything\"}]` asks for nothing)"));
        }
        if list.len() > LIST_MAX {
            return Err(whole.wrong(&format!("has more than {LIST_MAX} requirements")));
        }
        list.into_iter().map(Requirement::parse).collect()
    }

    fn parse(place: Place) -> Result<Self, String> {
        let mut members = place.members()?;
        let kind = members.require("type")?;
        let requirement = match &*kind.text()? {
            "insecureAcceptAnything" => Requirement::AcceptAnything,
            "reject" => Requirement::Reject,
            "sigstoreSigned" => Requirement::Signed(signed(&mut members)?),
            "signedBy" => {
                let text =
                    "`signedBy` is not supported; sign with `cosign sign --key` and use `sigstoreSigned`";
                return Err(kind.wrong(text));
            }
            other => {
                let known = "`insecureAcceptAnything`, `reject` and `sigstoreSigned` are";
                return Err(kind.wrong(&format!("`{}` is unknown, {known}", other.escape_debug())));
            }
        };
        members.end()?;
        Ok(requirement)
    }
}

fn signed(members: &mut Members) -> Result<Signed, String> {
    if let Some(name) = members.names().find(|name| is_keyless(name)) {
        return Err(members.wrong(&format!("`{name}` is not supported, use a key (`keyPath`)")));
    }
    let names = ["keyPath", "keyPaths", "keyData", "keyDatas"];
    let sources: Vec<_> = names.into_iter().filter_map(|name| Some((name, members.take(name)?))).collect();
    let Ok([(name, place)]) = <[_; 1]>::try_from(sources) else {
        return Err(
            members.wrong("exactly one of `keyPath`, `keyPaths`, `keyData`, `keyDatas` must be there")
        );
    };
    let whole = place.clone();
    let places = if name.ends_with('s') { place.list()? } else { vec![place] };
    if places.is_empty() || places.len() > LIST_MAX {
        return Err(whole.wrong(&format!("must have 1 to {LIST_MAX} keys")));
    }
    let source = if name.starts_with("keyPath") { key_path } else { key_data };
    let keys = places.iter().map(source).collect::<Result<_, _>>()?;
    let identity =
        members.take("signedIdentity").map_or(Ok(SignedIdentity::MatchRepoDigestOrExact), identity)?;
    Ok(Signed { keys, identity })
}

/// Members of `sigstoreSigned` that ask for certificates, time stamps or logs.
fn is_keyless(name: &str) -> bool {
    matches!(name, "fulcio" | "pki") || name.starts_with("rekor")
}

fn key_path(place: &Place) -> Result<KeySource, String> {
    let text = place.text()?;
    if Path::new(&text).is_absolute() {
        Ok(KeySource::File(PathBuf::from(text)))
    } else {
        Err(place.wrong("must be an absolute path"))
    }
}

fn key_data(place: &Place) -> Result<KeySource, String> {
    let bytes = STANDARD.decode(place.text()?).map_err(|e| place.wrong(&format!("must be base64: {e}")))?;
    Key::parse(&bytes).map_err(|cause| place.wrong(&format!("must be a public key: {cause}")))?;
    Ok(KeySource::Here(bytes))
}

fn identity(place: Place) -> Result<SignedIdentity, String> {
    let mut members = place.members()?;
    let kind = members.require("type")?;
    let identity = match &*kind.text()? {
        "matchExact" => SignedIdentity::MatchExact,
        "matchRepoDigestOrExact" => SignedIdentity::MatchRepoDigestOrExact,
        "matchRepository" => SignedIdentity::MatchRepository,
        "exactReference" => {
            let place = members.require("dockerReference")?;
            let exact = reference(&place)?;
            if exact.text() == exact.repository() {
                return Err(place.wrong("must have a tag or a digest"));
            }
            SignedIdentity::ExactReference(exact)
        }
        "exactRepository" => {
            SignedIdentity::ExactRepository(repository(&members.require("dockerRepository")?)?)
        }
        "remapIdentity" => SignedIdentity::RemapIdentity {
            prefix: prefix(&members.require("prefix")?)?,
            signed_prefix: prefix(&members.require("signedPrefix")?)?,
        },
        "digestOnly" => SignedIdentity::DigestOnly,
        other => {
            let known = "`matchRepoDigestOrExact`, `matchExact`, `matchRepository`, `exactReference`, \
                         `exactRepository`, `remapIdentity` and `digestOnly` are";
            return Err(kind.wrong(&format!("`{}` is unknown, {known}", other.escape_debug())));
        }
    };
    members.end()?;
    Ok(identity)
}

fn reference(place: &Place) -> Result<Identity, String> {
    Identity::parse(&place.text()?).map_err(|cause| place.wrong(&cause))
}

fn repository(place: &Place) -> Result<Identity, String> {
    let identity = reference(place)?;
    if identity.text() == identity.repository() {
        Ok(identity)
    } else {
        Err(place.wrong("must have no tag and no digest"))
    }
}

/// A host, or a repository or the beginning of one.
fn prefix(place: &Place) -> Result<String, String> {
    let text = place.text()?;
    if !text.contains('/') {
        let canonical = canonical_host(&text).map_err(|cause| place.wrong(&cause))?;
        return if canonical == text {
            Ok(text)
        } else {
            Err(place.wrong(&format!("must be `{canonical}`")))
        };
    }
    super::scope::check_registry(&text).map_err(|cause| place.wrong(&cause))?;
    let tagged = text.contains('@') || text.rsplit('/').next().is_some_and(|last| last.contains(':'));
    if tagged || text.contains('*') {
        Err(place.wrong("must have no tag, digest or wildcard"))
    } else {
        Ok(text)
    }
}

//! One settings file: found, read, and its kind and version known.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use hull_errors::Doing;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::shown;
use crate::{Error, Kind};

/// Longest settings file.
const FILE_MAX: u64 = 1 << 20;

/// The folders that are looked into, and the kinds that may be in each.
pub(super) const FOLDERS: [(&str, &[&str]); 4] = [
    ("auth.d", &["auth", "dockerAuth"]),
    ("ids.d", &["ids"]),
    ("paths.d", &["paths"]),
    ("stage1.d", &["stage1"]),
];

/// Those that say where things are, and who.
pub(super) const PLACES: [(&str, &[&str]); 2] = [("ids.d", &["ids"]), ("paths.d", &["paths"])];

/// A settings file of a known kind, version 1.
#[derive(Debug)]
pub(super) struct Document {
    path: PathBuf,
    kind: &'static str,
    mode: u32,
    body: Value,
}

impl Document {
    /// The documents of some of the folders in one of the three places, in the order of their names.
    pub(super) fn read_all(
        place: &Path,
        folders: &[(&str, &[&'static str])],
    ) -> Result<Vec<Document>, Error> {
        let mut documents = Vec::new();
        for (name, kinds) in folders {
            for path in files(&place.join(name))? {
                documents.push(Document::read(path, kinds)?);
            }
        }
        Ok(documents)
    }

    fn read(path: PathBuf, kinds: &[&'static str]) -> Result<Document, Error> {
        let doing = || format!("read settings {}", path.display());
        let file = File::open(&path).doing(Kind::Host, doing)?;
        let mode = file.metadata().doing(Kind::Host, doing)?.permissions().mode();
        let mut text = Vec::new();
        file.take(FILE_MAX + 1).read_to_end(&mut text).doing(Kind::Host, doing)?;
        if text.len() as u64 > FILE_MAX {
            return Err(Error::new(Kind::Host, format!("{}: it is longer than {FILE_MAX} bytes", doing())));
        }
        let (kind, body) =
            parse(&text, kinds).map_err(|why| Error::new(Kind::Host, format!("{}: {why}", doing())))?;
        Ok(Document { path, kind, mode, body })
    }

    /// What a file of nobody's says.
    pub(super) fn of(path: PathBuf, text: &[u8], kinds: &[&'static str]) -> Result<Document, String> {
        let (kind, body) = parse(text, kinds)?;
        Ok(Document { path, kind, mode: 0, body })
    }

    pub(super) fn kind(&self) -> &'static str {
        self.kind
    }

    pub(super) fn parse<T: DeserializeOwned>(&self) -> Result<T, Error> {
        // The parser's own texts quote what they found, and that may be a password.
        T::deserialize(&self.body).map_err(|e| {
            let text = e.to_string();
            let text =
                if text.starts_with("missing field") { text.as_str() } else { "a field has the wrong type" };
            self.wrong(text)
        })
    }

    pub(super) fn wrong(&self, why: &str) -> Error {
        Error::new(Kind::Host, format!("read settings {}: {why}", self.path.display()))
    }

    /// Secrets belong to their owner.
    pub(super) fn warning(&self) -> Option<String> {
        let secret = matches!(self.kind, "auth" | "dockerAuth");
        let path = self.path.display();
        (secret && self.mode & 0o004 != 0)
            .then(|| format!("{path} holds credentials and everybody can read it (chmod o-r {path})"))
    }
}

/// What the documents of one folder have said so far, and where.
#[derive(Debug, Default)]
pub(super) struct Folder(BTreeMap<String, PathBuf>);

impl Folder {
    /// Notes that `document` speaks of `what`; that nobody may do twice.
    pub(super) fn says(&mut self, document: &Document, what: String) -> Result<(), Error> {
        match self.0.get(&what) {
            Some(other) => {
                let text = format!("{what} is already in {}; remove one of them", other.display());
                Err(document.wrong(&text))
            }
            None => {
                self.0.insert(what, document.path.clone());
                Ok(())
            }
        }
    }
}

/// The kind and the content of a settings file whose folder admits `kinds`.
pub(super) fn parse(text: &[u8], kinds: &[&'static str]) -> Result<(&'static str, Value), String> {
    // The parser tells the line and column of its errors, and nothing of the content.
    let body: Value = serde_json::from_slice(text).map_err(|e| format!("it is no JSON: {e}"))?;
    if !body.is_object() {
        return Err("it is no JSON object".into());
    }
    let field = |ours: &str, rkts: &str| match (body.get(ours), body.get(rkts)) {
        (Some(_), Some(_)) => Err(format!("it has both `{ours}` and `{rkts}`")),
        (Some(value), None) | (None, Some(value)) => {
            value.as_str().map(str::to_owned).ok_or_else(|| format!("`{ours}` is no text"))
        }
        (None, None) => Err(format!("`{ours}` is missing")),
    };
    let kind = field("hullKind", "rktKind")?;
    let version = field("hullVersion", "rktVersion")?;
    let known = kinds.iter().find(|known| **known == kind);
    let known = known.ok_or_else(|| {
        format!("`hullKind` is `{}`; in this folder it may be {}", shown(kind.as_bytes()), kinds.join(", "))
    })?;
    if version != "v1" {
        return Err(format!("`hullVersion` is `{}`, this hull knows `v1`", shown(version.as_bytes())));
    }
    Ok((known, body))
}

/// The settings files directly in a folder.
fn files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let doing = || format!("list settings in {}", folder.display());
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.doing(Kind::Host, doing)?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.doing(Kind::Host, doing)?.path();
        if path.extension().is_some_and(|e| e == "json")
            && path.metadata().doing(Kind::Host, doing)?.is_file()
        {
            files.push(path);
        }
    }
    files.sort_unstable();
    Ok(files)
}

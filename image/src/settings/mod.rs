//! The files below `/usr/lib/hull`, `/etc/hull` and `--user-config` that tell hull how to fetch.
//!
//! Each says what it is: `{"hullKind": "auth", "hullVersion": "v1", …}`; rkt's `rktKind` and `rktVersion` do as well.
//! `auth.d` holds the kinds `auth` and `dockerAuth`, `ids.d`, `paths.d` and `stage1.d` the kinds `ids`, `paths` and `stage1`.

mod auth;
pub(crate) mod certificates;
pub(crate) mod docker_auth;
mod document;
mod places;
pub(crate) mod registries;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Value, json};
use url::Url;

pub(crate) use auth::{AwsKeys, Credentials, Login};
use document::{Document, Folder};
pub use places::{Ids, Stage1};

use crate::{Error, SettingsFolders};

/// What the settings files say, all folders together.
#[derive(Debug, Default)]
pub struct Settings {
    auth: BTreeMap<String, Credentials>,
    registries: BTreeMap<String, Login>,
    data: Option<PathBuf>,
    stage1_images: Option<PathBuf>,
    stage1: Stage1,
    ids: Option<Ids>,
    warnings: Vec<String>,
}

impl Settings {
    /// Reads all settings. What a later folder says of a thing replaces what an earlier one says of it.
    ///
    /// # Errors
    /// [`crate::Kind::Host`] for a file that cannot be read, that is wrong, or that says again what another of the
    /// same folder says; the text names the files.
    pub fn load(folders: &SettingsFolders) -> Result<Self, Error> {
        Self::load_from(folders, &document::FOLDERS)
    }

    /// Reads only what says where things are, and who, and so nothing that is secret or wrong elsewhere.
    ///
    /// # Errors
    /// As [`Settings::load`].
    pub fn load_places(folders: &SettingsFolders) -> Result<Self, Error> {
        Self::load_from(folders, &document::PLACES)
    }

    fn load_from(folders: &SettingsFolders, kinds: &[(&str, &[&'static str])]) -> Result<Self, Error> {
        let mut all = Settings::default();
        for folder in folders.in_order() {
            let mut said = Folder::default();
            let mut one = Settings::default();
            for document in Document::read_all(folder, kinds)? {
                one.add(&document, &mut said)?;
            }
            all.replace(one);
        }
        Ok(all)
    }

    fn add(&mut self, document: &Document, said: &mut Folder) -> Result<(), Error> {
        match document.kind() {
            "auth" => auth::add_domains(document, said, &mut self.auth)?,
            "dockerAuth" => auth::add_registries(document, said, &mut self.registries)?,
            "paths" => places::add_paths(document, said, &mut self.data, &mut self.stage1_images)?,
            "ids" => places::add_ids(document, said, &mut self.ids)?,
            _ => places::add_stage1(document, said, &mut self.stage1)?,
        }
        self.warnings.extend(document.warning());
        Ok(())
    }

    fn replace(&mut self, later: Settings) {
        self.auth.extend(later.auth);
        self.registries.extend(later.registries);
        self.data = later.data.or(self.data.take());
        self.stage1_images = later.stage1_images.or(self.stage1_images.take());
        self.stage1.replace(later.stage1);
        self.ids = later.ids.or(self.ids);
        self.warnings.extend(later.warnings);
    }

    /// The credentials for the host of a URL: exactly that host, and that port if it is no default.
    pub(crate) fn credentials(&self, url: &Url) -> Option<&Credentials> {
        self.auth.get(&auth::host_of(url)?)
    }

    /// The name and password for each registry of the kind `dockerAuth`, under `HOST[:PORT]`.
    pub(crate) fn registries(&self) -> &BTreeMap<String, Login> {
        &self.registries
    }

    /// Where hull keeps its data (`data` of the kind `paths`).
    pub fn data(&self) -> Option<&PathBuf> {
        self.data.as_ref()
    }

    /// Where the stage1s are (`stage1-images` of the kind `paths`).
    pub fn stage1_images(&self) -> Option<&PathBuf> {
        self.stage1_images.as_ref()
    }

    /// The stage1 to use where the command line names none.
    pub fn stage1(&self) -> &Stage1 {
        &self.stage1
    }

    /// The user ids for the machines of pods.
    pub fn ids(&self) -> Option<Ids> {
        self.ids
    }

    /// What is odd about the files, a sentence each: credentials that everybody on the host can read.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Everything, secrets included, as `config` prints it: `{"stage0": […]}`.
    pub fn to_json(&self) -> Value {
        let document = |kind: &str, mut body: Value| {
            body["hullVersion"] = "v1".into();
            body["hullKind"] = kind.into();
            body
        };
        let auth = self.auth.iter().map(|(domain, credentials)| {
            let mut body = credentials.to_json();
            body["domains"] = json!([domain]);
            document("auth", body)
        });
        let registries = self.registries.iter().map(|(registry, login)| {
            document("dockerAuth", json!({ "registries": [registry], "credentials": login.to_json() }))
        });
        let path = |path: &Option<PathBuf>| path.as_deref().map(|path| path.to_string_lossy().into_owned());
        let paths = json!({
            "data": path(&self.data).unwrap_or_default(),
            "stage1-images": path(&self.stage1_images).unwrap_or_default(),
        });
        let others = [document("paths", paths), document("stage1", self.stage1.to_json())];
        let ids = self.ids.map(|ids| document("ids", json!({ "first": ids.first, "count": ids.count })));
        json!({ "stage0": auth.chain(registries).chain(others).chain(ids).collect::<Vec<_>>() })
    }
}

/// Ways in for the fuzzer.
pub(crate) mod fuzzing {
    pub(crate) fn registries(bytes: &[u8]) {
        super::registries::fuzz(bytes);
    }

    pub(crate) fn credentials(bytes: &[u8]) {
        super::docker_auth::fuzz(bytes);
    }

    pub(crate) fn certificates(bytes: &[u8]) {
        super::certificates::fuzz(bytes);
    }
}

/// A way in for the fuzzer.
pub(crate) fn fuzz(bytes: &[u8]) {
    let kinds = ["auth", "dockerAuth", "ids", "paths", "stage1"];
    if let Ok(document) = Document::of("x".into(), bytes, &kinds) {
        let _ = Settings::default().add(&document, &mut Folder::default()); // Refusing is right; panicking is not.
    }
}

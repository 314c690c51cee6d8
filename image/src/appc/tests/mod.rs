//! Fetching from real servers over TLS: images by GNU tar, file systems read by `fsck.erofs`. Needs root.

mod certificates;
mod dependencies;
mod files;
mod host;
mod signer;
mod web;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use self::host::{Authority, Host};
use self::signer::Signer;
use super::{AciFetcher, Name};
use crate::store::Imported;
use crate::transport::retry::Patience;
use crate::transport::testing::{Reply, Request};
use crate::trust::openpgp::{Keystore, PublicKey, Scope};
use crate::{
    Converter, Error, FetchOptions, Fetcher, Insecure, Kind, Progress, PullPolicy, SettingsFolders, Store,
    Transfer,
};

/// Quick to lose patience, so that tests end.
const PATIENCE: Patience = Patience {
    tries: 4,
    first_wait: Duration::from_millis(1),
    wait_max: Duration::from_millis(4),
    asked_wait_max: Duration::from_secs(1),
    stall: Duration::from_secs(20),
    stall_bytes: 1,
};

/// Keeps what a user would be told.
#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Progress for Notes {
    fn transfer(&self, what: &str, total: Option<u64>, done: u64) -> Box<dyn Transfer + '_> {
        crate::Quiet.transfer(what, total, done);
        Box::new(crate::Quiet)
    }

    fn note(&self, text: &str) {
        self.0.lock().unwrap().push(text.to_owned());
    }
}

/// A store, settings, a signer whom the settings trust, and an authority for certificates.
struct Place {
    folder: TempDir,
    authority: Authority,
    signer: Signer,
    notes: Notes,
    converter: PathBuf,
}

impl Place {
    fn new() -> Self {
        let place = Self::without_converter();
        Self { converter: converter(), ..place }
    }

    /// In which nothing of an archive can be read.
    fn without_converter() -> Self {
        let (folder, signer) = (TempDir::new().unwrap(), Signer::new());
        let converter = folder.path().join("no-converter");
        let place = Self { folder, authority: Authority::new(), signer, notes: Notes::default(), converter };
        place.trust(&Scope::ROOT, &place.signer);
        place
    }

    fn trust(&self, scope: &Scope, signer: &Signer) {
        let key = PublicKey::read(&signer.public(), "the signer").unwrap().remove(0);
        Keystore::load(&self.settings()).unwrap().add(scope, &key).unwrap();
    }

    fn distrust(&self) {
        fs::remove_dir_all(self.path("local/trustedkeys")).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn settings(&self) -> SettingsFolders {
        SettingsFolders { system: self.path("system"), local: self.path("local"), user: None }
    }

    fn setting(&self, name: &str, content: &Value) {
        let path = self.path("local").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content.to_string()).unwrap();
    }

    fn store(&self) -> Store {
        Store::open(&self.path("store"), Converter { program: self.converter.clone() }).unwrap()
    }

    fn with<T>(
        &self,
        options: &FetchOptions,
        fetch: impl FnOnce(&AciFetcher<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let (store, settings) = (self.store(), self.settings());
        let fetcher = Fetcher { store: &store, settings: &settings, options, progress: &self.notes };
        fetch(&AciFetcher::with(&fetcher, vec![self.authority.certificate()], PATIENCE))
    }

    fn by_url(&self, options: &FetchOptions, url: &url::Url) -> Result<Imported, Error> {
        self.with(options, |fetcher| fetcher.by_url(url))
    }

    fn by_name(&self, options: &FetchOptions, name: &str) -> Result<Imported, Error> {
        let name = Name::parse(name).unwrap();
        self.with(options, |fetcher| fetcher.by_name(&name))
    }

    fn noted(&self, part: &str) -> bool {
        self.notes.0.lock().unwrap().iter().any(|note| note.contains(part))
    }

    /// The paths of the files in an image, with what they hold.
    fn files(&self, imported: &Imported) -> Vec<(String, String)> {
        let to = TempDir::new_in(self.folder.path()).unwrap();
        let extracted = Command::new("fsck.erofs")
            .arg(format!("--extract={}", to.path().display()))
            .args(["--force"])
            .arg(&imported.image.erofs)
            .output()
            .expect("run fsck.erofs (apt-get install erofs-utils)");
        assert!(extracted.status.success(), "{}", String::from_utf8_lossy(&extracted.stderr));
        let mut files = Vec::new();
        collect(to.path(), to.path(), &mut files);
        files.sort();
        files
    }
}

fn collect(top: &Path, folder: &Path, files: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(top, &path, files);
        } else {
            let name = path.strip_prefix(top).unwrap().to_str().unwrap().to_owned();
            files.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
}

/// The program that reads archives, as it is now.
fn converter() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let build = || {
        let mut cargo = Command::new(env!("CARGO"));
        let built = cargo.args(["build", "--quiet", "--package", "hull-converter"]).status();
        assert!(built.unwrap().success(), "building hull-converter");
        let tests = std::env::current_exe().unwrap();
        tests.parent().unwrap().parent().unwrap().join("hull-converter")
    };
    BUILT.get_or_init(build).clone()
}

/// The manifest of an image for this host.
fn manifest(name: &str, version: &str) -> Value {
    json!({
        "acKind": "ImageManifest", "acVersion": "0.8.11", "name": name,
        "labels": [{ "name": "version", "value": version }, { "name": "os", "value": "linux" },
                   { "name": "arch", "value": super::name::HOST_ARCH }],
        "app": { "exec": ["/bin/sh"], "user": "0", "group": "0" },
    })
}

/// An image by GNU tar.
fn aci(manifest: &Value, files: &[(&str, &str)]) -> Vec<u8> {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("manifest"), manifest.to_string()).unwrap();
    fs::create_dir(folder.path().join("rootfs")).unwrap();
    for (name, content) in files {
        let path = folder.path().join("rootfs").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    let tar = Command::new("tar").args(["-cz", "manifest", "rootfs"]).current_dir(&folder).output().unwrap();
    assert!(tar.status.success());
    tar.stdout
}

fn update() -> FetchOptions {
    FetchOptions { pull: PullPolicy::Update, ..FetchOptions::default() }
}

fn insecure(insecure: Insecure) -> FetchOptions {
    FetchOptions { insecure, ..FetchOptions::default() }
}

/// A page that leads to images.
fn page(metas: &[String]) -> Reply {
    let metas: String = metas.iter().map(|meta| format!("<meta {meta}>\n")).collect();
    Reply::new(200, format!("<!DOCTYPE html><html><head>{metas}</head><body></body></html>"))
}

#[track_caller]
fn refused(got: Result<Imported, Error>, kind: Kind, text: &str) {
    let error = got.expect_err("it must be refused");
    let chain = hull_errors::chain(&error);
    assert!(*error.kind() == kind && chain.contains(text), "{:?}: {chain}", error.kind());
}

//! What a pod's metadata service needs: the host's key, a token, and the manifests of the images.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use hull_errors::Doing;
use hull_image::Store;
use hull_pod::contract::MetadataService;
use hull_pod::manifest::RuntimeApp;
use hull_pod::{Manifest, PodId};
use serde_json::Value;

use super::export;
use crate::host::Host;
use crate::{Error, Kind};

/// The key's file in the data directory. One for the host: a pod can verify what another has signed.
const KEY: &str = "metadata-key";

/// Bytes of a key: those of SHA-512's output (RFC 2104, section 3).
const KEY_LEN: usize = 64;

pub(super) fn service(manifest: &Manifest, host: &Host, store: &Store) -> Result<MetadataService, Error> {
    let images = manifest.apps.iter().map(|app| image_manifest(app, store)).collect::<Result<_, Error>>()?;
    let token = random(16)?.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(MetadataService { key: key(&host.dir)?, token, images })
}

/// The image's own, if it is an App Container Image; else one that says the same.
fn image_manifest(app: &RuntimeApp, store: &Store) -> Result<String, Error> {
    let doing = || format!("read what image {} says of itself", app.image.id);
    let image = store.lookup(&app.image.id).doing(Kind::Host, doing)?;
    let documents = store.documents(&image.id).doing(Kind::Host, doing)?;
    let own: Option<Value> = serde_json::from_slice(&documents.manifest).ok();
    let own = own.filter(|own| own.get("acKind").is_some_and(|kind| kind == "ImageManifest"));
    Ok(own.unwrap_or_else(|| export::manifest(app)).to_string())
}

/// The host's key; made where there is none yet.
fn key(data: &Path) -> Result<PathBuf, Error> {
    let path = data.join(KEY);
    let doing = || format!("make the key of the metadata service {}", path.display());
    if path.exists() {
        return Ok(path);
    }
    // Whole before it has its name: of two that make one, both use that of the first.
    let part = data.join(format!("{KEY}.{}", PodId::random().doing(Kind::Host, doing)?));
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part);
    let mut file = made.doing(Kind::Host, doing)?;
    let written = file.write_all(&random(KEY_LEN)?).and_then(|()| file.sync_all());
    let linked = written.and_then(|()| fs::hard_link(&part, &path));
    let _ = fs::remove_file(&part); // It has done its duty, or is of no use.
    match linked {
        Err(why) if why.kind() != ErrorKind::AlreadyExists => Err(why).doing(Kind::Host, doing),
        _ => Ok(path),
    }
}

fn random(len: usize) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0; len];
    let read = File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut bytes));
    read.doing(Kind::Host, || "read /dev/urandom".into())?;
    Ok(bytes)
}

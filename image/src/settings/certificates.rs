//! `certs.d/HOST[:PORT]/`: whom to believe, and who to be, at one registry (as Docker and Podman have it) or one
//! host of App Container Images.
//!
//! `*.crt` are authorities, believed for this registry besides the host's own; `NAME.cert` and `NAME.key` are what hull
//! shows to a registry that asks for a certificate. All settings folders count, the last that has a pair gives it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use hull_errors::Doing;
use reqwest::{Certificate, Identity};

use crate::{Error, Kind, SettingsFolders};

/// Longest certificate or key.
const FILE_MAX: u64 = 1 << 20;

/// Most files for one registry.
const FILES_MAX: usize = 256;

/// What `certs.d` says of a registry.
#[derive(Debug, Default)]
pub(crate) struct Certificates {
    pub(crate) authorities: Vec<Certificate>,
    pub(crate) identity: Option<Identity>,
}

impl Certificates {
    /// Reads what there is for `host`, which is `HOST` or `HOST:PORT` of a name that was parsed.
    ///
    /// # Errors
    /// [`Kind::Host`] for a file that is no certificate, and for a certificate without its key.
    pub(crate) fn load(folders: &SettingsFolders, host: &str) -> Result<Self, Error> {
        let mut all = Self::default();
        for folder in folders.in_order() {
            for path in files(&folder.join("certs.d").join(host))? {
                all.add(&path)?;
            }
        }
        Ok(all)
    }

    fn add(&mut self, path: &Path) -> Result<(), Error> {
        let doing = || format!("read {}", path.display());
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => {
                let found = Certificate::from_pem_bundle(&read(path)?).doing(Kind::Host, doing)?;
                if found.is_empty() {
                    return Err(Error::new(Kind::Host, format!("{}: it holds no certificate", doing())));
                }
                self.authorities.extend(found);
            }
            Some("cert") => {
                let identity = identity(read(path)?, &read(&path.with_extension("key"))?);
                self.identity = Some(identity.ok_or_else(|| {
                    let text =
                        format!("{}: it and its `.key` are no certificate and private key in PEM", doing());
                    Error::new(Kind::Host, text)
                })?);
            }
            Some("key") if !path.with_extension("cert").exists() => {
                let text = format!(
                    "{}: the certificate {} is missing",
                    doing(),
                    path.with_extension("cert").display()
                );
                return Err(Error::new(Kind::Host, text));
            }
            _ => (),
        }
        Ok(())
    }
}

/// `None` for what is none; the parser's text could quote the key.
fn identity(mut certificate: Vec<u8>, key: &[u8]) -> Option<Identity> {
    certificate.push(b'\n');
    certificate.extend(key);
    Identity::from_pem(&certificate).ok()
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let doing = || format!("read {}", path.display());
    let mut bytes = Vec::new();
    let file = File::open(path).doing(Kind::Host, doing)?;
    file.take(FILE_MAX + 1).read_to_end(&mut bytes).doing(Kind::Host, doing)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(Error::new(Kind::Host, format!("{}: it is longer than {FILE_MAX} bytes", doing())));
    }
    Ok(bytes)
}

fn files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let doing = || format!("list {}", folder.display());
    let mut files = Vec::new();
    match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => (),
        entries => {
            for entry in entries.doing(Kind::Host, doing)?.take(FILES_MAX) {
                files.push(entry.doing(Kind::Host, doing)?.path());
            }
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// A way in for the fuzzer.
pub(super) fn fuzz(bytes: &[u8]) {
    let _ = Certificate::from_pem_bundle(bytes); // Refusing is right; panicking is not.
    let _ = identity(bytes.to_vec(), b""); // Likewise.
}

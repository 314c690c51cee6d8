//! The trusted keys: rkt's folders.
//!
//! ```text
//! trustedkeys/root.d/FINGERPRINT             for every image
//! trustedkeys/prefix.d/PREFIX/FINGERPRINT    for the images of that name, and below it; PREFIX has folders of its own
//! ```
//! They are below each of the settings' folders. For one image they are gone through in that order, root before
//! prefix, shorter prefix before longer, and the last file with a key's fingerprint decides: an empty one takes
//! the trust away again. So an administrator masks a key of the vendor's without touching the vendor's files.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::time::SystemTime;

use hull_errors::Doing;
use sequoia_openpgp::{Cert, KeyHandle};

use super::keys::PublicKey;
use super::scope::Scope;
use super::signed::{self, Signed};
use super::{KEY_FILE_MAX, KEYS_MAX};
use crate::error::{way_out, writing};
use crate::temporary::{Temporary, sweep};
use crate::{Error, Kind, SettingsFolders};

const FOLDER: &str = "trustedkeys";

/// The bits of a fingerprint's hex digits: version 4 has SHA-1, version 6 SHA2-256 (RFC 9580 section 5.5.4).
const FINGERPRINT_LENGTHS: [usize; 2] = [40, 64];

/// Most folders inside each other: a prefix has at most 255 characters, so 128 parts.
const DEPTH_MAX: usize = 130;

/// Keys and what each is trusted for.
#[derive(Clone, Debug)]
pub struct Keystore {
    folders: SettingsFolders,
    /// In the order in which they count, the last the most.
    entries: Vec<Entry>,
    certs: BTreeMap<String, Cert>,
}

/// A file of the key store.
#[derive(Clone, Debug)]
struct Entry {
    scope: Scope,
    fingerprint: String,
    said: Said,
}

/// What a file says of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    Trusted,
    Masked,
}

impl Keystore {
    /// Reads all keys.
    ///
    /// # Errors
    /// [`Kind::Untrusted`] for a file that is not what its name says, [`Kind::Host`].
    pub fn load(folders: &SettingsFolders) -> Result<Self, Error> {
        let mut keystore = Self { folders: folders.clone(), entries: Vec::new(), certs: BTreeMap::new() };
        for folder in folders.in_order() {
            let top = folder.join(FOLDER);
            for part in ["root.d", "prefix.d"] {
                keystore.load_folder(&top, Path::new(part), 0)?;
            }
        }
        Ok(keystore)
    }

    /// Keys that are trusted for everything and lie in no folder.
    pub(crate) fn of_root_keys(keys: Vec<PublicKey>) -> Self {
        let folders = SettingsFolders { system: "/".into(), local: "/".into(), user: None };
        let entry = |key: &PublicKey| Entry {
            scope: Scope::ROOT,
            fingerprint: key.fingerprint(),
            said: Said::Trusted,
        };
        let entries = keys.iter().map(entry).collect();
        let certs = keys.into_iter().map(|key| (key.fingerprint(), key.into_cert())).collect();
        Self { folders, entries, certs }
    }

    /// Trusts `key` for `scope` from now on: a file in the administrator's folder. Yields what to tell the user.
    ///
    /// # Errors
    /// [`Kind::Host`] or [`Kind::NoSpace`] if it cannot be written; whatever [`Keystore::load`] fails with.
    pub fn add(&mut self, scope: &Scope, key: &PublicKey) -> Result<String, Error> {
        let top = self.folders.local.join(FOLDER);
        let path = top.join(scope.folder()).join(key.fingerprint());
        let doing = || format!("write the trusted key {}", path.display());
        let bytes = key.armoured().map_err(|cause| Error::because(Kind::Corrupt, doing(), cause))?;
        write_key(&top, &path, &bytes)
            .map_err(|e| Error::because(writing(&e), format!("{}{}", doing(), way_out(&e)), e))?;
        *self = Self::load(&self.folders)?;
        Ok(scope.added(&path))
    }

    /// Checks a detached signature of `file`, from its first byte to its last, as of `now`. Nothing in the file is
    /// looked at. `what` names the signed thing in errors.
    ///
    /// # Errors
    /// [`Kind::Untrusted`] with the reason, for every way in which a signature can be none.
    pub fn verify(
        &self,
        signature: &[u8],
        file: &File,
        what: &str,
        now: SystemTime,
    ) -> Result<Signed, Error> {
        signed::verify(self, signature, file, what, now)
    }

    /// Whether somebody has said which keys count for images of that name, or of what it lies in. One that was masked
    /// counts: trusting it again is for people. Keys for everything say nothing of a name.
    pub fn speaks_of(&self, name: &str) -> bool {
        self.entries.iter().any(|entry| entry.scope != Scope::ROOT && entry.scope.covers(name))
    }

    /// Whether a key is trusted to sign images of that name.
    pub(crate) fn trusts(&self, fingerprint: &str, image: &str) -> bool {
        signed::may_sign(&self.said(fingerprint), image)
    }

    /// The keys that may be meant.
    pub(super) fn certs(&self, handles: &[KeyHandle]) -> Vec<Cert> {
        let meant = |cert: &&Cert| cert.keys().key_handles(handles.iter()).next().is_some();
        self.certs.values().filter(meant).cloned().collect()
    }

    /// What is said of a key, in the order in which it counts.
    pub(super) fn said(&self, fingerprint: &str) -> Vec<(Scope, Said)> {
        let of_key = self.entries.iter().filter(|entry| entry.fingerprint == fingerprint);
        of_key.map(|entry| (entry.scope.clone(), entry.said)).collect()
    }

    fn load_folder(&mut self, top: &Path, folder: &Path, depth: usize) -> Result<(), Error> {
        let path = top.join(folder);
        let doing = || format!("read the trusted keys in {}", path.display());
        if depth == DEPTH_MAX {
            return Err(Error::new(Kind::Untrusted, format!("{}: no name has so many parts", doing())));
        }
        let entries = match fs::read_dir(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound && depth == 0 => return Ok(()),
            entries => entries.doing(Kind::Host, doing)?,
        };
        let (mut files, mut folders) = (Vec::new(), Vec::new());
        for entry in entries {
            let entry = entry.doing(Kind::Host, doing)?;
            let is_folder = entry.file_type().doing(Kind::Host, doing)?.is_dir();
            if is_folder { &mut folders } else { &mut files }.push(entry.file_name());
        }
        files.sort_unstable();
        folders.sort_unstable();
        for name in files {
            self.load_file(&path.join(name), folder)?;
        }
        folders.into_iter().try_for_each(|name| self.load_folder(top, &folder.join(name), depth + 1))
    }

    fn load_file(&mut self, path: &Path, folder: &Path) -> Result<(), Error> {
        let shown = path.display();
        let refused = |cause: &str| {
            let text = format!("read the trusted key {shown}: {cause}; correct or remove the file");
            Error::new(Kind::Untrusted, text)
        };
        let scope =
            Scope::of_folder(folder).ok_or_else(|| refused("no image has a name with such a prefix"))?;
        let name = path.file_name().and_then(|name| name.to_str()).filter(|name| is_fingerprint(name));
        let fingerprint = name.ok_or_else(|| refused("its name is not the fingerprint of a key"))?;
        if self.entries.len() == KEYS_MAX {
            return Err(refused(&format!("there are more than {KEYS_MAX} others")));
        }
        let said = match read_key(path).doing(Kind::Host, || format!("read the trusted key {shown}"))? {
            bytes if bytes.is_empty() => Said::Masked,
            bytes => {
                let keys = PublicKey::read(&bytes, &shown.to_string())?;
                let [key] = <[PublicKey; 1]>::try_from(keys).map_err(|_| refused("it holds several keys"))?;
                if key.fingerprint() != fingerprint {
                    return Err(refused(&format!("it holds the key {}", key.fingerprint())));
                }
                self.remember(fingerprint, key)?;
                Said::Trusted
            }
        };
        self.entries.push(Entry { scope, fingerprint: fingerprint.to_owned(), said });
        Ok(())
    }

    /// Of one key, files may have several editions: what any of them revokes is revoked.
    fn remember(&mut self, fingerprint: &str, key: PublicKey) -> Result<(), Error> {
        let cert = match self.certs.remove(fingerprint) {
            None => key.into_cert(),
            Some(known) => known
                .merge_public(key.into_cert())
                .map_err(|e| format!("{e:#}"))
                .doing(Kind::Untrusted, || format!("read the trusted key {fingerprint}"))?,
        };
        self.certs.insert(fingerprint.to_owned(), cert);
        Ok(())
    }
}

fn is_fingerprint(name: &str) -> bool {
    FINGERPRINT_LENGTHS.contains(&name.len()) && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn read_key(path: &Path) -> io::Result<Vec<u8>> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(KEY_FILE_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Everybody may read it, as rkt has it: what is trusted is no secret.
fn write_key(top: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = top.join("tmp");
    let folder = path.parent().expect("a key lies in the folder of its scope");
    for folder in [folder, &temporary] {
        DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
    }
    sweep(&temporary)?;
    let file = Temporary::create(&temporary)?;
    file.file().write_all(bytes)?;
    file.file().set_permissions(Permissions::from_mode(0o644))?;
    file.commit(path)
}

//! Credentials for registries, where Docker and Podman keep them (containers-auth.json(5)).
//!
//! Asked in this order, the first that has an entry for the repository, or else for its registry, counts:
//! 1. `$REGISTRY_AUTH_FILE`, if it is set, and then no other file of the user's;
//! 2. `$XDG_RUNTIME_DIR/containers/auth.json`, `~/.config/containers/auth.json`;
//! 3. `$DOCKER_CONFIG/config.json`, or else `~/.docker/config.json`;
//! 4. `auth.json` of the settings folders (`/etc/hull/auth.json`), the strongest first;
//! 5. the settings of the kind `dockerAuth`.
//!
//! Inside a file, the program of `credHelpers` for the registry comes first, then `auths`, then the program of
//! `credsStore`. No error and no log names a secret; what a program says goes nowhere.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use hull_errors::Doing;
use serde::Deserialize;

use super::Login;
use super::auth::Secret;
use crate::error::shown;
use crate::registry::{Name, canonical_host};
use crate::{Error, Kind, SettingsFolders};

/// Longest file of credentials.
const FILE_MAX: u64 = 4 << 20;

/// Longest answer of a program, and how long it may think: it may have to ask its user.
const ANSWER_MAX: u64 = 64 << 10;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// What Docker calls its own registry in its files, and to its programs.
const DOCKER_HUB: &str = "docker.io";
const DOCKER_HUB_URL: &str = "https://index.docker.io/v1/";

/// The user name by which programs say that the secret is an identity token.
const TOKEN_USER: &str = "<token>";

/// How to be known to a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    Login(Login),
    /// For the token server, in exchange for a short-lived one.
    IdentityToken(Secret),
    /// For the registry itself.
    RegistryToken(Secret),
}

/// Where to look for credentials.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keychain {
    /// The first must exist.
    named: Option<PathBuf>,
    files: Vec<PathBuf>,
    logins: BTreeMap<String, Login>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct AuthFile {
    auths: BTreeMap<String, Entry>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

impl Keychain {
    /// The files that `variables` (the environment) and the settings folders lead to, and the settings' own.
    pub(crate) fn new(
        variables: impl Fn(&str) -> Option<OsString>,
        folders: &SettingsFolders,
        logins: BTreeMap<String, Login>,
    ) -> Self {
        let path = |name: &str| variables(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let named = path("REGISTRY_AUTH_FILE");
        let home = path("HOME");
        let mut files = Vec::new();
        if named.is_none() {
            let config = path("XDG_CONFIG_HOME").or(home.as_ref().map(|home| home.join(".config")));
            let folders = [path("XDG_RUNTIME_DIR"), config];
            files.extend(folders.into_iter().flatten().map(|folder| folder.join("containers/auth.json")));
            let docker = path("DOCKER_CONFIG").or(home.map(|home| home.join(".docker")));
            files.extend(docker.map(|folder| folder.join("config.json")));
        }
        let settings: Vec<_> = folders.in_order().map(|folder| folder.join("auth.json")).collect();
        files.extend(settings.into_iter().rev());
        Self { named, files, logins }
    }

    /// The credentials for a repository, if there are any.
    ///
    /// # Errors
    /// [`Kind::Host`] for a file that is no such file, or a program that does not answer.
    pub(crate) fn key(&self, name: &Name) -> Result<Option<Key>, Error> {
        let files =
            self.named.iter().map(|path| (path, true)).chain(self.files.iter().map(|path| (path, false)));
        for (path, must_exist) in files {
            let Some(file) = AuthFile::read(path, must_exist)? else { continue };
            if let Some(key) = file.key(name, path, ANSWER_TIMEOUT)? {
                return Ok(Some(key));
            }
        }
        let without_port = name.host().strip_suffix(":443").unwrap_or(name.host());
        let login = self.logins.get(name.host()).or_else(|| self.logins.get(without_port));
        Ok(login.cloned().map(Key::Login))
    }
}

impl AuthFile {
    fn read(path: &Path, must_exist: bool) -> Result<Option<Self>, Error> {
        let doing = || format!("read credentials of {}", path.display());
        let file = match File::open(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound && !must_exist => return Ok(None),
            // Somebody else's home, as `sudo` leaves it.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied && !must_exist => return Ok(None),
            file => file.doing(Kind::Host, doing)?,
        };
        let mut text = Vec::new();
        file.take(FILE_MAX + 1).read_to_end(&mut text).doing(Kind::Host, doing)?;
        if text.len() as u64 > FILE_MAX {
            return Err(Error::new(Kind::Host, format!("{}: it is longer than {FILE_MAX} bytes", doing())));
        }
        parse(&text).map(Some).map_err(|why| Error::new(Kind::Host, format!("{}: {why}", doing())))
    }

    fn key(&self, name: &Name, path: &Path, timeout: Duration) -> Result<Option<Key>, Error> {
        let program =
            self.cred_helpers.iter().find(|(host, _)| place_of(host).as_deref() == Some(name.host()));
        if let Some((_, program)) = program {
            return ask(program, name.host(), path, timeout);
        }
        let mut best: Option<(usize, &Entry)> = None;
        let whole = name.without_tag();
        for (place, entry) in &self.auths {
            let Some(place) = place_of(place) else { continue };
            let fits =
                whole.strip_prefix(&place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
            if fits && best.is_none_or(|(length, _)| place.len() > length) {
                best = Some((place.len(), entry));
            }
        }
        let key = best.map(|(_, entry)| entry.key()).transpose();
        let key = key.map_err(|why| {
            let text = format!("read credentials of {}: the entry for {} {why}", path.display(), name.host());
            Error::new(Kind::Host, text)
        })?;
        match key.flatten() {
            Some(key) => Ok(Some(key)),
            None if !self.creds_store.is_empty() => ask(&self.creds_store, name.host(), path, timeout),
            None => Ok(None),
        }
    }
}

fn parse(text: &[u8]) -> Result<AuthFile, String> {
    // The texts of the parser could quote a password; where it stopped says enough.
    serde_json::from_slice(text).map_err(|e| {
        let what = if e.is_data() { "a field has the wrong type" } else { "it is no JSON" };
        format!("{what} (line {}, column {})", e.line(), e.column())
    })
}

impl Entry {
    /// `None` for the empty entry that says: ask the program.
    fn key(&self) -> Result<Option<Key>, &'static str> {
        let secret = |text: &str| Secret::from(text);
        if !self.identitytoken.is_empty() {
            return Ok(Some(Key::IdentityToken(secret(&self.identitytoken))));
        }
        if !self.registrytoken.is_empty() {
            return Ok(Some(Key::RegistryToken(secret(&self.registrytoken))));
        }
        if self.auth.is_empty() {
            let login = Login { user: self.username.clone(), password: secret(&self.password) };
            return Ok((!self.username.is_empty()).then_some(Key::Login(login)));
        }
        let wrong = "has an `auth` that is not `USER:PASSWORD` in base64";
        let auth = self.auth.trim();
        let bytes = STANDARD.decode(auth).or_else(|_| STANDARD_NO_PAD.decode(auth)).map_err(|_| wrong)?;
        let text = String::from_utf8(bytes).map_err(|_| wrong)?;
        // Docker pads with NUL.
        let (user, password) = text.trim_end_matches('\0').split_once(':').ok_or(wrong)?;
        Ok(Some(Key::Login(Login { user: user.to_owned(), password: secret(password) })))
    }
}

/// What an entry is for: `HOST[:PORT][/FOLDER…]`. Docker's old ones are addresses of its first protocol.
fn place_of(text: &str) -> Option<String> {
    let bare = ["https://", "http://"].iter().find_map(|scheme| text.strip_prefix(scheme));
    let (host, path) = match (bare, text.split_once('/')) {
        (Some(url), _) => (url.split('/').next().unwrap_or(url), None),
        (None, Some((host, path))) if !matches!(path, "" | "v1/" | "v2/" | "v1" | "v2") => (host, Some(path)),
        (None, Some((host, _))) => (host, None),
        (None, None) => (text, None),
    };
    let host = canonical_host(host).ok()?;
    Some(path.map_or_else(|| host.clone(), |path| format!("{host}/{}", path.trim_end_matches('/'))))
}

/// Asks a program for the credentials of a registry (docker-credential-helpers, "Development": the command `get`).
fn ask(program: &str, host: &str, path: &Path, timeout: Duration) -> Result<Option<Key>, Error> {
    let is_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if program.is_empty() || !program.bytes().all(is_name) {
        let (program, path) = (shown(program.as_bytes()), path.display());
        let text = format!("read credentials of {path}: `{program}` is no name of a credential program");
        return Err(Error::new(Kind::Host, text));
    }
    let program = format!("docker-credential-{program}");
    let doing = || format!("ask {program} for the credentials of {host}, as {} says", path.display());
    let mut command = Command::new(&program);
    command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map(Running).doing(Kind::Host, doing)?;
    let answer = child.answer(host, timeout).doing(Kind::Host, doing)?;
    let Some(answer) = answer else {
        // It has none, or cannot get at them; which of the two is not told apart reliably.
        return Ok(None);
    };
    let key = key_of_answer(&answer).ok_or_else(|| {
        Error::new(Kind::Host, format!("{}: its answer is no JSON with `Username` and `Secret`", doing()))
    })?;
    Ok(Some(key))
}

fn key_of_answer(answer: &[u8]) -> Option<Key> {
    // The parser's text could quote the secret.
    let answer: Answer = serde_json::from_slice(answer).ok()?;
    let secret = Secret::from(&*answer.secret);
    Some(match &*answer.username {
        TOKEN_USER => Key::IdentityToken(secret),
        _ => Key::Login(Login { user: answer.username, password: secret }),
    })
}

/// A way in for the fuzzer: a file, and what a program answers. No program is started.
pub(super) fn fuzz(bytes: &[u8]) {
    let _ = key_of_answer(bytes); // Refusing is right; panicking is not.
    let Ok(mut file) = parse(bytes) else { return };
    (file.cred_helpers, file.creds_store) = (BTreeMap::new(), String::new());
    for name in ["docker.io/library/a:1", "example.com:5000/b/c:2"] {
        let name = Name::parse(name).expect("it is a name");
        let _ = file.key(&name, Path::new("/auth.json"), Duration::ZERO); // Likewise.
    }
}

/// A program that does not outlive us.
struct Running(Child);

impl Running {
    /// What it says of `host`; `None` if it fails.
    fn answer(&mut self, host: &str, timeout: Duration) -> io::Result<Option<Vec<u8>>> {
        let deadline = Instant::now() + timeout;
        let url = if host == DOCKER_HUB { DOCKER_HUB_URL } else { host };
        let mut input = self.0.stdin.take().expect("it was started with a pipe");
        // A program that needs no question may be gone before it is asked.
        let _ = input.write_all(format!("{url}\n").as_bytes()); // Short enough for the pipe.
        drop(input);
        let output = self.0.stdout.take().expect("it was started with a pipe");
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let mut text = Vec::new();
            let read = output.take(ANSWER_MAX + 1).read_to_end(&mut text);
            let _ = sender.send(read.map(|_| text)); // Nobody listens after the deadline.
        });
        let too_slow =
            || io::Error::new(io::ErrorKind::TimedOut, format!("no answer in {} s", timeout.as_secs_f32()));
        let text = receiver.recv_timeout(timeout).map_err(|_| too_slow())??;
        if text.len() as u64 > ANSWER_MAX {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {ANSWER_MAX} bytes")));
        }
        loop {
            if let Some(status) = self.0.try_wait()? {
                return Ok(status.success().then_some(text));
            }
            if Instant::now() > deadline {
                return Err(too_slow());
            }
            thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill(); // It may have ended.
        let _ = self.0.wait(); // Likewise.
    }
}

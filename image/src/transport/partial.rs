//! Downloads that go on where they were cut, by one process at a time.
//!
//! ```text
//! partial/KEY             what has arrived; the downloader holds an exclusive flock on it
//! partial/KEY.validator   what the server called the state it is of: `ETag` or `Last-Modified`
//! ```
//! A file that nobody holds was left by a process that ended; the next that wants the same hashes what is there
//! and asks for the rest. A name is given up only under the lock, and whoever got a lock looks whether the name
//! still leads to the file ([`Partials::lock`]): so a file is written by one process only, and is never written
//! after it was renamed into the store. [`Partials::remove_older`] removes what nobody came back for.

#[cfg(test)]
mod tests;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use hull_converter_protocol::BUFFER_SIZE;
use hull_errors::Doing;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use reqwest::header::{CONTENT_RANGE, ETAG, HeaderMap, LAST_MODIFIED};
use reqwest::{Response, StatusCode};
use tokio::time::{Instant, timeout_at};

use super::retry::{Failure, Patience, Tries, accepted};
use crate::blobs::cannot_write;
use crate::digest::{Algorithm, Digest, Hasher};
use crate::{Error, Kind, Progress, Transfer};

/// As all files of the store: written by their owner, read by the group that may use hull.
const FILE_MODE: u32 = 0o640;

/// How often we look whether somebody else is done.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Longest validator that is kept; a server that sends a longer one is asked for everything again.
const VALIDATOR_MAX: usize = 1 << 10;

/// A try that brought so much counts as none: earlier failures are forgotten.
const WORTH_A_TRY: u64 = 1 << 20;

/// Where bytes come from, from any offset on.
pub(crate) trait Source {
    /// Asks for everything from `offset` on (`Range: bytes=OFFSET-`, none for 0) and gives the answer back as it is,
    /// but for refusals, which [`accepted`] turns into words. With a validator, the bytes are wanted only if they
    /// are of that state (`If-Range`).
    async fn open(&self, offset: u64, validator: Option<&str>) -> Result<Response, Failure>;
}

/// What is to be downloaded.
#[derive(Clone, Debug)]
pub(crate) struct Wanted<'a> {
    /// For people: `layer 3fa1b2c3d4e5`.
    pub(crate) what: &'a str,
    /// What we know of the bytes.
    pub(crate) identity: Identity<'a>,
}

#[derive(Clone, Debug)]
pub(crate) enum Identity<'a> {
    /// Named by their digest: from whichever answer, they are the same bytes.
    Digest { digest: &'a Digest, size: u64 },
    /// Whatever the server has now, at most `size_max`; pieces belong together if their validators say so.
    Validator { algorithm: Algorithm, size_max: u64 },
}

impl Identity<'_> {
    fn algorithm(&self) -> Algorithm {
        match self {
            Identity::Digest { digest, .. } => digest.algorithm(),
            Identity::Validator { algorithm, .. } => *algorithm,
        }
    }
}

/// The folder of downloads that are not whole.
#[derive(Clone, Debug)]
pub(crate) struct Partials {
    folder: PathBuf,
}

impl Partials {
    /// `folder` exists and is on the file system of the store.
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Waits until nobody else downloads `key` (a file name: letters, digits, dashes). Look then whether it is still
    /// wanted: the other one may have brought it.
    ///
    /// # Errors
    /// [`Kind::Host`], [`Kind::NoSpace`].
    pub(crate) async fn lock(
        &self,
        key: &str,
        what: &str,
        progress: &dyn Progress,
    ) -> Result<Partial, Error> {
        debug_assert!(key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'), "{key} is no file name");
        let path = self.folder.join(key);
        let mut waits = false;
        loop {
            match try_lock(&path) {
                Ok(Some(file)) => {
                    let validator = self.folder.join(format!("{key}.validator"));
                    return Ok(Partial { file, path, validator });
                }
                Ok(None) => {
                    if !waits {
                        progress.note(&format!("waiting for another hull that downloads {what}"));
                    }
                    waits = true;
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
                Err(e) => return Err(cannot_write(&self.folder, what, e)),
            }
        }
    }

    /// Removes what nobody downloads and nobody has added to for so long. Returns how many bytes that freed.
    ///
    /// # Errors
    /// The folder cannot be read. What cannot be removed stays.
    pub(crate) fn remove_older(&self, age: Duration) -> io::Result<u64> {
        let mut freed = 0;
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            // A validator goes with its file.
            if path.extension().is_some() && path.with_extension("").exists() {
                continue;
            }
            let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
            let unused =
                metadata.modified().ok().and_then(|time| SystemTime::now().duration_since(time).ok());
            if unused.is_none_or(|unused| unused < age) {
                continue;
            }
            if let Ok(Some(file)) = try_lock(&path) {
                let validator = path.with_extension("validator");
                Partial { file, path, validator }.remove();
                freed += metadata.size();
            }
        }
        Ok(freed)
    }
}

/// The file at `path`, if nobody else holds it.
fn try_lock(path: &Path) -> io::Result<Option<Flock<File>>> {
    loop {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE);
        let file = options.custom_flags(OFlag::O_NOFOLLOW.bits()).open(path)?;
        let file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => file,
            Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
            Err((_, errno)) => return Err(errno.into()),
        };
        let (ours, there) = (file.metadata()?, fs::symlink_metadata(path));
        // Whoever held it before us may have given up the name: renamed it into the store, or removed it.
        if there.is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())) {
            return Ok(Some(file));
        }
    }
}

/// A download that nobody else touches. What was downloaded stays when it is dropped.
#[derive(Debug)]
pub(crate) struct Partial {
    file: Flock<File>,
    path: PathBuf,
    validator: PathBuf,
}

/// A download that is whole, hashed by us on its way to the disk.
#[derive(Debug)]
pub(crate) struct Complete {
    partial: Partial,
    digest: Digest,
    validator: Option<String>,
}

impl Complete {
    pub(crate) fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The `ETag` or `Last-Modified` that came with it.
    pub(crate) fn validator(&self) -> Option<&str> {
        self.validator.as_deref()
    }

    /// The bytes; the position of the file is anywhere.
    pub(crate) fn file(&self) -> &File {
        &self.partial.file
    }

    /// Makes the file durable under a name of the store.
    pub(crate) fn commit(self, path: &Path) -> io::Result<()> {
        self.partial.file.sync_all()?;
        fs::rename(&self.partial.path, path)?;
        let _ = fs::remove_file(&self.partial.validator); // Says nothing without its file.
        File::open(path.parent().expect("a file of the store lies in a folder"))?.sync_all()
    }

    /// Gives up what was downloaded.
    pub(crate) fn remove(self) {
        self.partial.remove();
    }
}

impl Partial {
    /// Downloads what is missing. A failure leaves what has arrived, for the next who asks.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] if the bytes are others than those wanted, [`Kind::TooLarge`], those of `source`, those of
    /// the disk.
    pub(crate) async fn complete(
        self,
        wanted: &Wanted<'_>,
        source: &impl Source,
        patience: &Patience,
        progress: &dyn Progress,
    ) -> Result<Complete, Error> {
        let mut download = Download::start(self, wanted, patience, progress)?;
        let mut tries = Tries::default();
        loop {
            let before = download.length;
            match download.go_on(source).await {
                Ok(()) if download.is_right() => return download.finish(),
                // What an earlier process left may be to blame: power was lost, or another state was begun.
                Ok(()) if download.inherited > 0 => download.start_anew()?,
                Ok(()) => return Err(download.wrong_digest()),
                Err(failure) => {
                    if download.length.saturating_sub(before) >= WORTH_A_TRY {
                        tries.forget();
                    }
                    if let Err(error) = tries.failed(failure, patience, progress).await {
                        if download.length == 0 {
                            // Nothing came (it has not changed, perhaps), so nothing is kept.
                            download.partial.remove();
                        }
                        return Err(error);
                    }
                }
            }
        }
    }

    fn remove(self) {
        let _ = fs::remove_file(&self.validator); // What is left of it is removed another time.
        let _ = fs::remove_file(&self.path); // Likewise.
    }
}

struct Download<'a> {
    partial: Partial,
    wanted: &'a Wanted<'a>,
    patience: &'a Patience,
    hasher: Hasher,
    length: u64,
    /// How many of the bytes another process has left.
    inherited: u64,
    validator: Option<String>,
    transfer: Box<dyn Transfer + 'a>,
}

impl<'a> Download<'a> {
    /// Hashes what is there.
    fn start(
        partial: Partial,
        wanted: &'a Wanted<'a>,
        patience: &'a Patience,
        progress: &'a dyn Progress,
    ) -> Result<Self, Error> {
        let doing = || format!("read what was downloaded of {}", wanted.what);
        let validator = fs::read_to_string(&partial.validator).ok().filter(|text| is_validator(text));
        let length = partial.file.metadata().doing(Kind::Host, doing)?.len();
        let (size, usable) = match &wanted.identity {
            Identity::Digest { size, .. } => (Some(*size), length <= *size),
            Identity::Validator { size_max, .. } => (None, length <= *size_max && validator.is_some()),
        };
        let (mut hasher, mut inherited) = (Hasher::new(wanted.identity.algorithm()), 0);
        if usable {
            inherited = hash(&partial.file, &mut hasher).doing(Kind::Host, doing)?;
        }
        let transfer = progress.transfer(wanted.what, size, inherited);
        let mut download =
            Self { partial, wanted, patience, hasher, length: inherited, inherited, validator, transfer };
        if inherited == 0 {
            download.start_anew()?;
        }
        Ok(download)
    }

    /// Throws away what is there.
    fn start_anew(&mut self) -> Result<(), Error> {
        let what = self.wanted.what;
        let mut file = &*self.partial.file;
        // The bytes go before the name of their state: never is it written on others.
        let emptied = file.set_len(0).and_then(|()| file.seek(SeekFrom::Start(0)));
        emptied.map_err(|e| cannot_write(&self.partial.path, what, e))?;
        let _ = fs::remove_file(&self.partial.validator); // There may be none; without bytes it says nothing.
        if self.length > 0 {
            self.transfer.restart();
        }
        self.hasher = Hasher::new(self.wanted.identity.algorithm());
        (self.length, self.inherited, self.validator) = (0, 0, None);
        Ok(())
    }

    /// One answer, to its end.
    async fn go_on(&mut self, source: &impl Source) -> Result<(), Failure> {
        if matches!(&self.wanted.identity, Identity::Digest { size, .. } if *size == self.length) {
            return Ok(());
        }
        let deadline = Instant::now() + self.patience.stall;
        let asked_from = self.length;
        let answer = timeout_at(deadline, source.open(asked_from, self.validator.as_deref())).await;
        let response = answer.map_err(|_| self.stalled())??;
        if asked_from > 0 && response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            return self.nothing_after(response.headers());
        }
        let response = accepted(response, &format!("download {}", self.wanted.what)).await?;
        let total = self.begin(asked_from, &response)?;
        self.check_total(total)?;
        if let Some(total) = total {
            self.transfer.total(total);
        }
        self.receive(response).await?;
        match total {
            Some(total) if self.length != total => {
                Err(self.cut(&format!("{} of {total} bytes have arrived", self.length)))
            }
            _ => Ok(()),
        }
    }

    /// Looks where the answer begins. Returns how long the whole is, if the server says it.
    fn begin(&mut self, asked_from: u64, response: &Response) -> Result<Option<u64>, Failure> {
        let validator = validator(response.headers());
        if response.status() != StatusCode::PARTIAL_CONTENT {
            // Everything, whatever we asked for: the server knows no ranges, or has another state now.
            self.start_anew()?;
            self.remember(validator)?;
            return Ok(response.content_length());
        }
        let range = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
        let Some((first, total)) = range.and_then(content_range) else {
            self.start_anew()?;
            return Err(self.cut("the server does not say which part it sends"));
        };
        let by_digest = matches!(self.wanted.identity, Identity::Digest { .. });
        if first != asked_from || !by_digest && validator.is_some() && validator != self.validator {
            self.start_anew()?;
            return Err(self.cut("the server sends another part than we asked for"));
        }
        Ok(total)
    }

    /// The server says that there is nothing from our end on.
    fn nothing_after(&mut self, headers: &HeaderMap) -> Result<(), Failure> {
        let total = headers.get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
        let total = total.and_then(|text| text.trim().strip_prefix("bytes */")?.parse::<u64>().ok());
        let same = validator(headers).is_none_or(|validator| Some(validator) == self.validator);
        if total == Some(self.length) && same {
            return self.check_total(total);
        }
        self.start_anew()?;
        Err(self.cut("the server has less than we have"))
    }

    fn check_total(&self, total: Option<u64>) -> Result<(), Failure> {
        let what = self.wanted.what;
        let error = match (&self.wanted.identity, total) {
            (Identity::Digest { size, .. }, Some(total)) if total != *size => Error::new(
                Kind::Corrupt,
                format!("download {what}: the server has {total} bytes, {size} were announced"),
            ),
            (Identity::Validator { size_max, .. }, Some(total)) if total > *size_max => Error::new(
                Kind::TooLarge,
                format!("download {what}: {total} bytes, at most {size_max} are accepted"),
            ),
            _ => return Ok(()),
        };
        Err(Failure::Lasting(error))
    }

    async fn receive(&mut self, mut response: Response) -> Result<(), Failure> {
        let what = self.wanted.what;
        let (mut window_end, mut window_bytes) = (Instant::now() + self.patience.stall, 0);
        loop {
            let chunk = timeout_at(window_end, response.chunk()).await.map_err(|_| self.stalled())?;
            let chunk =
                chunk.map_err(|e| Failure::of(e, &format!("download {what}: the connection broke")))?;
            let Some(chunk) = chunk else { break };
            let count = chunk.len() as u64;
            self.length += count;
            self.check_length()?;
            self.hasher.update(&chunk);
            let written = (&*self.partial.file).write_all(&chunk);
            written.map_err(|e| cannot_write(&self.partial.path, what, e))?;
            self.transfer.advance(count);
            window_bytes += count;
            if window_bytes >= self.patience.stall_bytes {
                (window_end, window_bytes) = (Instant::now() + self.patience.stall, 0);
            }
        }
        match &self.wanted.identity {
            Identity::Digest { size, .. } if self.length < *size => {
                Err(self.cut(&format!("{} of {size} bytes have arrived", self.length)))
            }
            _ => Ok(()),
        }
    }

    fn check_length(&mut self) -> Result<(), Failure> {
        let what = self.wanted.what;
        let (max, kind) = match &self.wanted.identity {
            Identity::Digest { size, .. } => (*size, Kind::Corrupt),
            Identity::Validator { size_max, .. } => (*size_max, Kind::TooLarge),
        };
        if self.length <= max {
            return Ok(());
        }
        self.start_anew()?;
        let text = format!("download {what}: the server sends more than {max} bytes");
        Err(Failure::Lasting(Error::new(kind, text)))
    }

    fn remember(&mut self, validator: Option<String>) -> Result<(), Failure> {
        if let (Some(validator), Identity::Validator { .. }) = (&validator, &self.wanted.identity) {
            let written = fs::write(&self.partial.validator, validator);
            written.map_err(|e| cannot_write(&self.partial.validator, self.wanted.what, e))?;
        }
        self.validator = validator;
        Ok(())
    }

    fn is_right(&self) -> bool {
        match &self.wanted.identity {
            Identity::Digest { digest, .. } => self.hasher.clone().finish() == **digest,
            Identity::Validator { .. } => true,
        }
    }

    fn wrong_digest(self) -> Error {
        let got = self.hasher.finish();
        self.partial.remove();
        Error::new(Kind::Corrupt, format!("download {}: it has another digest: {got}", self.wanted.what))
    }

    fn finish(self) -> Result<Complete, Error> {
        self.transfer.finish();
        let digest = self.hasher.finish();
        Ok(Complete { partial: self.partial, digest, validator: self.validator })
    }

    fn stalled(&self) -> Failure {
        self.cut(&format!("next to nothing came in {} s", self.patience.stall.as_secs_f32()))
    }

    fn cut(&self, why: &str) -> Failure {
        Failure::Passing(Error::new(Kind::Network, format!("download {}: {why}", self.wanted.what)), None)
    }
}

/// Adds all of a file to `hasher`, and leaves the position at its end.
fn hash(mut file: &File, hasher: &mut Hasher) -> io::Result<u64> {
    let (mut buffer, mut length) = (vec![0; BUFFER_SIZE], 0);
    file.seek(SeekFrom::Start(0))?;
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok(length);
        }
        hasher.update(&buffer[..count]);
        length += count as u64;
    }
}

/// What tells one state of a resource from another: a strong `ETag` (RFC 9110 section 13.1.5: weak ones do not
/// count for ranges), or else the time of its last change.
fn validator(headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name)?.to_str().ok().filter(|text| is_validator(text)).map(str::to_owned);
    text(ETAG).or_else(|| text(LAST_MODIFIED))
}

fn is_validator(text: &str) -> bool {
    let printable = text.bytes().all(|b| matches!(b, b' '..=b'~'));
    printable && !text.is_empty() && text.len() <= VALIDATOR_MAX && !text.starts_with("W/")
}

/// `bytes FIRST-LAST/TOTAL`, `bytes FIRST-LAST/*` (RFC 9110 section 14.4): the first and the total.
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.trim().split_once('-')?;
    let (first, last) = (first.parse::<u64>().ok()?, last.parse::<u64>().ok()?);
    let total = if total == "*" { None } else { Some(total.parse::<u64>().ok()?) };
    (first <= last && total.is_none_or(|total| last < total)).then_some((first, total))
}

/// A way in for the fuzzer.
pub(super) fn fuzz(headers: &HeaderMap) {
    let _ = validator(headers); // Refusing is right; panicking is not.
    if let Some((first, Some(total))) =
        headers.get(CONTENT_RANGE).and_then(|range| range.to_str().ok()).and_then(content_range)
    {
        assert!(first < total, "a part lies inside of the whole");
    }
}

//! What was accepted before, so that what was superseded does not come back.
//!
//! A signature does not say that there is a newer one: whoever serves images can serve yesterday's, with holes that
//! were mended since, and it verifies. So each name remembers what it led to, in a small file below the store:
//!
//! ```text
//! trust/tags/HASH.json      digests that a tag of a registry was accepted with, in order
//! trust/images/HASH.json    when the newest signature was made that the name and labels of an ACI were accepted with
//! trust/lock                held while one of them is read and written
//! ```
//! Names with a version or a digest have files of their own or none: who asks for the old gets it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hull_errors::Doing;
use nix::fcntl::{Flock, FlockArg};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::appc;
use crate::digest::{Algorithm, Digest};
use crate::error::{way_out, writing};
use crate::record;
use crate::registry;
use crate::{Error, Kind};

/// Raised when the files change. Of another version's files nothing is believed, and nothing overwritten.
const FORMAT: u32 = 1;

/// Most digests that are remembered of one tag; 70 KB. The oldest are forgotten.
const DIGESTS_MAX: usize = 1000;

/// The memory of a store.
#[derive(Debug)]
pub struct Rollback {
    folder: PathBuf,
    temporary: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct TagRecord {
    format: u32,
    name: String,
    digests: Vec<Digest>,
}

#[derive(Serialize, Deserialize)]
struct ImageRecord {
    format: u32,
    name: String,
    /// In seconds since 1970; OpenPGP knows no finer time.
    newest: u64,
}

/// Both kinds of file.
trait Remembered: Serialize + DeserializeOwned {
    fn format(&self) -> u32;
    fn name(&self) -> &str;
}

impl Remembered for TagRecord {
    fn format(&self) -> u32 {
        self.format
    }

    fn name(&self) -> &str {
        &self.name
    }
}

impl Remembered for ImageRecord {
    fn format(&self) -> u32 {
        self.format
    }

    fn name(&self) -> &str {
        &self.name
    }
}

impl Rollback {
    /// The memory of the store in `images_dir`; `tmp` is there, as [`crate::Store::open`] makes it.
    pub fn new(images_dir: &Path) -> Self {
        Self { folder: images_dir.join("trust"), temporary: images_dir.join("tmp") }
    }

    /// Accepts that a tag leads to `digest`, unless another digest superseded it. Names with a digest of their own
    /// are not remembered.
    ///
    /// # Errors
    /// [`Kind::Untrusted`] for a digest that was superseded.
    pub(crate) fn accept_tag(&self, name: &registry::Name, digest: &Digest) -> Result<(), Error> {
        let Some(key) = tag_key(name) else { return Ok(()) };
        let path = self.path("tags", &key);
        let _lock = self.lock()?;
        let record: Option<TagRecord> = read(&path, &key)?;
        let mut digests = record.map_or(Vec::new(), |record| record.digests);
        if digests.last() == Some(digest) {
            return Ok(());
        }
        if digests.contains(digest) {
            let newest = digests.last().expect("it contains one");
            let repository = name.without_tag();
            let text = format!(
                "trust image `{key}`: it was rolled back, the tag leads to {digest}, which {newest} had superseded; \
                 if you want the old one: `{repository}@{digest}`, and if the tag went back on purpose, remove {} to \
                 forget what superseded it",
                path.display()
            );
            return Err(Error::new(Kind::Untrusted, text));
        }
        digests.push(digest.clone());
        let excess = digests.len().saturating_sub(DIGESTS_MAX);
        digests.drain(..excess);
        self.write(&path, &TagRecord { format: FORMAT, name: key, digests })
    }

    /// Accepts an App Container Image whose signature was `created` then, unless a newer signature was accepted for
    /// the same name and labels.
    ///
    /// # Errors
    /// [`Kind::Untrusted`] for a signature that is older.
    pub fn accept_image(&self, name: &appc::Name, created: SystemTime) -> Result<(), Error> {
        let key = image_key(name);
        let path = self.path("images", &key);
        let _lock = self.lock()?;
        let created = created.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let record: Option<ImageRecord> = read(&path, &key)?;
        let newest = record.map_or(0, |record| record.newest);
        if created < newest {
            let text = format!(
                "trust image `{key}`: it was rolled back, its signature was made {} before the one that \
                 was accepted last; ask for an old one by its version, and if the newer one was withdrawn on \
                 purpose, remove {} to forget it",
                span(newest - created),
                path.display()
            );
            return Err(Error::new(Kind::Untrusted, text));
        }
        if created == newest {
            return Ok(());
        }
        self.write(&path, &ImageRecord { format: FORMAT, name: key, newest: created })
    }

    /// Forgets what a tag led to; says whether anything was known.
    ///
    /// # Errors
    /// [`Kind::Host`].
    pub fn forget_tag(&self, name: &registry::Name) -> Result<bool, Error> {
        tag_key(name).map_or(Ok(false), |key| self.forget(&self.path("tags", &key)))
    }

    /// Forgets the signatures of a name; says whether anything was known.
    ///
    /// # Errors
    /// [`Kind::Host`].
    pub fn forget_image(&self, name: &appc::Name) -> Result<bool, Error> {
        self.forget(&self.path("images", &image_key(name)))
    }

    fn forget(&self, path: &Path) -> Result<bool, Error> {
        record::remove(path).doing(Kind::Host, || format!("remove {}", path.display()))
    }

    fn path(&self, folder: &str, key: &str) -> PathBuf {
        let hash = Digest::of(Algorithm::Sha256, key.as_bytes());
        self.folder.join(folder).join(format!("{}.json", hash.hex()))
    }

    /// Makes the folders as well.
    fn lock(&self) -> Result<Flock<File>, Error> {
        let locked = || {
            for folder in ["tags", "images"] {
                DirBuilder::new().recursive(true).mode(0o750).create(self.folder.join(folder))?;
            }
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(false).mode(0o640);
            let file = options.open(self.folder.join("lock"))?;
            Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| io::Error::from(errno))
        };
        locked().map_err(|e| self.cannot_write(&self.folder.join("lock"), e))
    }

    fn write(&self, path: &Path, record: &impl Remembered) -> Result<(), Error> {
        record::write(record, &self.temporary, path).map_err(|e| self.cannot_write(path, e))
    }

    fn cannot_write(&self, path: &Path, error: io::Error) -> Error {
        let doing = format!("remember what was trusted in {}{}", path.display(), way_out(&error));
        Error::because(writing(&error), doing, error)
    }
}

/// What cannot be read must not be forgotten silently: that would let the old back in.
fn read<T: Remembered>(path: &Path, key: &str) -> Result<Option<T>, Error> {
    let shown = path.display();
    let record: T = match fs::read(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        bytes => bytes.and_then(|bytes| Ok(serde_json::from_slice(&bytes)?)).doing(Kind::Host, || {
            format!("recall what was trusted as `{key}` (remove {shown} if it is damaged, and so forget it)")
        })?,
    };
    if record.format() != FORMAT || record.name() != key {
        let text = format!(
            "recall what was trusted as `{key}`: {shown} is of another version of hull, or about something else \
             (remove it, and so forget what it says)"
        );
        return Err(Error::new(Kind::Host, text));
    }
    Ok(Some(record))
}

/// `HOST/REPOSITORY:TAG`; none for a name that a digest pins.
fn tag_key(name: &registry::Name) -> Option<String> {
    let tag = name.tag().filter(|_| name.digest().is_none())?;
    Some(format!("{}:{tag}", name.without_tag()))
}

/// The version `latest` is the one that is meant when none is named.
fn image_key(name: &appc::Name) -> String {
    let version = name.version().filter(|version| *version != "latest");
    let version = version.map_or(String::new(), |version| format!(":{version}"));
    let labels = name.labels().filter(|(label, _)| *label != "version");
    let labels: String = labels.map(|(label, value)| format!(",{label}={value}")).collect();
    format!("{}{version}{labels}", name.name())
}

fn span(seconds: u64) -> String {
    let span = Duration::from_secs(seconds);
    match span.as_secs() {
        0..120 => format!("{seconds} seconds"),
        120..7200 => format!("{} minutes", seconds / 60),
        7200..172_800 => format!("{} hours", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn memory() -> (TempDir, Rollback) {
        let folder = TempDir::new().unwrap();
        fs::create_dir(folder.path().join("tmp")).unwrap();
        let rollback = Rollback::new(folder.path());
        (folder, rollback)
    }

    fn digest(text: &str) -> Digest {
        Digest::of(Algorithm::Sha256, text.as_bytes())
    }

    #[test]
    fn a_tag_does_not_go_back() {
        let (folder, memory) = memory();
        let name = registry::Name::parse("h.io/app:v1").unwrap();
        let [a, b, c] = ["a", "b", "c"].map(digest);
        for accepted in [&a, &a, &b, &b, &c] {
            memory.accept_tag(&name, accepted).unwrap();
        }
        let error = memory.accept_tag(&name, &a).unwrap_err();
        assert_eq!(*error.kind(), Kind::Untrusted);
        let text = error.to_string();
        assert!(text.contains("rolled back") && text.contains(&format!("`h.io/app@{a}`")), "{text}");
        assert!(text.contains(&c.to_string()), "{text}");
        memory.accept_tag(&name, &b).unwrap_err();
        memory.accept_tag(&name, &c).unwrap();
        // Other tags, and who names the old by its digest.
        memory.accept_tag(&registry::Name::parse("h.io/app:v2").unwrap(), &a).unwrap();
        memory.accept_tag(&registry::Name::parse(&format!("h.io/app:v1@{a}")).unwrap(), &a).unwrap();
        // The way out that the text names.
        let file = text.split("remove ").nth(1).unwrap().split(' ').next().unwrap();
        assert!(file.starts_with(folder.path().to_str().unwrap()));
        fs::remove_file(file).unwrap();
        memory.accept_tag(&name, &a).unwrap();
        memory.accept_tag(&name, &b).unwrap();
        assert!(memory.forget_tag(&name).unwrap() && !memory.forget_tag(&name).unwrap());
        memory.accept_tag(&name, &a).unwrap();
        assert_eq!(fs::read_dir(folder.path().join("tmp")).unwrap().count(), 0);
    }

    #[test]
    fn an_older_signature_is_refused() {
        let (_folder, memory) = memory();
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let name = |text: &str| appc::Name::parse(text).unwrap();
        memory.accept_image(&name("example.com/app"), at(1_000_000)).unwrap();
        memory.accept_image(&name("example.com/app:latest"), at(2_000_000)).unwrap();
        let text = memory.accept_image(&name("example.com/app"), at(1_000_000)).unwrap_err().to_string();
        assert!(text.contains("rolled back, its signature was made 11 days before"), "{text}");
        memory.accept_image(&name("example.com/app"), at(2_000_000)).unwrap();
        // By its version, and with other labels.
        memory.accept_image(&name("example.com/app:v1"), at(1_000_000)).unwrap();
        memory.accept_image(&name("example.com/app,channel=beta"), at(1_000_000)).unwrap();
        memory.accept_image(&name("example.com/app:v1"), at(999_999)).unwrap_err();
        assert!(memory.forget_image(&name("example.com/app")).unwrap());
        memory.accept_image(&name("example.com/app"), at(5)).unwrap();
    }

    #[test]
    fn a_damaged_memory_is_no_clean_slate() {
        let (folder, memory) = memory();
        let name = registry::Name::parse("h.io/app:v1").unwrap();
        memory.accept_tag(&name, &digest("a")).unwrap();
        let path = memory.path("tags", "h.io/app:v1");
        for text in [
            "",
            "{",
            r#"{"format":2,"name":"h.io/app:v1","digests":[]}"#,
            r#"{"format":1,"name":"x","digests":[]}"#,
        ] {
            fs::write(&path, text).unwrap();
            let text = memory.accept_tag(&name, &digest("b")).unwrap_err().to_string();
            assert!(text.contains(path.to_str().unwrap()) && text.contains("remove"), "{text}");
        }
        drop(folder);
    }

    #[test]
    fn the_memory_of_a_tag_is_bounded_and_shared() {
        let (_folder, memory) = memory();
        let name = registry::Name::parse("h.io/app:v1").unwrap();
        std::thread::scope(|scope| {
            for worker in 0..4 {
                let (memory, name) = (&memory, &name);
                scope.spawn(move || {
                    (0..10).for_each(|i| memory.accept_tag(name, &digest(&format!("{worker} {i}"))).unwrap());
                });
            }
        });
        let path = memory.path("tags", "h.io/app:v1");
        let mut record: TagRecord = record::read(&path).unwrap().unwrap();
        assert_eq!(record.digests.len(), 40);
        record.digests = (0..DIGESTS_MAX).map(|i| digest(&i.to_string())).collect();
        record::write(&record, &memory.temporary, &path).unwrap();
        memory.accept_tag(&name, &digest("new")).unwrap();
        let record: TagRecord = record::read(&path).unwrap().unwrap();
        assert_eq!(record.digests.len(), DIGESTS_MAX);
        memory.accept_tag(&name, &digest("1")).unwrap_err();
    }
}

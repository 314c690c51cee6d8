//! From a reference to an image in the store: which format it is, and what is done only once.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use hull_converter_protocol::Holds;
use hull_errors::Doing;
use nix::fcntl::OFlag;

use crate::digest::{Algorithm, ImageId};
use crate::docker::SavedImage;
use crate::error::opening;
use crate::member::Archive;
use crate::oci::{Layout, LayoutImage};
use crate::record::{FileKey, FileState};
use crate::store::{Imported, Store};
use crate::{Error, Kind, Reference, aci};

/// All of a file.
const WHOLE: (u64, u64) = (0, u64::MAX);

/// What a file is to be read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Guess,
    /// Of OCI or Docker: an ACI would need a signature, which nobody has looked at.
    Archive,
    OciArchive,
    DockerArchive,
    Aci,
}

pub(crate) fn import(store: &Store, reference: &Reference) -> Result<Imported, Error> {
    match reference {
        Reference::Id(prefix) => Ok(Imported { image: store.get_by_prefix(prefix)?, converted: false }),
        Reference::OciLayout { path, tag } => layout(store, path, tag.as_deref()),
        Reference::OciArchive { path, tag } => file(store, path, Format::OciArchive, tag.as_deref()),
        Reference::DockerArchive { path, name } => file(store, path, Format::DockerArchive, name.as_deref()),
        Reference::Path(path) => {
            let metadata = fs::metadata(path)
                .map_err(|e| Error::because(opening(&e), format!("open image {}", path.display()), e))?;
            if !metadata.is_dir() {
                return file(store, path, Format::Guess, None);
            }
            if !path.join("oci-layout").exists() {
                let text = format!(
                    "read image {}: the directory is no OCI layout (it has no `oci-layout`)",
                    path.display()
                );
                return Err(Error::new(Kind::NotAnImage, text));
            }
            layout(store, path, None)
        }
        Reference::Registry(_) | Reference::Url(_) | Reference::Plain(_) => {
            let text = format!("import image {reference}: it is fetched, not imported");
            Err(Error::new(Kind::Unsupported, text))
        }
    }
}

fn layout(store: &Store, path: &Path, tag: Option<&str>) -> Result<Imported, Error> {
    let layout = Layout::Folder(path.to_owned());
    let image = LayoutImage::choose(&layout, tag, path)?;
    store.make(&image.id(), || image.prepare(store.blobs()))
}

fn file(store: &Store, path: &Path, format: Format, tag: Option<&str>) -> Result<Imported, Error> {
    remembering(store, path, &format!("{format:?}"), tag, |file| read_file(store, file, path, format, tag))
}

/// Which import of an ACI is remembered: one that a signature was asked for is as good as one that was not,
/// but not the other way round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remembered {
    Aci,
    SignedAci,
}

/// What a file of an image seems to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guessed {
    Aci,
    /// Of OCI or Docker, or none at all.
    Archive,
}

/// What a file seems to be; the converter looks at files that were never imported.
pub(crate) fn guessed(store: &Store, path: &Path) -> Result<Guessed, Error> {
    let (file, key, state) = identify(path, &format!("{:?}", Format::Archive), None)?;
    let known =
        |format: &str| store.files().get(&FileKey { format: format.to_owned(), ..key.clone() }, &state);
    if known(&key.format).is_some() {
        return Ok(Guessed::Archive);
    }
    if [Remembered::Aci, Remembered::SignedAci].iter().any(|kind| known(&format!("{kind:?}")).is_some()) {
        return Ok(Guessed::Aci);
    }
    match store.converter().look(&file, &format!("archive {}", path.display()))? {
        (Holds::Aci, _) => Ok(Guessed::Aci),
        _ => Ok(Guessed::Archive),
    }
}

/// Imports what [`guessed`] took for an archive of OCI or Docker.
///
/// # Errors
/// [`Kind::Untrusted`] if it has become an ACI meanwhile.
pub(crate) fn archive(store: &Store, path: &Path) -> Result<Imported, Error> {
    file(store, path, Format::Archive, None)
}

/// Imports a file by means of `read`, unless it was imported that way and has not changed.
pub(crate) fn once(
    store: &Store,
    path: &Path,
    kind: Remembered,
    read: impl FnOnce() -> Result<Imported, Error>,
) -> Result<Imported, Error> {
    remembering(store, path, &format!("{kind:?}"), None, |_| read())
}

fn remembering(
    store: &Store,
    path: &Path,
    format: &str,
    tag: Option<&str>,
    read: impl FnOnce(File) -> Result<Imported, Error>,
) -> Result<Imported, Error> {
    let (file, key, state) = identify(path, format, tag)?;
    if let Some(id) = store.files().get(&key, &state)
        && let Some(image) = store.find(&id)?
    {
        return Ok(Imported { image, converted: false });
    }
    let doing = || format!("open image {}", path.display());
    let still = file.try_clone().doing(Kind::Host, doing)?;
    let imported = read(file)?;
    // Written to while we read it? Then the old state says nothing.
    if FileState::of(&still.metadata().doing(Kind::Host, doing)?) == state {
        let put = store.files().put(key, state, imported.image.id.clone());
        put.doing(Kind::Host, || format!("remember image {}", path.display()))?;
    }
    Ok(imported)
}

fn identify(path: &Path, format: &str, tag: Option<&str>) -> Result<(File, FileKey, FileState), Error> {
    let doing = || format!("open image {}", path.display());
    let file = open_regular(path)?;
    let state = FileState::of(&file.metadata().doing(Kind::Host, doing)?);
    let path = path.canonicalize().doing(Kind::Host, doing)?;
    let key = FileKey { path, format: format.to_owned(), tag: tag.map(str::to_owned) };
    Ok((file, key, state))
}

fn read_file(
    store: &Store,
    file: File,
    path: &Path,
    format: Format,
    tag: Option<&str>,
) -> Result<Imported, Error> {
    let shown = format!("archive {}", path.display());
    let (format, archive) = match format {
        Format::Guess => guess(store, file, &shown)?,
        Format::Archive => match guess(store, file, &shown)? {
            (Format::Aci, _) => {
                let text = format!("read {shown}: it became an App Container Image while it was looked at");
                return Err(Error::new(Kind::Untrusted, text));
            }
            guessed => guessed,
        },
        format => {
            let (_, is_compressed) = store.converter().look(&file, &shown)?;
            (format, Opened::Headers(open_archive(store, file, is_compressed, &shown)?))
        }
    };
    match archive {
        Opened::Raw(file) => {
            let mut plain = store.converter().uncompress(&file, WHOLE, &shown)?;
            let blob = store.blobs().add_whatever(&mut plain, Algorithm::Sha512, &shown)?;
            let id = ImageId::from(blob.digest());
            store.make(&id, || aci::prepare(blob, store.converter(), &shown))
        }
        Opened::Headers(archive) if format == Format::DockerArchive => {
            let image = SavedImage::choose(&archive, tag, &file_name(path))?;
            store.make(&image.id(), || image.prepare(store.blobs(), store.converter()))
        }
        Opened::Headers(archive) => {
            let layout = Layout::Archive(archive);
            let image = LayoutImage::choose(&layout, tag, path)?;
            store.make(&image.id(), || image.prepare(store.blobs()))
        }
    }
}

enum Opened {
    Headers(Archive),
    /// An ACI, as it came: its id is that of all its bytes.
    Raw(File),
}

fn guess(store: &Store, file: File, shown: &str) -> Result<(Format, Opened), Error> {
    let (holds, is_compressed) = store.converter().look(&file, shown)?;
    match holds {
        Holds::Aci => return Ok((Format::Aci, Opened::Raw(file))),
        Holds::Something => (),
        Holds::Nothing => {
            return Err(Error::new(Kind::NotAnImage, format!("read {shown}: the archive is empty")));
        }
    }
    let archive = open_archive(store, file, is_compressed, shown)?;
    // Newer versions of `docker save` write both; the OCI half says more.
    let format = if archive.contains("oci-layout") {
        Format::OciArchive
    } else if archive.contains("manifest.json") {
        Format::DockerArchive
    } else {
        let text = format!("read {shown}: it is no ACI, no OCI archive and no docker archive");
        return Err(Error::new(Kind::NotAnImage, text));
    };
    Ok((format, Opened::Headers(archive)))
}

/// Has the headers of an archive of images read; a compressed one is uncompressed into the store first.
fn open_archive(store: &Store, file: File, is_compressed: bool, shown: &str) -> Result<Archive, Error> {
    let converter = store.converter();
    let plain = match is_compressed {
        false => file,
        true => store.blobs().scratch(&mut converter.uncompress(&file, WHOLE, shown)?, shown)?,
    };
    Archive::open_file(converter, plain, shown)
}

/// Opens a file that somebody else made, without waiting for the other end of a pipe.
pub(crate) fn open_regular(path: &Path) -> Result<File, Error> {
    let doing = || format!("open {}", path.display());
    let flags = (OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = file.map_err(|e| Error::because(opening(&e), doing(), e))?;
    if !file.metadata().doing(Kind::Host, doing)?.is_file() {
        return Err(Error::new(Kind::NotAnImage, format!("{}: it is no regular file", doing())));
    }
    Ok(file)
}

/// The last part of a path, for images that have no name of their own.
pub(crate) fn file_name(path: &Path) -> String {
    let canonical = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    canonical.file_name().map_or_else(|| "image".into(), |name| name.to_string_lossy().into_owned())
}

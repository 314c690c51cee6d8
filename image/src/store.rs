//! The image store: what lies where, and how an image gets in exactly once.
//!
//! ```text
//! blobs/sha256/HEX  blobs/sha512/HEX   as they came, hashed
//! erofs/ID.erofs                       the file system of an image
//! manifests/ID.json                    what is known of it; written last
//! partial/KEY                          downloads that are not whole (see `transport::partial`)
//! refs/HASH.json                       which image an archive file held
//! tmp/                                 being written, or left by the dead (see `temporary`)
//! ```
//! Every file is written to `tmp/`, synced, renamed, and its folder synced: after a crash a name leads
//! to a whole file or to none.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use hull_errors::Doing;

use crate::blobs::{Blobs, cannot_write};
use crate::config::ImageConfig;
use crate::convert::{Layer, convert};
use crate::converter::Converter;
use crate::digest::{IdPrefix, ImageId};
use crate::record::{self, FORMAT, FileRecords, ImageRecord};
use crate::temporary::{ImageLock, Temporary, sweep};
use crate::transport::partial::Partials;
use crate::{Error, Kind, Reference, import};

/// The folders of a store: for the owner, and to look at for the group that may use hull.
const FOLDER_MODE: u32 = 0o750;

/// Where images are kept.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    temporary: PathBuf,
    blobs: Blobs,
    files: FileRecords,
    converter: Converter,
}

/// An image of the store.
#[derive(Clone, Debug)]
pub struct Image {
    pub id: ImageId,
    /// The name it came by, for people: `busybox:latest`, `coreos.com/etcd:v3.1.0`.
    pub name: String,
    /// The file system of the image. Its length is a multiple of 2 MiB, so that it can be mapped as
    /// persistent memory.
    pub erofs: PathBuf,
    pub config: ImageConfig,
}

/// What [`Store::import`] did.
#[derive(Clone, Debug)]
pub struct Imported {
    pub image: Image,
    /// Whether there was anything to do; `false` for an image that the store had.
    pub converted: bool,
}

/// An image whose blobs are in the store and whose file system is still to be made.
pub(crate) struct Prepared {
    pub(crate) name: String,
    pub(crate) config: ImageConfig,
    pub(crate) layers: Vec<Layer>,
}

impl Store {
    /// Opens the store in `images_dir`; makes what is missing, removes what dead processes have left.
    /// Archives will be read by `converter`.
    ///
    /// # Errors
    /// [`Kind::Host`] or [`Kind::NoSpace`] if the folders cannot be made.
    pub fn open(images_dir: &Path, converter: Converter) -> Result<Store, Error> {
        let temporary = images_dir.join("tmp");
        let store = Store {
            blobs: Blobs::new(images_dir.join("blobs"), temporary.clone()),
            files: FileRecords::new(images_dir.join("refs"), temporary.clone()),
            folder: images_dir.to_owned(),
            temporary,
            converter,
        };
        store.create_folders().map_err(|e| cannot_write(images_dir, "folders", e))?;
        sweep(&store.temporary).doing(Kind::Host, || format!("clean up {}", store.temporary.display()))?;
        Ok(store)
    }

    /// Brings an image into the store, unless it is there.
    ///
    /// # Errors
    /// Whatever [`Kind`] names; nothing of a failed import stays but blobs that were found right.
    pub fn import(&self, reference: &Reference) -> Result<Imported, Error> {
        import::import(self, reference)
    }

    /// An image of the store by its id.
    ///
    /// # Errors
    /// [`Kind::NotFound`].
    pub fn get(&self, id: &ImageId) -> Result<Image, Error> {
        self.find(id)?.ok_or_else(|| Error::new(Kind::NotFound, format!("find image {id} in the store")))
    }

    /// Where the file system of an image is, or would be.
    pub fn erofs_path(&self, id: &ImageId) -> PathBuf {
        self.folder.join("erofs").join(format!("{id}.erofs"))
    }

    pub(crate) fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    /// Downloads that are not whole.
    #[allow(dead_code, reason = "downloads come next")]
    pub(crate) fn partials(&self) -> Partials {
        Partials::new(self.folder.join("partial"))
    }

    pub(crate) fn converter(&self) -> &Converter {
        &self.converter
    }

    pub(crate) fn files(&self) -> &FileRecords {
        &self.files
    }

    /// An image of the store; `None` if it is not there, or was made by another version of hull.
    pub(crate) fn find(&self, id: &ImageId) -> Result<Option<Image>, Error> {
        let record: ImageRecord = match record::read(&self.record_path(id)) {
            Ok(record) => record,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound) => return Ok(None),
            // A record that cannot be understood is replaced by the next import.
            Err(e) if e.kind() == io::ErrorKind::InvalidData || e.kind() == io::ErrorKind::UnexpectedEof => {
                return Ok(None);
            }
            Err(e) => return Err(Error::because(Kind::Host, format!("read the record of image {id}"), e)),
        };
        let erofs = self.erofs_path(id);
        let whole = fs::metadata(&erofs).is_ok_and(|file| file.is_file() && file.len() == record.erofs_size);
        if record.format != FORMAT || record.id != *id || !whole {
            return Ok(None);
        }
        Ok(Some(Image { id: record.id, name: record.name, erofs, config: record.config }))
    }

    /// The only image whose id begins so.
    pub(crate) fn get_by_prefix(&self, prefix: &IdPrefix) -> Result<Image, Error> {
        let shown = prefix.as_str();
        let folder = self.folder.join("manifests");
        let mut ids = Vec::new();
        for entry in fs::read_dir(&folder).doing(Kind::Host, || format!("list {}", folder.display()))? {
            let name = entry.doing(Kind::Host, || format!("list {}", folder.display()))?.file_name();
            let id = name.to_str().and_then(|name| name.strip_suffix(".json")?.parse::<ImageId>().ok());
            ids.extend(id.filter(|id| id.as_str().starts_with(shown)));
        }
        ids.sort_unstable();
        match &*ids {
            [id] => self.get(id),
            [] => Err(Error::new(
                Kind::NotFound,
                format!("find image {shown}: the store has none with such an id"),
            )),
            several => {
                let several = several.iter().map(ImageId::as_str).collect::<Vec<_>>().join(", ");
                Err(Error::new(
                    Kind::Ambiguous,
                    format!("find image {shown}: the store has several: {several}"),
                ))
            }
        }
    }

    /// The image `id`, made by means of `prepare` unless the store has it. Two that want the same image
    /// at once make it once.
    pub(crate) fn make(
        &self,
        id: &ImageId,
        prepare: impl FnOnce() -> Result<Prepared, Error>,
    ) -> Result<Imported, Error> {
        if let Some(image) = self.find(id)? {
            return Ok(Imported { image, converted: false });
        }
        let lock = ImageLock::acquire(&self.temporary, id);
        let _lock = lock.map_err(|e| cannot_write(&self.folder, &format!("the lock of image {id}"), e))?;
        if let Some(image) = self.find(id)? {
            return Ok(Imported { image, converted: false });
        }
        let image = self.convert(id, prepare()?)?;
        Ok(Imported { image, converted: true })
    }

    fn convert(&self, id: &ImageId, prepared: Prepared) -> Result<Image, Error> {
        let Prepared { name, config, layers } = prepared;
        let digests = layers.iter().map(|layer| layer.blob.digest().clone()).collect();
        let cannot_write = |e| cannot_write(&self.folder, &format!("image {id}"), e);
        let output = Temporary::create(&self.temporary).map_err(cannot_write)?;
        convert(&self.converter, id, layers, output.file())?;
        let erofs_size = output.file().metadata().map_err(cannot_write)?.len();
        let erofs = self.erofs_path(id);
        output.commit(&erofs).map_err(cannot_write)?;
        let record =
            ImageRecord { format: FORMAT, id: id.clone(), name, erofs_size, layers: digests, config };
        record::write(&record, &self.temporary, &self.record_path(id)).map_err(cannot_write)?;
        Ok(Image { id: record.id, name: record.name, erofs, config: record.config })
    }

    fn record_path(&self, id: &ImageId) -> PathBuf {
        self.folder.join("manifests").join(format!("{id}.json"))
    }

    fn create_folders(&self) -> io::Result<()> {
        let folders = ["erofs", "manifests", "partial", "refs"].map(|name| self.folder.join(name));
        let folders = folders.into_iter().chain(self.blobs.folders()).chain([self.temporary.clone()]);
        for folder in folders.filter(|folder| !folder.is_dir()) {
            DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder)?;
        }
        Ok(())
    }
}

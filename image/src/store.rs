//! The image store: what lies where, and how an image gets in exactly once.
//!
//! ```text
//! blobs/sha256/HEX  blobs/sha512/HEX   as they came, hashed
//! erofs/ID.CONVERSION.erofs  ID.TREE.CONVERSION.erofs  the file system of an image; TREE tells those of one that lies
//!                                      on others apart, CONVERSION those of different versions (the first has none)
//! manifests/ID.json                    what is known of it; written last, removed first
//! names/HASH.json                      what a name led to when it was last fetched
//! aci/HASH.ID                          that an image is an App Container Image of that name; empty
//! signers/DIGEST.FINGERPRINT           by whose key such an image was signed; empty (see `signers`)
//! partial/KEY                          downloads that are not whole (see `transport::partial`)
//! remote/HASH.json                     what a URL held when it was last fetched (see `appc::remote`)
//! refs/HASH.json                       which image an archive file held
//! tmp/                                 being written, or left by the dead (see `temporary`)
//! lock                                 see `lock`
//! ```
//! Every file is written to `tmp/`, synced, renamed, and its folder synced: after a crash a name leads
//! to a whole file or to none. What an image needs is there before its record is, and goes after it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use hull_errors::Doing;

use crate::acis::Acis;
use crate::blobs::{Blobs, cannot_write};
use crate::config::ImageConfig;
use crate::convert::{Flavour, Layer, convert};
use crate::converter::Converter;
use crate::digest::{Digest, IdPrefix, ImageId};
use crate::lock::{Exclusive, Hold};
use crate::names::{NamedImage, Names};
use crate::record::{self, CONVERSION, FORMAT, FileRecords, ImageKind, ImageRecord, LayerRecord};
use crate::signers::Signers;
use crate::temporary::{ImageLock, Temporary, sweep};
use crate::transport::partial::Partials;
use crate::{Error, Kind, Reference, catalog, document, folders, import};

/// Where images are kept.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    temporary: PathBuf,
    blobs: Blobs,
    files: FileRecords,
    names: Names,
    acis: Acis,
    signers: Signers,
    converter: Converter,
}

/// An image of the store.
#[derive(Clone, Debug)]
pub struct Image {
    pub id: ImageId,
    pub kind: ImageKind,
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
            names: Names::new(images_dir.join("names"), temporary.clone()),
            acis: Acis::new(images_dir.join("aci")),
            signers: Signers::new(images_dir.join("signers")),
            folder: images_dir.to_owned(),
            temporary,
            converter,
        };
        folders::create(store.folders()).map_err(|e| cannot_write(images_dir, "folders", e))?;
        sweep(&store.temporary).doing(Kind::Host, || format!("clean up {}", store.temporary.display()))?;
        Ok(store)
    }

    /// Brings an image into the store, unless it is there. Either way it counts as used.
    ///
    /// # Errors
    /// Whatever [`Kind`] names; nothing of a failed import stays but blobs that were found right.
    pub fn import(&self, reference: &Reference) -> Result<Imported, Error> {
        let _hold = self.hold()?;
        let imported = import::import(self, reference)?;
        self.touch(&imported.image.id);
        Ok(imported)
    }

    /// Keeps everything in the store. Waits for a removal that is deciding what goes.
    ///
    /// # Errors
    /// [`Kind::Host`] if the lock cannot be had.
    pub fn hold(&self) -> Result<Hold, Error> {
        let path = self.lock_path();
        Hold::acquire(&path).map_err(|e| cannot_write(&self.folder, "its lock", e))
    }

    /// An image of the store by its id.
    ///
    /// # Errors
    /// [`Kind::NotFound`].
    pub fn get(&self, id: &ImageId) -> Result<Image, Error> {
        self.find(id)?.ok_or_else(|| Error::new(Kind::NotFound, format!("find image {id} in the store")))
    }

    /// Where the file system of an image is, or would be.
    pub(crate) fn erofs_of(&self, record: &ImageRecord) -> PathBuf {
        self.erofs_folder().join(record.erofs_name())
    }

    pub(crate) fn erofs_folder(&self) -> PathBuf {
        self.folder.join("erofs")
    }

    /// What a name led to when it was last fetched, if the store still has that image.
    ///
    /// # Errors
    /// [`Kind::Host`].
    pub fn named(&self, name: &str) -> Result<Option<NamedImage>, Error> {
        let named = self.names.get(name).doing(Kind::Host, || format!("look up the name {name}"))?;
        let Some(named) = named else { return Ok(None) };
        Ok(self.find(&named.image)?.map(|_| named))
    }

    /// Remembers what a name leads to. Whoever calls it holds the store, and has the image from it.
    ///
    /// # Errors
    /// [`Kind::Host`] or [`Kind::NoSpace`].
    pub fn put_name(&self, named: &NamedImage) -> Result<(), Error> {
        let put = self.names.put(named);
        put.map_err(|e| cannot_write(&self.folder, &format!("the name {}", named.name), e))
    }

    /// Forgets a name; the image stays. Says whether there was such a name.
    ///
    /// # Errors
    /// [`Kind::Host`].
    pub fn remove_name(&self, name: &str) -> Result<bool, Error> {
        self.names.remove(name).doing(Kind::Host, || format!("forget the name {name}"))
    }

    pub(crate) fn exclusive(&self) -> Result<Exclusive, Error> {
        let path = self.lock_path();
        Exclusive::acquire(&path).map_err(|e| cannot_write(&self.folder, "its lock", e))
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn temporary(&self) -> &Path {
        &self.temporary
    }

    pub(crate) fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    /// Downloads that are not whole.
    pub(crate) fn partials(&self) -> Partials {
        Partials::new(self.folder.join("partial"))
    }

    pub(crate) fn converter(&self) -> &Converter {
        &self.converter
    }

    pub(crate) fn files(&self) -> &FileRecords {
        &self.files
    }

    pub(crate) fn names(&self) -> &Names {
        &self.names
    }

    pub(crate) fn acis(&self) -> &Acis {
        &self.acis
    }

    pub(crate) fn signers(&self) -> &Signers {
        &self.signers
    }

    /// An image of the store; `None` if it is not there.
    pub(crate) fn find(&self, id: &ImageId) -> Result<Option<Image>, Error> {
        self.record(id)?.map(|record| self.usable(record)).transpose()
    }

    /// The image of a record, its file system made anew if another version of hull had made it.
    pub(crate) fn usable(&self, record: ImageRecord) -> Result<Image, Error> {
        if record.conversion == CONVERSION {
            return Ok(self.image(record));
        }
        let id = record.id;
        let _lock = self.lock_image(&id)?;
        let record = self.known_record(&id)?;
        // Perhaps somebody else made it while we waited.
        if record.conversion == CONVERSION {
            return Ok(self.image(record));
        }
        let layers = record.layers.iter().map(|layer| {
            let blob = self.blobs.get(&layer.blob)?.ok_or_else(|| catalog::missing(&id, &layer.blob))?;
            Ok(Layer { blob, flavour: layer.flavour.clone() })
        });
        let layers = layers.collect::<Result<_, Error>>()?;
        let output = self.converted(&id, layers)?;
        Ok(self.image(self.put(record, output)?))
    }

    /// The file system that layers make, not yet in its place.
    pub(crate) fn converted(&self, id: &ImageId, layers: Vec<Layer>) -> Result<Temporary, Error> {
        let output = Temporary::create(&self.temporary).map_err(|e| self.cannot_keep(id, e))?;
        convert(&self.converter, id, layers, output.file())?;
        Ok(output)
    }

    /// Puts an image's file system in its place, and then its record, which is true from then on. Whoever calls it
    /// has locked the image. An older file system stays until a collection, for pods that were prepared with it.
    pub(crate) fn put(&self, record: ImageRecord, output: Temporary) -> Result<ImageRecord, Error> {
        let id = record.id.clone();
        let cannot_keep = |e| self.cannot_keep(&id, e);
        let erofs_size = output.file().metadata().map_err(cannot_keep)?.len();
        let record = ImageRecord { conversion: CONVERSION, erofs_size, ..record };
        output.commit(&self.erofs_of(&record)).map_err(cannot_keep)?;
        if record.kind == ImageKind::Aci {
            let name = catalog::aci_name(&record.name, &record.config.labels);
            self.acis.put(name, &id).map_err(cannot_keep)?;
        }
        record::write(&record, &self.temporary, &self.record_path(&id)).map_err(cannot_keep)?;
        Ok(record)
    }

    /// Excludes others from making the same image.
    pub(crate) fn lock_image(&self, id: &ImageId) -> Result<ImageLock, Error> {
        let lock = ImageLock::acquire(&self.temporary, id);
        lock.map_err(|e| cannot_write(&self.folder, &format!("the lock of image {id}"), e))
    }

    fn cannot_keep(&self, id: &ImageId, error: std::io::Error) -> Error {
        cannot_write(&self.folder, &format!("image {id}"), error)
    }

    /// The record of an image that is whole and of this version. One that lacks a blob is not: fetching it
    /// brings what is missing.
    pub(crate) fn record(&self, id: &ImageId) -> Result<Option<ImageRecord>, Error> {
        let record: Option<ImageRecord> = record::read(&self.record_path(id))
            .doing(Kind::Host, || format!("read the record of image {id}"))?;
        Ok(record.filter(|record| {
            let erofs = fs::metadata(self.erofs_of(record));
            let whole = erofs.is_ok_and(|file| file.is_file() && file.len() == record.erofs_size);
            record.is_of(id) && whole && record.blobs().all(|digest| self.blobs.path(digest).is_file())
        }))
    }

    pub(crate) fn image(&self, record: ImageRecord) -> Image {
        let erofs = self.erofs_of(&record);
        Image { id: record.id, kind: record.kind, name: record.name, erofs, config: record.config }
    }

    /// The ids of all records, readable or not, in the order of their bytes.
    pub(crate) fn ids(&self) -> Result<Vec<ImageId>, Error> {
        let folder = self.records_folder();
        let doing = || format!("list {}", folder.display());
        let mut ids = Vec::new();
        for entry in fs::read_dir(&folder).doing(Kind::Host, doing)? {
            let name = entry.doing(Kind::Host, doing)?.file_name();
            ids.extend(name.to_str().and_then(|name| name.strip_suffix(".json")?.parse::<ImageId>().ok()));
        }
        ids.sort_unstable();
        Ok(ids)
    }

    /// The only image whose id begins so.
    pub(crate) fn get_by_prefix(&self, prefix: &IdPrefix) -> Result<Image, Error> {
        let shown = prefix.as_str();
        let mut ids = self.ids()?;
        ids.retain(|id| id.as_str().starts_with(shown));
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
        let _lock = self.lock_image(id)?;
        if let Some(image) = self.record(id)?.map(|record| self.image(record)) {
            return Ok(Imported { image, converted: false });
        }
        let image = self.convert(id, prepare()?)?;
        Ok(Imported { image, converted: true })
    }

    /// The image `id` made of what is prepared. One that lies on others was perhaps made when a name among them
    /// led elsewhere: then it has another file system from now on. Pods that are prepared with the old one keep
    /// that, and what no pod uses is collected.
    pub(crate) fn make_of(&self, id: &ImageId, prepared: Prepared) -> Result<Imported, Error> {
        let made_of_these = || -> Result<Option<ImageRecord>, Error> {
            let same = |record: &ImageRecord| {
                let layers = record.layers.iter().map(|layer| (&layer.blob, &layer.flavour));
                layers.eq(prepared.layers.iter().map(|layer| (layer.blob.digest(), &layer.flavour)))
            };
            Ok(self.record(id)?.filter(same))
        };
        if let Some(record) = made_of_these()? {
            return Ok(Imported { image: self.usable(record)?, converted: false });
        }
        let _lock = self.lock_image(id)?;
        if let Some(record) = made_of_these()? {
            return Ok(Imported { image: self.image(record), converted: false });
        }
        let image = self.convert(id, prepared)?;
        Ok(Imported { image, converted: true })
    }

    fn convert(&self, id: &ImageId, prepared: Prepared) -> Result<Image, Error> {
        let Prepared { name, config, layers } = prepared;
        let (kind, documents) = self.kind_and_documents(id, &layers)?;
        let records = layers
            .iter()
            .map(|layer| LayerRecord { blob: layer.blob.digest().clone(), flavour: layer.flavour.clone() });
        let records: Vec<_> = records.collect();
        let tree = record::tree_of(&records).filter(|_| kind == ImageKind::Aci);
        let output = self.converted(id, layers)?;
        let record = ImageRecord {
            format: FORMAT,
            conversion: CONVERSION,
            id: id.clone(),
            name,
            kind,
            imported: SystemTime::now(),
            tree,
            // Known once it is in its place.
            erofs_size: 0,
            documents,
            layers: records,
            config,
        };
        Ok(self.image(self.put(record, output)?))
    }

    /// The blobs that say what an image is, as far as they are no layers.
    fn kind_and_documents(&self, id: &ImageId, layers: &[Layer]) -> Result<(ImageKind, Vec<Digest>), Error> {
        if layers.iter().all(|layer| matches!(layer.flavour, Flavour::Aci { .. })) {
            return Ok((ImageKind::Aci, Vec::new()));
        }
        let own = Digest::from(id);
        let missing =
            || Error::new(Kind::Corrupt, format!("import image {id}: its blob is not in the store"));
        let document = self.blobs.get(&own)?.ok_or_else(missing)?.document()?;
        Ok(match document::config_of(document.as_slice()) {
            Some(config) => (ImageKind::Oci, vec![own, config]),
            None => (ImageKind::Docker, vec![own]),
        })
    }

    pub(crate) fn records_folder(&self) -> PathBuf {
        self.folder.join("manifests")
    }

    pub(crate) fn record_path(&self, id: &ImageId) -> PathBuf {
        self.records_folder().join(format!("{id}.json"))
    }

    fn lock_path(&self) -> PathBuf {
        self.folder.join("lock")
    }

    fn folders(&self) -> impl Iterator<Item = PathBuf> {
        let own = ["aci", "erofs", "manifests", "names", "partial", "refs", "remote", "signers", "tmp"]
            .map(|name| self.folder.join(name));
        [self.folder.clone()].into_iter().chain(own).chain(self.blobs.folders())
    }
}

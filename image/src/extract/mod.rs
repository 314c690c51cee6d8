//! From the store's file system to a tree of files, for people who want to look inside.
//!
//! Everything is made with descriptors: a directory is opened below the new root, where no link is followed and
//! nothing leads out, and what is made in it has one name and no path. The root is nobody's but ours until it is
//! whole. Nothing is run, mounted or unpacked.

mod create;
mod erofs;

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use hull_errors::Doing;
use rustix::fs::{Mode, OFlags, fchmod, mkdirat, openat};

use crate::catalog::missing;
use crate::convert::{Flavour, Layer};
use crate::digest::{Digest, ImageId};
use crate::record::{ImageKind, ImageRecord};
use crate::staging::{Existing, Staged, cannot_write};
use crate::store::Store;
use crate::{Error, Kind};

pub(crate) use erofs::{read_all, read_sound};

/// What of an image is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parts {
    /// `manifest` (and `config`, where that is another document), and the files below `rootfs`.
    All,
    /// Only the files.
    RootFs,
}

/// Everybody may look into what a user extracts, as into any new directory; files have their own modes.
const FOLDER_MODE: u32 = 0o755;

impl Store {
    /// Writes the files of an image to `folder`, without those of the images it depends on.
    ///
    /// # Errors
    /// [`Kind::Host`] for whatever is in the way; then `folder` is as before.
    pub fn extract(
        &self,
        id: &ImageId,
        folder: &Path,
        parts: Parts,
        existing: Existing,
    ) -> Result<(), Error> {
        let _hold = self.hold()?;
        let record = self.known_record(id)?;
        if record.kind != ImageKind::Aci || record.layers.len() == 1 {
            return self.write_tree(id, &self.file_system(record)?, folder, parts, existing);
        }
        let own = Digest::from(id);
        let blob = self.blobs().get(&own)?.ok_or_else(|| missing(id, &own))?;
        let file = self.converted(id, vec![Layer { blob, flavour: Flavour::whole_aci() }])?;
        self.write_tree(id, file.file(), folder, parts, existing)
    }

    /// Writes to `folder` what a pod of the image sees, with the files of the images it depends on.
    ///
    /// # Errors
    /// [`Kind::Host`] for whatever is in the way; then `folder` is as before.
    pub fn render(&self, id: &ImageId, folder: &Path, parts: Parts, existing: Existing) -> Result<(), Error> {
        let _hold = self.hold()?;
        let record = self.known_record(id)?;
        self.write_tree(id, &self.file_system(record)?, folder, parts, existing)
    }

    fn file_system(&self, record: ImageRecord) -> Result<File, Error> {
        let path = self.usable(record)?.erofs;
        File::open(&path).doing(Kind::Host, || format!("open {}", path.display()))
    }

    fn write_tree(
        &self,
        id: &ImageId,
        file_system: &File,
        folder: &Path,
        parts: Parts,
        existing: Existing,
    ) -> Result<(), Error> {
        let staged = Staged::folder(folder, existing)?;
        let top = staged.handle().as_fd();
        match parts {
            Parts::RootFs => create::tree(id, file_system, top)?,
            Parts::All => {
                let cannot_write = |e: rustix::io::Errno| cannot_write(folder, e.into());
                let documents = self.documents(id)?;
                let named = [("manifest", Some(documents.manifest)), ("config", documents.config)];
                for (name, bytes) in named.into_iter().filter_map(|(name, bytes)| Some((name, bytes?))) {
                    create::document(top, name, &bytes)
                        .map_err(|e| crate::staging::cannot_write(folder, e))?;
                }
                mkdirat(top, "rootfs", Mode::RWXU).map_err(cannot_write)?;
                let root = openat(top, "rootfs", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
                create::tree(id, file_system, root.map_err(cannot_write)?.as_fd())?;
                open_to_all(top).map_err(cannot_write)?;
            }
        }
        staged.commit()
    }
}

fn open_to_all(folder: BorrowedFd<'_>) -> rustix::io::Result<()> {
    fchmod(folder, Mode::from_raw_mode(FOLDER_MODE))
}

//! Volumes of the host's: what the user named is looked at once, and from then on only that is meant.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use hull_errors::Doing;
use hull_mounts::{Extent, Restrictions, Tree, table};
use hull_pod::Flavour;
use hull_pod::volumes::HostSource;

use crate::{Error, Kind};

/// What a volume of the host's turned out to be.
#[derive(Debug)]
pub struct HostVolume<'a> {
    name: &'a str,
    source: &'a HostSource,
    file: File,
    shape: Shape,
}

/// How a volume is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Directory,
    File,
    /// A socket or a pipe.
    Endpoint,
    BlockDevice,
    CharacterDevice,
}

impl<'a> HostVolume<'a> {
    /// Looks at the source of volume `name`. Symbolic links are followed, now and never again.
    ///
    /// # Errors
    /// There is nothing, or the host's.
    pub fn open(name: &'a str, source: &'a HostSource) -> Result<Self, Error> {
        let doing = || format!("open {}, the source of volume {name}", source.path);
        let looked = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(&source.path);
        let file = looked.doing(Kind::Host, doing)?;
        let kind = file.metadata().doing(Kind::Host, doing)?.file_type();
        let shape = match kind {
            kind if kind.is_dir() => Shape::Directory,
            kind if kind.is_block_device() => Shape::BlockDevice,
            kind if kind.is_char_device() => Shape::CharacterDevice,
            kind if kind.is_file() => Shape::File,
            _ => Shape::Endpoint,
        };
        Ok(Self { name, source, file, shape })
    }

    /// The source, as the user named it.
    pub fn path(&self) -> &str {
        &self.source.path
    }

    /// Whether nobody in the pod may write to it.
    pub fn is_read_only(&self) -> bool {
        self.source.read_only
    }

    /// What it is.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Mounts it on `target`, which is made, for a pod that shares the host's kernel as `flavour` says. Call it in
    /// the pod's mount namespace, before anything of the pod runs: after an error something may be mounted.
    ///
    /// # Errors
    /// A source that such a pod must not have, or the host's.
    pub fn mount(self, target: &Path, flavour: Flavour) -> Result<(), Error> {
        let (name, path) = (self.name, &self.source.path);
        if self.source.read_only && matches!(self.shape, Shape::BlockDevice | Shape::CharacterDevice) {
            return Err(Error::new(
                Kind::Host,
                format!(
                    "volume {name}: {path} is a device, and no mount keeps a program from writing to a device; leave \
                     out readOnly, or use --stage1=kvm, where a block device is the machine's disk"
                ),
            ));
        }
        self.place(target, flavour)?;
        match flavour {
            // For programs that manage the host.
            Flavour::Fly => Ok(()),
            Flavour::Nspawn | Flavour::Kvm => self.refuse_the_kernels_own(target),
        }
    }

    /// The volume as a mount that is nowhere yet, and allows what it shall allow.
    ///
    /// # Errors
    /// The host's.
    pub fn tree(&self, flavour: Flavour) -> Result<Tree, Error> {
        let (name, path) = (self.name, &self.source.path);
        let extent = if self.source.recursive { Extent::All } else { Extent::One };
        let is_device = matches!(self.shape, Shape::BlockDevice | Shape::CharacterDevice);
        let no_devices = !is_device && flavour != Flavour::Fly;
        let restrictions = Restrictions { read_only: self.source.read_only, no_devices };
        let tree = Tree::clone_of(self.file.as_fd(), extent).and_then(|tree| {
            tree.restrict(restrictions)?;
            Ok(tree)
        });
        tree.doing(Kind::Host, || format!("take {path} as volume {name}"))
    }

    /// Opens the file or device itself, for reading, and for writing where that is allowed.
    ///
    /// # Errors
    /// The host's.
    pub fn open_itself(&self) -> Result<File, Error> {
        let (name, path) = (self.name, &self.source.path);
        let it = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let opened = OpenOptions::new().read(true).write(!self.source.read_only).open(it);
        opened.doing(Kind::Host, || format!("open {path} as volume {name}"))
    }

    fn place(&self, target: &Path, flavour: Flavour) -> Result<(), Error> {
        let tree = self.tree(flavour)?;
        let (name, path) = (self.name, &self.source.path);
        let attach = || -> io::Result<()> {
            match self.shape {
                Shape::Directory => fs::create_dir(target)?,
                _ => drop(OpenOptions::new().write(true).create_new(true).open(target)?),
            }
            tree.attach(OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(target)?.as_fd())
        };
        attach().doing(Kind::Host, || format!("mount {path} as volume {name}"))
    }

    /// Looks at what was mounted, not at what was to be: between the two somebody may have mounted more.
    fn refuse_the_kernels_own(&self, target: &Path) -> Result<(), Error> {
        let (name, path) = (self.name, &self.source.path);
        let mounts = fs::read_to_string("/proc/self/mountinfo");
        let mounts = mounts.doing(Kind::Host, || format!("look at the mounts of volume {name}"))?;
        match table::kernels_own(&mounts, target) {
            None => Ok(()),
            Some(bad) => {
                Err(Error::new(Kind::Host, format!("volume {name} from {path}: {}", bad.objection(target))))
            }
        }
    }
}

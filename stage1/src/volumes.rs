//! Volumes of the host's: what the user named is looked at once, and from then on only that is meant.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use hull_errors::Doing;
use hull_mounts::{Extent, Restrictions, Tree, table};
use hull_pod::Flavour;
use hull_pod::volumes::HostSource;

use crate::{Error, Kind};

/// File systems that are the kernel itself, not files: through them the host is changed, looked into or left.
const KERNELS_OWN: [&str; 18] = [
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "efivarfs",
    "fusectl",
    "nfsd",
    "nsfs",
    "proc",
    "pstore",
    "resctrl",
    "securityfs",
    "sysfs",
    "tracefs",
];

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
    /// A file, or a socket or pipe, which is mounted likewise.
    File,
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
            _ => Shape::File,
        };
        Ok(Self { name, source, file, shape })
    }

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
        let doing = || format!("mount {path} as volume {name}");
        self.place(target, flavour).doing(Kind::Host, doing)?;
        match flavour {
            // For programs that manage the host.
            Flavour::Fly => Ok(()),
            Flavour::Nspawn | Flavour::Kvm => self.refuse_the_kernels_own(target),
        }
    }

    fn place(&self, target: &Path, flavour: Flavour) -> io::Result<()> {
        let extent = if self.source.recursive { Extent::All } else { Extent::One };
        let tree = Tree::clone_of(self.file.as_fd(), extent)?;
        let no_devices = matches!(self.shape, Shape::Directory | Shape::File) && flavour != Flavour::Fly;
        tree.restrict(Restrictions { read_only: self.source.read_only, no_devices })?;
        match self.shape {
            Shape::Directory => fs::create_dir(target)?,
            _ => drop(OpenOptions::new().write(true).create_new(true).open(target)?),
        }
        tree.attach(OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(target)?.as_fd())
    }

    /// Looks at what was mounted, not at what was to be: between the two somebody may have mounted more.
    fn refuse_the_kernels_own(&self, target: &Path) -> Result<(), Error> {
        let (name, path) = (self.name, &self.source.path);
        let mounts = fs::read_to_string("/proc/self/mountinfo");
        let mounts = mounts.doing(Kind::Host, || format!("look at the mounts of volume {name}"))?;
        let found = table::below(&mounts, target);
        let Some(bad) = found.iter().find(|mount| KERNELS_OWN.contains(&mount.kind.as_str())) else {
            return Ok(());
        };
        let way_out = match bad.target == target {
            true => "the pod has a /proc and a /sys of its own",
            false => "recursive=false leaves out what is mounted below",
        };
        let below = bad.target.strip_prefix(target).unwrap_or(Path::new(""));
        Err(Error::new(
            Kind::Host,
            format!(
                "volume {name}: {} is the host kernel's own {}, and a pod with it could change the host; {way_out}",
                Path::new(path).join(below).display(),
                bad.kind
            ),
        ))
    }
}

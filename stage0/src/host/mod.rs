//! The facts of the host, read once and passed down as values.

pub(crate) mod kvm;

use std::env;
use std::path::{Path, PathBuf};

use hull_errors::Doing;
use hull_image::{Converter, Store};
use hull_pod::{Flavour, Pods};

use crate::cli::Global;
use crate::{Error, Kind};

/// File name of the agent among hull's programs.
pub(crate) const AGENT: &str = "hull-agent";
/// File name of the program that reads archives among hull's programs.
const CONVERTER: &str = "hull-converter";
/// File name of the guest kernel among hull's programs.
pub(crate) const KERNEL: &str = "vmlinux";

/// Where hull's things are on this host.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) dir: PathBuf,
    pub(crate) libexec: PathBuf,
    pub(crate) debug: bool,
}

impl Host {
    pub(crate) fn look(global: &Global) -> Result<Self, Error> {
        let dir = std::path::absolute(&global.dir)
            .doing(Kind::User, || format!("use data directory {}", global.dir.display()))?;
        let libexec = match &global.libexec {
            Some(path) => {
                std::path::absolute(path).doing(Kind::User, || format!("use {}", path.display()))?
            }
            None => default_libexec()?,
        };
        Ok(Self { dir, libexec, debug: global.debug })
    }

    pub(crate) fn pods(&self) -> Result<Pods, Error> {
        let path = self.dir.join("pods");
        Pods::open(&path).doing(Kind::Host, || self.data_doing())
    }

    pub(crate) fn images(&self) -> Result<Store, Error> {
        let path = self.dir.join("images");
        // Whether it is there matters only to who has an archive to read.
        let converter = Converter { program: self.libexec.join(CONVERTER) };
        Store::open(&path, converter).doing(Kind::Host, || self.data_doing())
    }

    fn data_doing(&self) -> String {
        format!("use data directory {} (--dir chooses another)", self.dir.display())
    }

    /// One of hull's own files.
    pub(crate) fn installed(&self, name: &str) -> Result<PathBuf, Error> {
        let path = self.libexec.join(name);
        match path.is_file() {
            true => Ok(path),
            false => Err(Error::new(
                Kind::Host,
                format!(
                    "{name} is not in {}; install it there, or name its place with --libexec",
                    self.libexec.display()
                ),
            )),
        }
    }

    pub(crate) fn stage1(&self, flavour: Flavour) -> Result<PathBuf, Error> {
        self.installed(flavour.binary())
    }
}

/// Beside the running binary in a build tree, `../libexec/hull` of an installed one.
fn default_libexec() -> Result<PathBuf, Error> {
    let exe = env::current_exe().doing(Kind::Host, || "find hull's own binary".into())?;
    let beside = exe.parent().unwrap_or(Path::new("/"));
    let libexec = beside.join("../libexec/hull");
    Ok(if beside.join(AGENT).exists() { beside.to_owned() } else { libexec })
}

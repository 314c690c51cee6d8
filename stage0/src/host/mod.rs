//! The facts of the host, read once and passed down as values.

pub(crate) mod kvm;

use std::env;
use std::path::{Path, PathBuf};

use hull_errors::Doing;
use hull_image::{Converter, Insecure, Settings, SettingsFolders, Store};
use hull_pod::{Flavour, Pods};

use crate::cli::insecure::{self, InsecureOption};
use crate::cli::{Global, SettingsArgs};
use crate::{Error, Kind};

/// File name of the agent among hull's programs.
pub(crate) const AGENT: &str = "hull-agent";
/// File name of the program that reads archives among hull's programs.
const CONVERTER: &str = "hull-converter";
/// File name of the guest kernel among hull's programs.
pub(crate) const KERNEL: &str = "vmlinux";

/// Where data is kept if nobody says where.
const DATA: &str = "/var/lib/hull";

/// Where hull's things are on this host, and what holds for every command.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) dir: PathBuf,
    pub(crate) libexec: PathBuf,
    pub(crate) settings: SettingsFolders,
    pub(crate) insecure: Insecure,
    pub(crate) insecure_options: Vec<InsecureOption>,
    pub(crate) trust_keys_from_https: bool,
    pub(crate) debug: bool,
}

impl Host {
    pub(crate) fn look(global: &Global) -> Result<Self, Error> {
        let settings = settings_folders(&global.settings)?;
        let dir = match &global.dir {
            Some(dir) => absolute(dir)?,
            None => data_of(&settings)?,
        };
        let libexec = match &global.libexec {
            Some(path) => absolute(path)?,
            None => default_libexec()?,
        };
        Ok(Self {
            dir,
            libexec,
            settings,
            insecure: insecure::of_fetch(&global.insecure_options),
            insecure_options: global.insecure_options.clone(),
            trust_keys_from_https: global.trust_keys_from_https,
            debug: global.debug,
        })
    }

    pub(crate) fn pods(&self) -> Result<Pods, Error> {
        let path = self.dir.join("pods");
        Pods::open(&path).doing(Kind::Host, || self.data_doing())
    }

    pub(crate) fn images(&self) -> Result<Store, Error> {
        let path = self.dir.join("images");
        Store::open(&path, self.converter()).doing(Kind::Host, || self.data_doing())
    }

    /// How archives are read. Whether it is there matters only to who has one to read.
    pub(crate) fn converter(&self) -> Converter {
        Converter { program: self.libexec.join(CONVERTER) }
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

fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path).doing(Kind::User, || format!("use {}", path.display()))
}

fn settings_folders(args: &SettingsArgs) -> Result<SettingsFolders, Error> {
    Ok(SettingsFolders {
        system: absolute(&args.system_config)?,
        local: absolute(&args.local_config)?,
        user: args.user_config.as_deref().map(absolute).transpose()?,
    })
}

/// What the settings say, else the default.
fn data_of(settings: &SettingsFolders) -> Result<PathBuf, Error> {
    let said = Settings::load_places(settings).doing(Kind::User, || "find the data directory".into())?;
    Ok(said.data().cloned().unwrap_or_else(|| DATA.into()))
}

/// Beside the running binary in a build tree, `../libexec/hull` of an installed one.
fn default_libexec() -> Result<PathBuf, Error> {
    let exe = env::current_exe().doing(Kind::Host, || "find hull's own binary".into())?;
    let beside = exe.parent().unwrap_or(Path::new("/"));
    let libexec = beside.join("../libexec/hull");
    Ok(if beside.join(AGENT).exists() { beside.to_owned() } else { libexec })
}

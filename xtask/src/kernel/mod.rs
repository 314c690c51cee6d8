//! `cargo xtask kernel`: the kernels of the guest and of the lab, built once for each
//! configuration and kept in the cache.
mod build;
mod fragment;
mod patches;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use hull_errors::Doing;
use sha2::{Digest, Sha256};

use crate::error::{Kind, Result, usage};
use crate::install;
use crate::paths::Paths;
use crate::tool::{self, say};
use fragment::Fragment;
use patches::Patches;

pub(crate) const HELP: &str = "\
cargo xtask kernel [--lab]

Builds the guest kernel from Debian's linux-source-6.12 and kernel-config/ (guest.config, patches)
and prints the path of the stripped vmlinux as its last line. Installs what is missing for that. The result
is kept under a key of source, compiler and configuration, so a second call builds nothing; a
symlink `vmlinux` in the cache points to the last one asked for.

  --lab    the kernel of the lab's emulated host instead (guest.config and lab.config; the
           symlink is `vmlinux-lab`)

The cache is $HULL_CACHE, $XDG_CACHE_HOME/hull or ~/.cache/hull.
";

const SOURCE_PACKAGE: &str = "linux-source-6.12";

const PACKAGES: &[&str] = &[
    SOURCE_PACKAGE,
    "bc",
    "binutils",
    "bison",
    "flex",
    "gcc",
    "libc6-dev",
    "libelf-dev",
    "make",
    "patch",
    "util-linux",
    "xz-utils",
];

/// Which of the two kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flavour {
    Guest,
    Lab,
}

impl Flavour {
    fn name(self) -> &'static str {
        match self {
            Flavour::Guest => "guest",
            Flavour::Lab => "lab",
        }
    }

    /// The files in `kernel-config/`; a later one wins.
    fn fragments(self) -> &'static [&'static str] {
        match self {
            Flavour::Guest => &["guest.config"],
            Flavour::Lab => &["guest.config", "lab.config"],
        }
    }

    /// The name that does not change with the configuration, for use by hand.
    fn link(self) -> &'static str {
        match self {
            Flavour::Guest => "vmlinux",
            Flavour::Lab => "vmlinux-lab",
        }
    }
}

/// Everything that decides the bytes of a kernel.
struct Recipe {
    flavour: Flavour,
    source: String,
    compiler: String,
    patches: Patches,
    fragment: Fragment,
}

impl Recipe {
    fn read(flavour: Flavour, checkout: &Path) -> Result<Self> {
        let source = format!("{SOURCE_PACKAGE} {}", install::version(SOURCE_PACKAGE)?);
        let compiler = tool::read(Command::new("gcc").arg("--version"))?;
        let compiler = compiler.lines().next().unwrap_or_default().to_owned();
        let folder = checkout.join("kernel-config");
        let fragment = Fragment::read(flavour.fragments().iter().map(|f| folder.join(f)))?;
        let patches = Patches::read(&folder.join("patches"))?;
        Ok(Self { flavour, source, compiler, patches, fragment })
    }

    /// 64 bits are plenty to tell the handful of kernels apart that one machine ever builds.
    fn key(&self) -> String {
        let mut hash = Sha256::new();
        for part in [build::RECIPE, &self.source, &self.compiler, self.patches.text(), &self.fragment.text()]
        {
            hash.update(part.as_bytes());
            hash.update([0]);
        }
        let digest = hash.finalize();
        let hex: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        format!("{}-{hex}", self.flavour.name())
    }
}

pub(crate) fn run(arguments: &[String], paths: &Paths) -> Result<ExitCode> {
    let flavour = match arguments {
        [] => Flavour::Guest,
        [option] if option == "--lab" => Flavour::Lab,
        _ => return Err(usage(format_args!("kernel takes only --lab, not {}", arguments.join(" ")))),
    };
    println!("{}", ensure(flavour, paths)?.display());
    Ok(ExitCode::SUCCESS)
}

/// The path of the kernel, built now if need be.
pub(crate) fn ensure(flavour: Flavour, paths: &Paths) -> Result<PathBuf> {
    install::ensure(PACKAGES)?;
    let recipe = Recipe::read(flavour, &paths.checkout)?;
    let home = paths.cache.join("kernel");
    let image = home.join(recipe.key()).join("vmlinux");
    if !image.exists() {
        let _lock = lock(&home)?;
        // Whoever held the lock may have built the same.
        if !image.exists() {
            build::build(&recipe, &home, &home.join(recipe.key()))?;
        }
    }
    link(&image, &paths.cache.join(flavour.link()))?;
    Ok(image)
}

/// One kernel build at a time in one cache: it would only share the processors.
fn lock(home: &Path) -> Result<fs::File> {
    let path = home.join("lock");
    fs::create_dir_all(home).doing(Kind::Failed, || format!("create {}", home.display()))?;
    let file = fs::File::create(&path).doing(Kind::Failed, || format!("open {}", path.display()))?;
    // The compilers hold it as well: should we be killed, the next build waits for their end.
    tool::inherit(&file).doing(Kind::Failed, || format!("keep {} open", path.display()))?;
    if file.try_lock().is_err() {
        say("waiting for another kernel build to end");
        file.lock().doing(Kind::Failed, || format!("lock {}", path.display()))?;
    }
    Ok(file)
}

/// Points `link` at `image` by a rename, so that it never dangles.
pub(crate) fn link(image: &Path, link: &Path) -> Result<()> {
    if fs::read_link(link).is_ok_and(|current| current == image) {
        return Ok(());
    }
    let fresh = link.with_extension(std::process::id().to_string());
    std::os::unix::fs::symlink(image, &fresh)
        .and_then(|()| fs::rename(&fresh, link))
        .doing(Kind::Failed, || format!("point {} at {}", link.display(), image.display()))
}

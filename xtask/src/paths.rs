//! Where things are: the checkout, the build output, the cache outside both.
use std::env;
use std::path::{Path, PathBuf};

use hull_errors::Doing;

use crate::error::{Error, Kind, Result};

/// The target that `.cargo/config.toml` names.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// All paths, found once at the start.
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    /// The workspace's root.
    pub(crate) checkout: PathBuf,
    /// Cargo's target folder, the one this program was built into.
    pub(crate) target: PathBuf,
    /// What is dear to build and does not belong to one checkout.
    pub(crate) cache: PathBuf,
    /// This program.
    pub(crate) program: PathBuf,
}

impl Paths {
    /// # Errors
    /// No home for the cache, or this program was not started by cargo.
    pub(crate) fn find() -> Result<Self> {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
        let checkout = manifest.parent().expect("xtask is a folder of the workspace").to_path_buf();
        let program = env::current_exe().doing(Kind::Failed, || "find this program".into())?;
        let target = target_of(&program).ok_or_else(|| {
            let place = format!("find cargo's target folder above {}", program.display());
            Error::new(Kind::Failed, format!("{place}: start this program as `cargo xtask`"))
        })?;
        Ok(Self { checkout, target, cache: cache()?, program })
    }

    /// Where cargo puts the binaries of a release build.
    pub(crate) fn release(&self) -> PathBuf {
        self.target.join(TARGET).join("release")
    }

    /// The one folder that the lab can write to and that survives it; the same path on both sides.
    pub(crate) fn exchange(&self) -> PathBuf {
        self.target.join("lab")
    }
}

/// `TARGET_FOLDER/x86_64-unknown-linux-gnu/PROFILE/xtask` gives `TARGET_FOLDER`.
fn target_of(program: &Path) -> Option<PathBuf> {
    let mut above = program.ancestors().skip(1);
    above.find(|p| p.ends_with(TARGET))?.parent().map(Path::to_path_buf)
}

/// `$HULL_CACHE`, `$XDG_CACHE_HOME/hull` or `~/.cache/hull`.
fn cache() -> Result<PathBuf> {
    let path = |name| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    path("HULL_CACHE")
        .or_else(|| path("XDG_CACHE_HOME").map(|p| p.join("hull")))
        .or_else(|| path("HOME").map(|p| p.join(".cache/hull")))
        .filter(|p| p.is_absolute())
        .ok_or_else(|| {
            let way_out = "set HULL_CACHE to an absolute path";
            Error::new(Kind::Failed, format!("find a place for the cache: {way_out}"))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_folder_is_above_the_program() {
        let check = |program: &str, want: Option<&str>| {
            assert_eq!(target_of(Path::new(program)), want.map(PathBuf::from));
        };
        check("/c/target/x86_64-unknown-linux-gnu/debug/xtask", Some("/c/target"));
        check("/t/x86_64-unknown-linux-gnu/debug/deps/xtask-12", Some("/t"));
        check("/usr/bin/xtask", None);
    }
}

//! Makes the demo's image, a Debian root with a redis server in an OCI layout. Nothing of hull is
//! involved.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use hull_errors::Doing;

use crate::debian;
use crate::error::{Kind, Result};
use crate::install;
use crate::paths::Paths;
use crate::tool::{self, say};

const PACKAGES: &[&str] = &["debian-archive-keyring", "mmdebstrap", "umoci", "util-linux"];

/// Part of the name in the cache: raise it when this file makes another image.
const RECIPE: &str = "1";

/// The folder of the layout; the app is named after it.
const NAME: &str = "redis";

/// Nobody reads them in a pod.
const LEFT_OUT: [&str; 3] = ["doc", "locale", "man"];

/// The image's own wishes.
const CONFIG: &[&str] = &[
    "--config.user=redis",
    "--config.workingdir=/var/lib/redis",
    "--config.env=LANG=C.UTF-8",
    "--config.entrypoint=/usr/bin/redis-server",
    "--config.cmd=--dir",
    "--config.cmd=/var/lib/redis",
];

/// The path of the layout, made now if need be.
pub(super) fn ensure(paths: &Paths) -> Result<PathBuf> {
    let home = paths.cache.join("demo").join(RECIPE);
    let layout = home.join(NAME);
    if layout.exists() {
        println!("{} was made before", layout.display());
        return Ok(layout);
    }
    install::ensure(PACKAGES)?;
    // The unpacked root is large and its names are many: it stays out of the cache.
    let fresh = home.join(format!("new-{}", std::process::id()));
    fs::create_dir_all(&fresh).doing(Kind::Failed, || format!("create {}", fresh.display()))?;
    let made = make(&fresh).and_then(|made| {
        fs::rename(made, &layout).doing(Kind::Failed, || format!("rename to {}", layout.display()))
    });
    fs::remove_dir_all(&fresh).doing(Kind::Failed, || format!("remove {}", fresh.display()))?;
    made.map(|()| layout)
}

fn make(folder: &Path) -> Result<PathBuf> {
    let (layout, bundle) = (folder.join(NAME), folder.join("bundle"));
    let image = format!("{}:latest", layout.display());
    let umoci = |words: &[&str]| {
        let mut umoci = Command::new("umoci");
        umoci.args(words);
        umoci
    };
    step(umoci(&["init", "--layout"]).arg(&layout))?;
    step(&mut umoci(&["new", "--image", &image]))?;
    step(umoci(&["unpack", "--image", &image]).arg(&bundle))?;
    step(&mut root(&bundle.join("rootfs"))?)?;
    step(umoci(&["repack", "--image", &image]).arg(&bundle))?;
    step(umoci(&["config", "--image", &image]).args(CONFIG))?;
    Ok(layout)
}

/// The command that installs what the demo runs into a folder.
fn root(folder: &Path) -> Result<Command> {
    let mut options = vec!["--variant=minbase".to_owned(), "--include=redis-server".to_owned()];
    options.extend(LEFT_OUT.map(|name| format!("--dpkgopt=path-exclude=/usr/share/{name}/*")));
    debian::bootstrap(&options, folder)
}

fn step(command: &mut Command) -> Result<()> {
    say(tool::shown(command));
    tool::run(command)
}

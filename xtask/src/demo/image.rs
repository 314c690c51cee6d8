//! Makes the demo's image, a Debian root with a redis server in an OCI layout. Nothing of hull is
//! involved.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use hull_errors::Doing;

use crate::error::{Kind, Result};
use crate::install;
use crate::paths::Paths;
use crate::tool::{self, say};

const PACKAGES: &[&str] = &["debian-archive-keyring", "mmdebstrap", "umoci", "util-linux"];

/// Part of the name in the cache: raise it when this file makes another image.
const RECIPE: &str = "1";

/// The folder of the layout; the app is named after it.
const NAME: &str = "redis";

/// Where Debian keeps the machine's package sources; whichever of them it has.
const SOURCES: [&str; 2] = ["/etc/apt/sources.list", "/etc/apt/sources.list.d/debian.sources"];

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

/// The command that installs a Debian of this machine's release into a folder.
fn root(folder: &Path) -> Result<Command> {
    let release =
        fs::read_to_string("/etc/os-release").doing(Kind::Failed, || "read /etc/os-release".into())?;
    let suite = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let mut command = Command::new("mmdebstrap");
    command.args(["--variant=minbase", "--include=redis-server"]);
    command.args(LEFT_OUT.map(|name| format!("--dpkgopt=path-exclude=/usr/share/{name}/*")));
    command.arg(suite.unwrap_or("stable")).arg(folder);
    // An empty list is what a machine with the other file has.
    let used = |path: &str| fs::read_to_string(path).is_ok_and(|text| !text.trim().is_empty());
    command.args(SOURCES.into_iter().filter(|path| used(path)));
    Ok(command)
}

fn step(command: &mut Command) -> Result<()> {
    say(tool::shown(command));
    tool::run(command)
}

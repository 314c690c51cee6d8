//! Builds the workspace's programs the way they are shipped, and says where they are.
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use crate::error::{Result, usage};
use crate::kernel::{self, Flavour};
use crate::paths::Paths;
use crate::tool;

pub(crate) const HELP: &str = "\
cargo xtask build

Builds every program of an installation for release, with the manual pages in man/ beside them, and
prints the folder that they are in as its last line.
";

/// Every program that an installation has, by package.
const PROGRAMS: [&str; 6] =
    ["hull", "hull-agent", "hull-converter", "hull-kvm", "hull-nspawn", "hull-virtiofs"];

pub(crate) fn run(arguments: &[String], paths: &Paths) -> Result<ExitCode> {
    if !arguments.is_empty() {
        return Err(usage(format_args!("build takes nothing, not {}", arguments.join(" "))));
    }
    println!("{}", programs(paths)?.display());
    Ok(ExitCode::SUCCESS)
}

/// Release builds of [`PROGRAMS`]; returns the folder that holds them. Cargo decides what is
/// left to do.
pub(crate) fn programs(paths: &Paths) -> Result<PathBuf> {
    let mut cargo = tool::cargo(paths, &["build", "--release"]);
    for program in PROGRAMS {
        cargo.args(["--package", program]);
    }
    tool::run(&mut cargo)?;
    let folder = paths.release();
    tool::run(Command::new(folder.join("hull")).arg("generate-man").arg(folder.join("man")))?;
    Ok(folder)
}

/// [`programs`] with the guest kernel beside them: an installation that hull finds by itself.
pub(crate) fn installation(paths: &Paths) -> Result<PathBuf> {
    let kernel = kernel::ensure(Flavour::Guest, paths)?;
    let folder = programs(paths)?;
    kernel::link(&kernel, &folder.join("vmlinux"))?;
    Ok(folder)
}

//! Builds the workspace's programs the way they are shipped, and says where they are.
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use crate::error::{Result, usage};
use crate::paths::Paths;
use crate::tool;

pub(crate) const HELP: &str = "\
cargo xtask build

Builds every program of an installation for release, and prints the folder that they are in as
its last line.
";

/// Every program that an installation has, by package.
const PROGRAMS: [&str; 4] = ["hull", "hull-kvm", "hull-nspawn", "hull-agent"];

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
    let mut cargo = Command::new("cargo");
    cargo.current_dir(&paths.checkout).args(["build", "--release", "--target-dir"]).arg(&paths.target);
    for program in PROGRAMS {
        cargo.args(["--package", program]);
    }
    tool::run(&mut cargo)?;
    Ok(paths.release())
}

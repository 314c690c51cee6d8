//! Debian's packages in a folder or an archive: the real roots that the demo and the measurements run.
use std::fs;
use std::path::Path;
use std::process::Command;

use hull_errors::Doing;

use crate::error::{Kind, Result};

/// Where Debian keeps the machine's package sources; whichever of them it has.
const SOURCES: [&str; 2] = ["/etc/apt/sources.list", "/etc/apt/sources.list.d/debian.sources"];

/// The command that installs a Debian of this machine's release into `target`, from the sources that this
/// machine itself uses.
pub(crate) fn bootstrap(options: &[String], target: &Path) -> Result<Command> {
    let release =
        fs::read_to_string("/etc/os-release").doing(Kind::Failed, || "read /etc/os-release".into())?;
    let suite = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let mut command = Command::new("mmdebstrap");
    command.args(options).arg(suite.unwrap_or("stable")).arg(target);
    // An empty list is what a machine with the other file has.
    let used = |path: &str| fs::read_to_string(path).is_ok_and(|text| !text.trim().is_empty());
    command.args(SOURCES.into_iter().filter(|path| used(path)));
    Ok(command)
}

//! Runs other programs and says which one failed, and how.
use std::os::fd::AsFd;
use std::process::{Command, ExitStatus, Stdio};

use hull_errors::Doing;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use crate::error::{Error, Kind, Result};
use crate::paths::Paths;

/// Says on stderr what is about to happen; stdout belongs to results.
pub(crate) fn say(what: impl std::fmt::Display) {
    eprintln!("xtask: {what}");
}

/// Runs to the end; its output goes to our stderr.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .doing(Kind::Failed, || format!("start {}", shown(command)))?;
    verdict(&shown(command), status)
}

/// Runs to the end and returns its stdout, trimmed.
pub(crate) fn read(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .doing(Kind::Failed, || format!("start {}", shown(command)))?;
    verdict(&shown(command), output.status)?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// An error that names the command if it did not succeed.
pub(crate) fn verdict(command: &str, status: ExitStatus) -> Result<()> {
    match status.success() {
        true => Ok(()),
        false => Err(Error::new(Kind::Failed, format!("run {command}: {status}"))),
    }
}

/// Cargo in the workspace, with the target folder that this program came from.
pub(crate) fn cargo(paths: &Paths, words: &[&str]) -> Command {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(&paths.checkout).env("CARGO_TARGET_DIR", &paths.target).args(words);
    cargo
}

/// The command as a person would type it, quotes left out.
pub(crate) fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|w| w.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Lets the programs that we start keep this descriptor open.
pub(crate) fn inherit(fd: impl AsFd) -> nix::Result<()> {
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty())).map(drop)
}

//! stub
use crate::error::Result;
use crate::paths::Paths;
use std::process::ExitCode;
pub(crate) const HELP: &str = "";
pub(crate) fn run(_: &[String], _: &Paths) -> Result<ExitCode> {
    Ok(ExitCode::SUCCESS)
}

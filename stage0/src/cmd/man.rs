//! `hull generate-man`: one page for each command, from the words of the command line.

use std::fs;
use std::process::ExitCode;

use clap::CommandFactory;
use hull_errors::Doing;

use crate::cli::{Cli, ManArgs};
use crate::{Error, Kind};

pub(crate) fn generate(args: &ManArgs) -> Result<ExitCode, Error> {
    let written =
        fs::create_dir_all(&args.dir).and_then(|()| clap_mangen::generate_to(Cli::command(), &args.dir));
    written.doing(Kind::User, || format!("write manual pages to {}", args.dir.display()))?;
    Ok(ExitCode::SUCCESS)
}

//! `hull completion`

use std::io::{self, Write};
use std::process::ExitCode;

use clap_complete::env::{Bash, EnvCompleter, Fish, Zsh};
use hull_errors::Doing;

use crate::cli::{CompletionArgs, Shell};
use crate::complete::VARIABLE;
use crate::{Error, Kind};

pub(crate) fn completion(args: &CompletionArgs) -> Result<ExitCode, Error> {
    let shell: &dyn EnvCompleter = match args.shell {
        Shell::Bash => &Bash,
        Shell::Zsh => &Zsh,
        Shell::Fish => &Fish,
    };
    let mut script = vec![];
    let written = shell.write_registration(VARIABLE, "hull", "hull", "hull", &mut script);
    let printed = written.and_then(|()| io::stdout().write_all(&script));
    printed.doing(Kind::Host, || format!("print the script for {}", shell.name()))?;
    Ok(ExitCode::SUCCESS)
}

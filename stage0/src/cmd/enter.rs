//! `hull enter`

use std::io::{IsTerminal, stdin, stdout};
use std::process::ExitCode;

use super::exec::{Come, Job};
use crate::cli::control::EnterArgs;
use crate::host::Host;
use crate::{Error, Kind};

/// What one expects to be greeted by, in the order of preference.
const SHELLS: [&str; 2] = ["/bin/bash", "/bin/sh"];

pub(crate) fn enter(args: &EnterArgs, host: &Host) -> Result<ExitCode, Error> {
    let terminal = stdin().is_terminal() && stdout().is_terminal();
    let job = |command: Vec<String>| Job { app: args.app.clone(), command, stdin: true, terminal };
    if !args.command.is_empty() {
        return job(args.command.clone()).run(&args.uuid, host)?.code();
    }
    let mut refused = String::new();
    for shell in SHELLS {
        match job(vec![shell.into()]).run(&args.uuid, host)? {
            Come::Ended(code) => return Ok(code),
            Come::Refused(why) => refused = why,
        }
    }
    Err(Error::new(Kind::User, format!("{refused}; name a command of the app after the UUID")))
}

//! `hull enter`

use std::io::{IsTerminal, stdin, stdout};
use std::process::ExitCode;

use super::exec::{Come, Job, What};
use crate::cli::control::EnterArgs;
use crate::cli::detach::DetachKeys;
use crate::host::Host;
use crate::{Error, Kind};

/// What one expects to be greeted by, in the order of preference.
const SHELLS: [&str; 2] = ["/bin/bash", "/bin/sh"];

pub(crate) fn enter(args: &EnterArgs, host: &Host) -> Result<ExitCode, Error> {
    let terminal = stdin().is_terminal() && stdout().is_terminal();
    let job = |command: Vec<String>| {
        let what = What::Program { command, stdin: true };
        Job { app: args.app.clone(), what, terminal, detach: DetachKeys::none() }
    };
    if !args.command.is_empty() {
        return job(args.command.clone()).run(&args.uuid, host)?.code();
    }
    let mut refused = String::new();
    for shell in SHELLS {
        match job(vec![shell.into()]).run(&args.uuid, host)? {
            Come::Refused(why) => refused = why,
            ended => return ended.code(),
        }
    }
    Err(Error::new(Kind::User, format!("{refused}; name a command of the app after the UUID")))
}

//! `hull`: parse what was typed, gather the facts of the host, do one command.
//!
//! No daemon stands behind it: `hull run` becomes the stage1 that holds the pod, and every other command
//! reads the directories that stage0 and stage1 write.
#![forbid(unsafe_code)]

#[macro_use]
mod output;

mod cli;
mod cmd;
mod complete;
mod host;
mod progress;
mod table;

use std::process::ExitCode;

use clap::CommandFactory;
use clap::error::ErrorKind;
use clap_complete::CompleteEnv;

use crate::cli::{Cli, Command};
use crate::host::Host;

/// What callers branch on: whose fault a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// What was typed cannot be done.
    User,
    /// The host cannot do it.
    Host,
}

pub(crate) type Error = hull_errors::Error<Kind>;

/// hull's own failures, as rkt's since 1.18.
const FAILURE: u8 = hull_pod::verdict::EXIT_FAILURE;

fn main() -> ExitCode {
    CompleteEnv::with_factory(Cli::command).var(complete::VARIABLE).complete();
    let cli = match cli::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(why) => return usage(&why),
    };
    let command = cli.command.name();
    match dispatch(cli) {
        Ok(code) => code,
        Err(why) => {
            eprintln!("{command}: {}", hull_errors::chain(&why));
            ExitCode::from(FAILURE)
        }
    }
}

fn dispatch(cli: Cli) -> Result<ExitCode, Error> {
    let host = Host::look(&cli.global)?;
    match cli.command {
        Command::Run(args) => cmd::run::run(&args, &host),
        Command::Prepare(args) => cmd::prepare::prepare(&args, &host),
        Command::RunPrepared(args) => cmd::run::run_prepared(&args, &host),
        Command::List(args) => cmd::list::list(&args, &host),
        Command::Status(args) => cmd::status::status(&args, &host),
        Command::Logs(args) => cmd::logs::logs(&args, &host),
        Command::Stop(args) => cmd::stop::stop(&args, &host),
        Command::Exec(args) => cmd::exec::exec(&args, &host),
        Command::Export(args) => cmd::export::export(&args, &host),
        Command::Config(args) => cmd::config::config(&args, &host),
        Command::Attach(args) => cmd::attach::attach(&args, &host),
        Command::Enter(args) => cmd::enter::enter(&args, &host),
        Command::Rm(args) => cmd::rm::rm(&args, &host),
        Command::Gc(args) => cmd::gc::gc(&args, &host),
        Command::Fetch(args) => cmd::fetch::fetch(&args, &host),
        Command::Trust(args) => cmd::trust::trust(&args, &host),
        Command::Image(command) => cmd::image::image(&command, &host),
        Command::CatManifest(args) => cmd::cat_manifest::cat_manifest(&args, &host),
        Command::Completion(args) => cmd::completion::completion(&args),
        Command::GenerateMan(args) => cmd::man::generate(&args),
        Command::Doctor(args) => cmd::doctor::doctor(&args, &host),
        Command::Version => Ok(cmd::version::version()),
    }
}

/// clap's own code for a usage error is 2; rkt's, and so ours, is 254.
fn usage(why: &clap::Error) -> ExitCode {
    let _ = why.print(); // A closed standard error leaves the exit code to tell.
    match why.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            ExitCode::from(2)
        }
        _ => ExitCode::from(FAILURE),
    }
}

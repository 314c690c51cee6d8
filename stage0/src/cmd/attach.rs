//! `hull attach`: look at the streams of an app that runs, and type to it.

use std::process::ExitCode;

use hull_errors::Doing;
use hull_pod::control::{Answer, Client, Request};

use super::call::{ask, call};
use super::exec::{Come, Job, What};
use crate::cli::control::{AttachArgs, AttachMode};
use crate::host::Host;
use crate::{Error, Kind};

pub(crate) fn attach(args: &AttachArgs, host: &Host) -> Result<ExitCode, Error> {
    let there = endpoints(args, host)?;
    let wanted: Vec<&str> = match &args.mode {
        AttachMode::List => {
            there.iter().for_each(|name| println!("{name}"));
            return Ok(ExitCode::SUCCESS);
        }
        AttachMode::Auto => there.iter().map(String::as_str).collect(),
        AttachMode::Endpoints(names) => names.clone(),
    };
    if wanted.is_empty() {
        let why = "the app has nothing to attach to; run it with --stdin, --stdout or --stderr=stream or tty";
        return Err(Error::new(Kind::User, why));
    }
    let wants = |name| wanted.contains(&name);
    let terminal = wants("tty-in") || wants("tty-out");
    let what = What::Attach {
        stdin: wants("stdin") || wants("tty-in"),
        stdout: wants("stdout") || wants("tty-out"),
        stderr: wants("stderr"),
    };
    let job = Job { app: args.app.clone(), what, terminal, detach: args.detach_keys.clone() };
    match job.run(&args.uuid, host)? {
        Come::Detached => Ok(ExitCode::SUCCESS),
        come => come.code(),
    }
}

fn endpoints(args: &AttachArgs, host: &Host) -> Result<Vec<String>, Error> {
    let pods = host.pods()?;
    let found = pods.find(&args.uuid).doing(Kind::User, || "find the pod".into())?;
    let not_running = || Error::new(Kind::User, format!("pod {:?} is not running", found.id.as_str()));
    let client: Client = call(&pods, &found)?.ok_or_else(not_running)?;
    ask(&client, &Request::Endpoints { app: args.app.clone() })?;
    match client.answer().doing(Kind::Host, || "hear from the pod".into())? {
        Some(Answer::Endpoints { names }) => Ok(names),
        Some(Answer::Refused { text }) => Err(Error::new(Kind::User, text)),
        Some(other) => Err(Error::new(Kind::Host, format!("the pod answers {other:?}"))),
        None => Err(not_running()),
    }
}

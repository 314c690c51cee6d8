//! `hull stop`

use std::process::ExitCode;

use hull_errors::Doing;
use hull_pod::Pods;
use hull_pod::control::{Answer, Request};

use super::call::{ask, call};
use crate::cli::control::StopArgs;
use crate::cli::pod::OnePod;
use crate::host::Host;
use crate::{Error, FAILURE, Kind};

pub(crate) fn stop(args: &StopArgs, host: &Host) -> Result<ExitCode, Error> {
    let pods = host.pods()?;
    let mut named: Vec<OnePod> =
        args.uuids.iter().map(|uuid| OnePod { uuid: Some(uuid.clone()), uuid_file: None }).collect();
    named.extend(args.uuid_file.clone().map(|file| OnePod { uuid: None, uuid_file: Some(file) }));
    // One pod that cannot be stopped is no reason to let the others run.
    let mut code = ExitCode::SUCCESS;
    for named in &named {
        match stop_one(args, &pods, named) {
            Ok(id) => println!("{id:?}"),
            Err(why) => {
                eprintln!("stop: {}", hull_errors::chain(&why));
                code = ExitCode::from(FAILURE);
            }
        }
    }
    Ok(code)
}

fn stop_one(args: &StopArgs, pods: &Pods, named: &OnePod) -> Result<String, Error> {
    let found = super::find_pod(pods, named)?;
    let id = found.id.to_string();
    // A pod that has ended is as stopped as can be.
    let Some(client) = call(pods, &found)? else { return Ok(id) };
    let grace_ms = u32::try_from(args.timeout.as_millis()).unwrap_or(u32::MAX);
    ask(&client, &Request::Stop { force: args.force, grace_ms })?;
    match client.answer().doing(Kind::Host, || format!("stop pod {id}"))? {
        // Without an answer it has ended just now.
        None | Some(Answer::Done) => (),
        Some(other) => {
            return Err(Error::new(Kind::Host, format!("stop pod {id}: it answers {other:?}")));
        }
    }
    if args.wait {
        found.wait().doing(Kind::Host, || "wait".into())?;
    }
    Ok(id)
}

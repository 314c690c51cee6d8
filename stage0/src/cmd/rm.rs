//! `hull rm`

use std::process::ExitCode;

use hull_errors::Doing;
use hull_pod::{Found, Pods, State};

use crate::cli::pod::{OnePod, RmArgs};
use crate::host::Host;
use crate::{Error, FAILURE, Kind};

pub(crate) fn rm(args: &RmArgs, host: &Host) -> Result<ExitCode, Error> {
    let pods = host.pods()?;
    let mut named: Vec<OnePod> =
        args.uuids.iter().map(|uuid| OnePod { uuid: Some(uuid.clone()), uuid_file: None }).collect();
    named.extend(args.uuid_file.clone().map(|file| OnePod { uuid: None, uuid_file: Some(file) }));
    // One pod that cannot be removed is no reason to keep the others.
    let mut code = ExitCode::SUCCESS;
    for named in &named {
        match super::find_pod(&pods, named).and_then(|found| remove(&pods, found)) {
            Ok(id) => println!("{id:?}"),
            Err(why) => {
                eprintln!("rm: {}", hull_errors::chain(&why));
                code = ExitCode::from(FAILURE);
            }
        }
    }
    Ok(code)
}

fn remove(pods: &Pods, found: Found) -> Result<String, Error> {
    let id = found.id.to_string();
    let busy = |why: &str| Err(Error::new(Kind::User, format!("pod {id:?} {why}")));
    let doing = || format!("remove pod {id}");
    let garbage = match found.state {
        State::Running => return busy("is currently running"),
        State::Embryo | State::Preparing => return busy("is being prepared"),
        State::ExitedDeleting | State::Deleting => return busy("is being deleted"),
        State::Prepared => pods.expire(&found).doing(Kind::Host, doing)?,
        State::Exited | State::AbortedPrepare => {
            let marked = pods.mark(&found).doing(Kind::Host, doing)?;
            marked
                .ok_or_else(|| Error::new(Kind::User, format!("pod {id:?} was taken by another process")))?
        }
        State::ExitedGarbage | State::Garbage => found,
    };
    pods.delete(&garbage).doing(Kind::Host, doing)?;
    Ok(id)
}

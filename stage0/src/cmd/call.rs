//! Calling the stage1 of a running pod.

use std::time::{Duration, Instant};

use hull_errors::Doing;
use hull_pod::control::{Client, Request};
use hull_pod::{Found, Pods, State};

use crate::{Error, Kind};

/// How long a pod that is being started may take to listen: it is only a process that has to come up.
const LISTEN_MAX: Duration = Duration::from_secs(10);

/// Calls a pod; `None` if it does not run any more.
pub(super) fn call(pods: &Pods, found: &Found) -> Result<Option<Client>, Error> {
    let deadline = Instant::now() + LISTEN_MAX;
    loop {
        let now = pods.find(found.id.as_str()).doing(Kind::User, || "find the pod".into())?;
        match now.state {
            State::Running => (),
            State::Exited | State::ExitedGarbage | State::ExitedDeleting => return Ok(None),
            other => {
                let why = format!("pod {:?} is {}, not running", now.id.as_str(), other.as_str());
                return Err(Error::new(Kind::User, why));
            }
        }
        match Client::call(now.path()) {
            Ok(client) => return Ok(Some(client)),
            // Its stage1 has only just begun, or is about to end.
            Err(why) if *why.kind() == hull_pod::Kind::Missing && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(why) => return Err(Error::because(Kind::Host, format!("call pod {}", now.id), why)),
        }
    }
}

/// Asks for something that needs no descriptor.
pub(super) fn ask(client: &Client, request: &Request) -> Result<(), Error> {
    client.ask(request, &[]).doing(Kind::Host, || "speak to the pod".into())
}

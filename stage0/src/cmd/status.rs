//! `hull status`

use std::process::ExitCode;
use std::sync::mpsc;

use hull_errors::Doing;
use hull_pod::{PodId, State};

use super::run::has_started;
use super::view::{NetworkView, PodView, absolute_time};
use crate::cli::pod::StatusArgs;
use crate::cli::values::Wait;
use crate::host::Host;
use crate::{Error, Kind};

pub(crate) fn status(args: &StatusArgs, host: &Host) -> Result<ExitCode, Error> {
    let pods = host.pods()?;
    let found = super::find_pod(&pods, &args.pod)?;
    let id = found.id.clone();
    if args.wait_ready != Wait::Not && found.state == State::Running {
        let (pods, found) =
            (host.pods()?, pods.find(id.as_str()).doing(Kind::User, || "find the pod".into())?);
        within(args.wait_ready, "its apps do not run", &id, move || has_started(&pods, &found).map(drop))?;
    }
    if args.wait != Wait::Not && found.state == State::Running {
        let wait = move || found.wait().doing(Kind::Host, || "wait".into());
        within(args.wait, "it has not ended", &id, wait)?;
    }
    let found = pods.find(id.as_str()).doing(Kind::User, || "find the pod again".into())?;
    let view = PodView::of(&found);
    match args.format {
        Some(format) => super::print_json(&view, format)?,
        None => print_plain(&view, found.state),
    }
    Ok(ExitCode::SUCCESS)
}

/// Does what may take long. What is not done in time goes on until this process ends, which is soon.
fn within(
    limit: Wait,
    not_yet: &str,
    id: &PodId,
    work: impl FnOnce() -> Result<(), Error> + Send + 'static,
) -> Result<(), Error> {
    let Wait::For(limit) = limit else { return work() };
    let (done, result) = mpsc::channel();
    // Who has stopped listening needs no result.
    std::thread::spawn(move || drop(done.send(work())));
    result.recv_timeout(limit).unwrap_or_else(|_| {
        let limit = humantime::format_duration(limit);
        Err(Error::new(Kind::User, format!("wait for pod {id}: {not_yet} after {limit}")))
    })
}

fn print_plain(view: &PodView, state: State) {
    println!("state={}", view.state);
    println!("created={}", absolute_time(view.created_at));
    if view.started_at.is_some() {
        println!("started={}", absolute_time(view.started_at));
    }
    if let Some(stage1) = view.stage1 {
        println!("stage1={stage1}");
    }
    if !view.networks.is_empty() {
        println!("networks={}", NetworkView::text(&view.networks));
    }
    if let Some(pid) = view.pid {
        println!("pid={pid}");
        println!("exited={}", state != State::Running);
    }
    if let Some(failure) = &view.failure {
        println!("failure={}", failure.replace('\n', " "));
    }
    for warning in &view.warnings {
        println!("warning={}", warning.replace('\n', " "));
    }
    for (name, code) in view.apps.iter().filter_map(|app| Some((&app.name, app.exit_code?))) {
        println!("app-{name}={code}");
    }
    for (name, count) in view.apps.iter().filter_map(|app| Some((&app.name, app.restarts?))) {
        println!("restarts-{name}={count}");
    }
}

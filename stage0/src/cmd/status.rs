//! `hull status`

use std::process::ExitCode;

use hull_errors::Doing;
use hull_pod::State;

use super::view::{PodView, absolute_time};
use crate::cli::pod::StatusArgs;
use crate::host::Host;
use crate::{Error, Kind};

pub(crate) fn status(args: &StatusArgs, host: &Host) -> Result<ExitCode, Error> {
    let pods = host.pods()?;
    let mut found = super::find_pod(&pods, &args.pod)?;
    if args.wait && found.state == State::Running {
        found.wait().doing(Kind::Host, || "wait".into())?;
        found = pods.find(found.id.as_str()).doing(Kind::User, || "find the pod again".into())?;
    }
    let view = PodView::of(&found);
    match args.format {
        Some(format) => super::print_json(&view, format)?,
        None => print_plain(&view, found.state),
    }
    Ok(ExitCode::SUCCESS)
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
    if let Some(pid) = view.pid {
        println!("pid={pid}");
        println!("exited={}", state != State::Running);
    }
    if let Some(failure) = &view.failure {
        println!("failure={}", failure.replace('\n', " "));
    }
    for (name, code) in view.apps.iter().filter_map(|app| Some((&app.name, app.exit_code?))) {
        println!("app-{name}={code}");
    }
}

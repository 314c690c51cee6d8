//! `hull gc`: mark what has ended, expire what was never started, remove what is old enough.

use std::process::ExitCode;

use hull_errors::Doing;
use hull_pod::{Found, Kind as PodKind, Pods, State};

use crate::cli::pod::GcArgs;
use crate::host::Host;
use crate::{Error, FAILURE, Kind};

pub(crate) fn gc(args: &GcArgs, host: &Host) -> Result<ExitCode, Error> {
    let pods = host.pods()?;
    let list = || pods.list().doing(Kind::Host, || "list the pods".into());
    let mut failures = Failures::default();
    for found in list()? {
        failures.note(mark(&pods, &found));
    }
    if args.mark_only {
        return Ok(failures.exit_code());
    }
    for found in list()?.iter().filter(|f| f.state == State::Prepared && f.age() >= args.expire_prepared) {
        eprintln!("moving expired prepared pod {:?} to garbage", found.id.as_str());
        failures.note(pods.expire(found).map(drop));
    }
    for found in list()? {
        failures.note(sweep(&pods, &found, args));
    }
    Ok(failures.exit_code())
}

fn mark(pods: &Pods, found: &Found) -> Result<(), hull_pod::Error> {
    if pods.mark(found)?.is_some() {
        eprintln!("moving pod {:?} to garbage", found.id.as_str());
    }
    Ok(())
}

fn sweep(pods: &Pods, found: &Found, args: &GcArgs) -> Result<(), hull_pod::Error> {
    match found.state {
        State::Garbage => (),
        State::ExitedGarbage if found.age() >= args.grace_period => (),
        State::ExitedGarbage => {
            let left = args.grace_period.saturating_sub(found.age());
            let left = humantime::format_duration(std::time::Duration::from_secs(left.as_secs()));
            eprintln!("pod {:?} not removed: still within grace period ({left})", found.id.as_str());
            return Ok(());
        }
        _ => return Ok(()),
    }
    println!("Garbage collecting pod {:?}", found.id.as_str());
    pods.delete(found)
}

/// One pod's trouble does not keep the others' garbage.
#[derive(Default)]
struct Failures(bool);

impl Failures {
    fn note(&mut self, result: Result<(), hull_pod::Error>) {
        match result {
            // Another gc, rm or run was faster: the pod is in good hands.
            Err(why) if matches!(why.kind(), PodKind::Locked | PodKind::Missing) => (),
            Err(why) => {
                eprintln!("gc: {}", hull_errors::chain(&why));
                self.0 = true;
            }
            Ok(()) => (),
        }
    }

    fn exit_code(&self) -> ExitCode {
        ExitCode::from(if self.0 { FAILURE } else { 0 })
    }
}

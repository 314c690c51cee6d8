//! `cargo xtask test`: everything that a change must pass, the cheap checks first.
mod checks;
mod coverage;
mod doctor;
mod pods;
mod shard;
mod stream;
mod tally;
mod tidy;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::error::{Error, Kind, Result, usage};
use crate::paths::Paths;
use tally::Tally;

pub(crate) use doctor::{Doctor, doctor};
pub(crate) use stream::Stream;

pub(crate) const HELP: &str = "\
cargo xtask test [STEP [NAME...]]

Runs everything that a change must pass, and stops at the first step that fails. The steps:

  tidy      the map of the crates and the rules of the files hold
  fmt       rustfmt has nothing to change
  clippy    clippy has nothing to say
  install   this machine gets what the tests need
  units     unit tests, and the integration tests of each crate
  coverage  the VMM's tests run as much of it as vmm/coverage says, or more
  fuzz      a few seconds of searching for bytes that break a parser, each
  build     the programs and the guest kernel, as they ship
  host      black-box tests of images, namespaces and chroots
  kvm       black-box tests of VMs, in the lab where this host's KVM cannot boot Linux

With STEP only that one. NAMEs choose among the tests of units, host and kvm.
The last line on stdout is `N passed, N failed`. No test is ever skipped: one that cannot run fails.
";

/// One step. NAMEs are for those that run tests.
struct Step {
    name: &'static str,
    run: fn(&Paths, &[String], &mut Tally) -> Result<()>,
    takes_names: bool,
}

const STEPS: &[Step] = &[
    Step { name: "tidy", run: |paths, _, _| tidy::check(paths), takes_names: false },
    Step { name: "fmt", run: |paths, _, _| checks::fmt(paths), takes_names: false },
    Step { name: "clippy", run: |paths, _, _| checks::clippy(paths), takes_names: false },
    Step { name: "install", run: |paths, _, _| checks::install(paths), takes_names: false },
    Step { name: "units", run: checks::units, takes_names: true },
    Step { name: "coverage", run: |paths, _, _| coverage::check(paths), takes_names: false },
    Step { name: "fuzz", run: |paths, _, _| crate::fuzz::briefly(paths), takes_names: false },
    Step { name: "build", run: |paths, _, _| checks::build(paths), takes_names: false },
    Step { name: "host", run: pods::host, takes_names: true },
    Step { name: "kvm", run: pods::kvm, takes_names: true },
];

pub(crate) fn run(arguments: &[String], paths: &Paths) -> Result<ExitCode> {
    let (steps, names) = chosen(arguments)?;
    let (mut tally, mut times) = (Tally::default(), Vec::new());
    let outcome = steps.iter().try_for_each(|step| {
        let started = Instant::now();
        println!("== {}", step.name);
        let outcome = (step.run)(paths, names, &mut tally);
        let verdict = if outcome.is_ok() { "ok" } else { "FAILED" };
        println!("== {}: {verdict} after {}", step.name, shown(started.elapsed()));
        times.push(format!("{} {}", step.name, shown(started.elapsed())));
        outcome.map_err(|e| {
            tally.blame();
            let way_out = format!("step {} (alone: cargo xtask test {})", step.name, step.name);
            Error::because(Kind::Failed, way_out, e)
        })
    });
    println!("== {}", times.join(", "));
    println!("{tally}");
    outcome.map(|()| ExitCode::SUCCESS)
}

fn chosen(arguments: &[String]) -> Result<(&'static [Step], &[String])> {
    let Some((name, names)) = arguments.split_first() else {
        return Ok((STEPS, &[]));
    };
    let found = STEPS.iter().position(|step| step.name == name);
    let index = found.ok_or_else(|| usage(format_args!("test has no step {name}")))?;
    if !names.is_empty() && !STEPS[index].takes_names {
        return Err(usage(format_args!("step {name} takes no names of tests")));
    }
    Ok((&STEPS[index..=index], names))
}

fn shown(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_names_every_step() {
        for step in STEPS {
            assert!(HELP.contains(&format!("\n  {} ", step.name)), "{}", step.name);
        }
    }

    #[test]
    fn one_step_or_all_are_chosen() {
        let check = |line: &str, want: Option<(usize, usize)>| {
            let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            assert_eq!(chosen(&words).ok().map(|(steps, names)| (steps.len(), names.len())), want, "{line}");
        };
        check("", Some((STEPS.len(), 0)));
        check("fmt", Some((1, 0)));
        check("kvm signal exit", Some((1, 2)));
        check("fmt signal", None);
        check("everything", None);
    }
}

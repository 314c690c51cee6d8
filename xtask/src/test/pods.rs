//! The black-box tests of the built programs: on this host, or where a VM is needed and this
//! host has no KVM for it, on emulated hosts.
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use hull_errors::chain;
use serde_json::Value;

use super::shard::{deal, listed, needs_kvm, wanted};
use super::tally::{Heard, Tally};
use super::{Doctor, Stream, doctor};
use crate::error::{Error, Kind, Result};
use crate::kernel::{self, Flavour};
use crate::paths::Paths;
use crate::{build, tool};

/// Emulated hosts at a time. Each has one processor, as that is stable with any kernel.
const SHARDS: usize = 2;

/// How long an emulated host may take for its share, in seconds.
const SHARD_TIMEOUT: &str = "1500";

/// Tests that start no VM.
pub(super) fn host(paths: &Paths, words: &[String], tally: &mut Tally) -> Result<()> {
    let suite = Suite::build(paths)?;
    let names = suite.names(|name| !needs_kvm(name) && wanted(name, words))?;
    suite.run_here(&names, tally)
}

/// Tests that start one.
pub(super) fn kvm(paths: &Paths, words: &[String], tally: &mut Tally) -> Result<()> {
    let suite = Suite::build(paths)?;
    let names = suite.names(|name| needs_kvm(name) && wanted(name, words))?;
    match doctor(&suite.programs)? {
        Doctor::Kvm => suite.run_here(&names, tally),
        Doctor::NoKvm(reason) => {
            println!("VMs cannot run on this host ({reason}): their tests run in the lab");
            suite.run_in_lab(&names, tally)
        }
    }
}

/// The test program and what it tests.
struct Suite<'a> {
    paths: &'a Paths,
    /// The folder of an installation.
    programs: PathBuf,
    tests: PathBuf,
}

impl<'a> Suite<'a> {
    fn build(paths: &'a Paths) -> Result<Self> {
        let programs = build::installation(paths)?;
        let words = ["test", "--package=hull-tests", "--test=it", "--no-run"];
        let format = "--message-format=json-render-diagnostics";
        let messages = tool::read(tool::cargo(paths, &words).arg(format))?;
        let tests = executable(&messages);
        let tests =
            tests.ok_or_else(|| Error::new(Kind::Failed, "find the test program that cargo built"))?;
        Ok(Self { paths, programs, tests })
    }

    fn names(&self, wanted: impl Fn(&str) -> bool) -> Result<Vec<String>> {
        let text = tool::read(Command::new(&self.tests).args(["--list", "--format=terse"]))?;
        let names: Vec<String> = listed(&text).into_iter().filter(|name| wanted(name)).collect();
        match names.is_empty() {
            true => Err(Error::new(Kind::Failed, "find a test of that name")),
            false => Ok(names),
        }
    }

    fn run_here(&self, names: &[String], tally: &mut Tally) -> Result<()> {
        let mut command = Command::new(&self.tests);
        command.current_dir(&self.paths.checkout).env("HULL_BIN", &self.programs).arg("--exact").args(names);
        let stream = Stream::start(command)?;
        judge(stream, "", names, tally)
    }

    fn run_in_lab(&self, names: &[String], tally: &mut Tally) -> Result<()> {
        // Once, and not by each emulated host.
        kernel::ensure(Flavour::Lab, self.paths)?;
        let hands = deal(names, SHARDS);
        // Started by the main thread: a shard ends when its parent thread does.
        let streams: Result<Vec<Stream>> = hands.iter().map(|hand| Stream::start(self.shard(hand))).collect();
        let outcomes: Vec<(Tally, Result<()>)> = thread::scope(|scope| {
            let shards = streams?.into_iter().zip(&hands).enumerate();
            let threads = shards.map(|(index, (stream, hand))| {
                scope.spawn(move || {
                    let mut tally = Tally::default();
                    let name = format!("lab {}", index + 1);
                    let outcome = judge(stream, &format!("{name}| "), hand, &mut tally);
                    (tally, outcome.map_err(|e| Error::because(Kind::Failed, name, e)))
                })
            });
            let threads: Vec<_> = threads.collect();
            Ok(threads.into_iter().map(|t| t.join().expect("a shard's listener does not panic")).collect())
        })?;
        outcomes.iter().for_each(|(shard, _)| *tally += *shard);
        let errors = outcomes.into_iter().filter_map(|(_, outcome)| Some(chain(&outcome.err()?)));
        let errors: Vec<String> = errors.collect();
        match errors.is_empty() {
            true => Ok(()),
            false => Err(Error::new(Kind::Failed, errors.join("; "))),
        }
    }

    fn shard(&self, names: &[String]) -> Command {
        let mut command = Command::new("setpriv");
        command.current_dir(&self.paths.checkout).env("HULL_BIN", &self.programs);
        command.args(["--pdeathsig", "TERM"]).arg(&self.paths.program);
        command.args(["lab", "--timeout", SHARD_TIMEOUT, "--"]).arg(&self.tests);
        command.args(["--test-threads=1", "--exact"]).args(names);
        command
    }
}

/// Waits for a test program, and counts what it did not even start as failed.
fn judge(stream: Stream, prefix: &str, names: &[String], tally: &mut Tally) -> Result<()> {
    let mut heard = Heard::default();
    let status = stream.finish(prefix, |line| heard.line(line))?;
    let Tally { passed, failed } = heard.tally();
    let lost = names.len().saturating_sub(passed + failed);
    *tally += Tally { passed, failed: failed + lost };
    if lost > 0 {
        let silent = heard.silent(names).join(", ");
        let text = format!("run all tests: {lost} of {} came to no end ({status}): {silent}", names.len());
        return Err(Error::new(Kind::Failed, text));
    }
    match status.success() && failed == 0 {
        true => Ok(()),
        false => Err(Error::new(Kind::Failed, format!("pass the tests ({}, {status})", heard.tally()))),
    }
}

/// The path of the test program in cargo's messages, one JSON object a line.
fn executable(messages: &str) -> Option<PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut programs = messages.filter(|message| message["target"]["name"] == "it");
    programs.find_map(|message| message["executable"].as_str().map(|path| Path::new(path).to_path_buf()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_program_is_found_among_cargos_messages() {
        let messages = "\
            {\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"hull_tests\"},\"executable\":null}\n\
            {\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"it\"},\"executable\":\"/t/it-1\"}\n\
            {\"reason\":\"build-finished\",\"success\":true}\n";
        assert_eq!(executable(messages), Some("/t/it-1".into()));
        assert_eq!(executable("no JSON\n"), None);
    }

    #[test]
    fn a_program_that_dies_fails_what_it_did_not_run() {
        let names = ["a", "b", "c"].map(str::to_owned);
        let run = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            let mut tally = Tally::default();
            let outcome = judge(Stream::start(command).unwrap(), "", &names, &mut tally);
            (tally.passed, tally.failed, outcome.map_err(|e| e.to_string()).err())
        };
        let result = |verdict: &str, passed, failed| {
            format!("echo 'test result: {verdict}. {passed} passed; {failed} failed; 0 ignored; 0 measured'")
        };
        assert_eq!(run(&result("ok", 3, 0)), (3, 0, None));
        let (passed, failed, error) = run(&format!("{}; exit 101", result("FAILED", 2, 1)));
        assert_eq!((passed, failed), (2, 1));
        assert!(error.unwrap().contains("2 passed, 1 failed"));
        let (passed, failed, error) = run("echo 'test a ... ok'; printf 'test b ... '; kill -9 $$");
        assert_eq!((passed, failed), (1, 2));
        assert!(error.unwrap().ends_with(": b, c"));
        assert!(run(&format!("{}; exit 1", result("ok", 3, 0))).2.is_some());
    }
}

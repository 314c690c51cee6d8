//! `cargo xtask fuzz`: searches for bytes that break a parser, guided by coverage.
//!
//! The stable compiler can instrument for coverage (the flags below are those that cargo-fuzz gives);
//! only the address sanitizer needs another one, and the crates under test hold no `unsafe`.
mod options;
mod report;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::thread;

use hull_errors::Doing;

use crate::error::{Error, Kind, Result};
use crate::install;
use crate::paths::Paths;
use crate::tool::{self, say};
use options::Options;
use report::Outcome;

pub(crate) const HELP: &str = "\
cargo xtask fuzz [--seconds N] [TARGET...]

Gives each TARGET (default: all) N seconds (default: 5) of bytes that reach ever more of its code,
as many at once as there are CPUs. Starts from fuzz/corpus/TARGET and from what earlier searches
found, which is kept in the cache. An input that breaks a parser is written to target/fuzz; put it
into fuzz/corpus/TARGET when the parser is mended.

The cache is $HULL_CACHE, $XDG_CACHE_HOME/hull or ~/.cache/hull.
";

/// libFuzzer is C++; openssl makes a seed.
const PACKAGES: &[&str] = &["g++", "openssl"];

/// Coverage for libFuzzer: LLVM's SanitizerCoverage, and `fuzzing` for crates that care.
const FLAGS: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=16",
];

/// Most memory of one search, in MiB: the corpus, and whatever a parser takes.
const MEMORY_MAX_MIB: u32 = 1024;

/// Longest that a parser may take for one input, in seconds.
const INPUT_SECONDS_MAX: u32 = 10;

/// Longest input, in bytes. Limits beyond it are the property tests' matter.
const INPUT_MAX: u32 = 64 << 10;

pub(crate) fn run(arguments: &[String], paths: &Paths) -> Result<ExitCode> {
    search(&Options::parse(arguments)?, paths).map(|()| ExitCode::SUCCESS)
}

/// A short search in every parser, as the tests have it.
pub(crate) fn briefly(paths: &Paths) -> Result<()> {
    search(&Options::default(), paths)
}

fn search(options: &Options, paths: &Paths) -> Result<()> {
    install::ensure(PACKAGES)?;
    let targets = options.chosen(targets(paths)?)?;
    let program = build(paths)?;
    let waiting = Mutex::new(targets.into_iter());
    let outcomes = Mutex::new(Vec::new());
    let workers = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(target) = next(&waiting) {
                    let outcome = Search { program: &program, target: &target, paths }.run(options.seconds);
                    outcomes.lock().expect("no worker panics").push((target, outcome));
                }
            });
        }
    });
    report::conclude(outcomes.into_inner().expect("no worker panics"))
}

fn next(waiting: &Mutex<impl Iterator<Item = String>>) -> Option<String> {
    waiting.lock().expect("no worker panics").next()
}

/// The corpus has one folder for each target; a test holds the two together.
fn targets(paths: &Paths) -> Result<Vec<String>> {
    let folder = paths.checkout.join("fuzz/corpus");
    let doing = || format!("list {}", folder.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).doing(Kind::Failed, doing)? {
        names.push(entry.doing(Kind::Failed, doing)?.file_name().to_string_lossy().into_owned());
    }
    names.sort_unstable();
    Ok(names)
}

fn build(paths: &Paths) -> Result<PathBuf> {
    say("building the fuzzer");
    let words = ["build", "--profile", "fuzz", "--package", "hull-fuzz", "--features", "libfuzzer"];
    let mut cargo = tool::cargo(paths, &words);
    // These replace the workspace's flags: libFuzzer's C++ library is linked as it comes.
    tool::run(cargo.env("RUSTFLAGS", FLAGS.join(" ")).env("CARGO_TARGET_DIR", folder(paths)))?;
    Ok(folder(paths).join("x86_64-unknown-linux-gnu/fuzz/hull-fuzz"))
}

/// A target folder of its own: other flags would build everything anew, back and forth.
fn folder(paths: &Paths) -> PathBuf {
    paths.target.join("fuzz")
}

/// A seed that is no file of the repository, because it has a private key in it: made once, kept in the cache.
fn make_pair(corpus: &Path) -> Result<()> {
    let pair = corpus.join("pair");
    if !pair.exists() {
        let unfinished = corpus.join("unfinished");
        let words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=x -days 36500";
        let mut openssl = Command::new("openssl");
        openssl.args(words.split(' ')).arg("-keyout").arg(&unfinished).arg("-out").arg("/dev/stdout");
        let output = openssl.stderr(std::process::Stdio::null()).output();
        let output = output.doing(Kind::Failed, || "start openssl".into())?;
        tool::verdict("make a certificate by openssl", output.status)?;
        let doing = || format!("write {}", pair.display());
        let key = fs::read(&unfinished).doing(Kind::Failed, doing)?;
        fs::write(&pair, [output.stdout, key].concat()).doing(Kind::Failed, doing)?;
        let _ = fs::remove_file(&unfinished); // One seed more does no harm.
    }
    Ok(())
}

struct Search<'a> {
    program: &'a Path,
    target: &'a str,
    paths: &'a Paths,
}

impl Search<'_> {
    fn run(&self, seconds: u32) -> Result<Outcome> {
        let found = self.paths.cache.join("fuzz").join(self.target);
        fs::create_dir_all(&found).doing(Kind::Failed, || format!("create {}", found.display()))?;
        if self.target == "registry-certificates" {
            make_pair(&found)?;
        }
        let broken = folder(self.paths).join(format!("{}-", self.target));
        let mut command = Command::new(self.program);
        command
            .env("HULL_FUZZ_TARGET", self.target)
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-rss_limit_mb={MEMORY_MAX_MIB}"))
            .arg(format!("-timeout={INPUT_SECONDS_MAX}"))
            .arg(format!("-max_len={INPUT_MAX}"))
            .arg(format!("-artifact_prefix={}", broken.display()))
            .arg("-print_final_stats=1")
            .arg(found)
            .arg(self.paths.checkout.join("fuzz/corpus").join(self.target));
        let output = command.output().doing(Kind::Failed, || format!("start {}", self.program.display()))?;
        let said = String::from_utf8_lossy(&output.stderr);
        match output.status.success() {
            true => Outcome::read(&said).ok_or_else(|| {
                Error::new(Kind::Failed, format!("fuzz {}: its statistics are missing", self.target))
            }),
            false => {
                eprintln!("{said}");
                let text = format!("fuzz {}: a parser broke ({}), see above", self.target, output.status);
                Err(Error::new(Kind::Failed, text))
            }
        }
    }
}

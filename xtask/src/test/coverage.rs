//! How much of the VMM its tests run: measured, and not allowed to fall below what is written down.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use hull_errors::Doing;
use serde_json::Value;

use crate::error::{Error, Kind, Result};
use crate::paths::Paths;
use crate::{install, tool};

/// The file with the least percentage of lines, in tenths: `93.4`.
const FLOOR: &str = "vmm/coverage";

/// Tenths that depend on which thread was faster.
const SLACK: u64 = 3;

/// A percentage in tenths, so that it can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Tenths(u64);

impl std::fmt::Display for Tenths {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0 / 10, self.0 % 10)
    }
}

impl Tenths {
    fn parse(text: &str) -> Option<Self> {
        let (whole, tenth) = text.trim().split_once('.')?;
        let tenth = tenth.parse::<u64>().ok().filter(|tenth| *tenth < 10)?;
        Some(Self(whole.parse::<u64>().ok()?.checked_mul(10)?.checked_add(tenth)?))
    }
}

pub(super) fn check(paths: &Paths) -> Result<()> {
    let tools = Tools::find()?;
    let folder = paths.target.join("coverage");
    let profiles = folder.join("profiles");
    // What an older build has left would be counted.
    let _ = fs::remove_dir_all(&profiles); // Absent the first time.
    let tests = build(paths, &folder)?;
    for test in &tests {
        let mut command = Command::new(test);
        command.current_dir(paths.checkout.join("vmm")).env("CI", "true").arg("--quiet");
        // A program in a jail may not write down at its end what it has run, and dies of the attempt.
        command.args(["--skip", "jailed::"]);
        tool::run(command.env("LLVM_PROFILE_FILE", profiles.join("%p-%m.profraw")))?;
    }
    let merged = folder.join("merged.profdata");
    let mut merge = Command::new(&tools.profdata);
    merge.args(["merge", "--sparse", "--output"]).arg(&merged).arg(&profiles);
    tool::run(&mut merge)?;
    let mut export = Command::new(&tools.cov);
    export.args(["export", "--summary-only", "--instr-profile"]).arg(&merged);
    for test in &tests {
        export.arg("--object").arg(test);
    }
    let report = tool::read(&mut export)?;
    let measured = percentage(&report, &paths.checkout.join("vmm/src"));
    let measured = measured.ok_or_else(|| Error::new(Kind::Failed, "read what llvm-cov says"))?;
    judge(measured, &paths.checkout.join(FLOOR))
}

fn judge(measured: Tenths, file: &Path) -> Result<()> {
    let doing = || format!("read the least coverage in {}", file.display());
    let text = fs::read_to_string(file).doing(Kind::Failed, doing)?;
    let floor = Tenths::parse(&text).ok_or_else(|| Error::new(Kind::Failed, doing()))?;
    println!("tests run {measured} % of the VMM's lines, {floor} % at least");
    if floor < measured {
        println!("a gain: write {measured} into {}", file.display());
    }
    if measured.0 + SLACK < floor.0 {
        return Err(Error::new(Kind::Failed, format!("keep the VMM's coverage at {floor} %: write tests")));
    }
    Ok(())
}

/// The programs that read what instrumented ones write; of the compiler's own LLVM, or as new as that.
struct Tools {
    profdata: PathBuf,
    cov: PathBuf,
}

impl Tools {
    fn find() -> Result<Self> {
        let version = tool::read(Command::new("rustc").arg("-vV"))?;
        let line = |name: &str| version.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let unknown = || Error::new(Kind::Failed, "read what rustc -vV says");
        let host = line("host:").ok_or_else(unknown)?;
        let llvm = line("LLVM version:").and_then(|v| v.split('.').next()).ok_or_else(unknown)?;
        let root = tool::read(Command::new("rustc").args(["--print", "sysroot"]))?;
        let folder = Path::new(&root).join("lib/rustlib").join(host).join("bin");
        let own = Self { profdata: folder.join("llvm-profdata"), cov: folder.join("llvm-cov") };
        if own.profdata.exists() && own.cov.exists() {
            return Ok(own);
        }
        // Without rustup's component llvm-tools: Debian's, of the same number.
        install::ensure(&[&format!("llvm-{llvm}")])?;
        let tool = |name: &str| PathBuf::from(format!("/usr/bin/{name}-{llvm}"));
        Ok(Self { profdata: tool("llvm-profdata"), cov: tool("llvm-cov") })
    }
}

/// Builds the VMM's tests to count what they run, beside all other builds.
fn build(paths: &Paths, folder: &Path) -> Result<Vec<PathBuf>> {
    let words = ["test", "--package=hull-vmm", "--no-run", "--message-format=json-render-diagnostics"];
    let mut cargo = tool::cargo(paths, &words);
    let flags = "-C target-feature=+crt-static -C instrument-coverage";
    let messages = tool::read(cargo.env("CARGO_TARGET_DIR", folder).env("RUSTFLAGS", flags))?;
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let tests = messages.filter(|message| message["profile"]["test"] == true);
    let tests: Vec<_> = tests.filter_map(|test| Some(test["executable"].as_str()?.into())).collect();
    match tests.is_empty() {
        true => Err(Error::new(Kind::Failed, "find the test programs that cargo built")),
        false => Ok(tests),
    }
}

/// Lines that were run, of those in files below `folder` that are not tests themselves.
fn percentage(report: &str, folder: &Path) -> Option<Tenths> {
    let report: Value = serde_json::from_str(report).ok()?;
    let (mut count, mut covered) = (0, 0);
    for file in report["data"][0]["files"].as_array()? {
        let path = Path::new(file["filename"].as_str()?);
        let name = path.file_name()?.to_str()?;
        let tests = name == "tests.rs" || name.ends_with("_tests.rs");
        // The fuzzer runs those.
        let fuzzing = path.starts_with(folder.join("fuzzing"));
        if path.starts_with(folder) && !tests && !fuzzing {
            count += file["summary"]["lines"]["count"].as_u64()?;
            covered += file["summary"]["lines"]["covered"].as_u64()?;
        }
    }
    (covered * 1000).checked_div(count).map(Tenths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_tests_and_strangers_do_not_count() {
        let file = |name: &str, count: u64, covered: u64| {
            format!(
                "{{\"filename\":\"{name}\",\"summary\":{{\"lines\":{{\"count\":{count},\"covered\":{covered}}}}}}}"
            )
        };
        let files = [
            file("/w/vmm/src/bus.rs", 100, 90),
            file("/w/vmm/src/queue.rs", 20, 20),
            file("/w/vmm/src/queue_tests.rs", 50, 50),
            file("/w/vmm/src/block/tests.rs", 50, 0),
            file("/w/vmm/src/fuzzing/block.rs", 50, 0),
            file("/w/errors/src/lib.rs", 50, 0),
        ];
        let report = format!("{{\"data\":[{{\"files\":[{}]}}]}}", files.join(","));
        assert_eq!(percentage(&report, Path::new("/w/vmm/src")), Some(Tenths(916)));
        assert_eq!(percentage("{}", Path::new("/w/vmm/src")), None);
        assert_eq!(percentage(&report, Path::new("/elsewhere")), None);
    }

    #[test]
    fn nothing_falls_below_the_floor() {
        let file = std::env::temp_dir().join(format!("hull-coverage-{}", std::process::id()));
        fs::write(&file, "91.6\n").unwrap();
        let judged = [0, 912, 913, 916, 1000].map(|measured| judge(Tenths(measured), &file).is_ok());
        fs::remove_file(&file).unwrap();
        assert_eq!(judged, [false, false, true, true, true]);
        assert!(judge(Tenths(916), Path::new("/nowhere")).is_err());
        assert_eq!(
            ["9.3", " 100.0\n", "9", "9.33", "a.b"].map(Tenths::parse),
            [Some(Tenths(93)), Some(Tenths(1000)), None, None, None]
        );
    }
}

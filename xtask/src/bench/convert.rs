//! `bench convert`: one layer into hull's store against `tar -x` and `umoci unpack`, in one run.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use hull_errors::Doing;
use serde_json::json;
use wait4::Wait4;

use crate::debian;
use crate::error::{Error, Kind, Result};
use crate::paths::Paths;
use crate::{build, install, tool};

const PACKAGES: &[&str] = &["mmdebstrap", "skopeo", "tar", "umoci", "zstd"];

/// One program on one layer.
struct Figure {
    compression: &'static str,
    program: &'static str,
    time: Duration,
    peak_kib: u64,
}

/// `layer` is an uncompressed tar archive; without one it is a Debian root, kept in the cache.
pub(super) fn run(json: bool, layer: Option<PathBuf>, paths: &Paths) -> Result<ExitCode> {
    install::ensure(PACKAGES)?;
    let programs = build::programs(paths)?;
    let layer = layer.map_or_else(debian, Ok)?;
    let folder = std::env::temp_dir().join(format!("hull-bench-convert-{}", std::process::id()));
    fs::create_dir(&folder).doing(Kind::Failed, || format!("create {}", folder.display()))?;
    let figures = measure(&layer, &folder, &programs);
    let _ = fs::remove_dir_all(&folder); // What is left of it is in the temporary directory.
    let figures = figures?;
    match json {
        true => println!("{}", as_json(&figures)),
        false => print(&figures),
    }
    Ok(ExitCode::SUCCESS)
}

/// The same file as the tests of real images use.
fn debian() -> Result<PathBuf> {
    let home = std::env::var_os("HOME").ok_or_else(|| Error::new(Kind::Failed, "find $HOME"))?;
    let path = Path::new(&home).join(".cache/hull/roots/debian-minbase.tar");
    if !path.exists() {
        let folder = path.parent().expect("it lies in a folder");
        fs::create_dir_all(folder).doing(Kind::Failed, || format!("create {}", folder.display()))?;
        let unfinished = folder.join("unfinished-bench.tar");
        let options = ["--quiet", "--variant=minbase"].map(str::to_owned);
        tool::run(&mut debian::bootstrap(&options, &unfinished)?)?;
        fs::rename(&unfinished, &path).doing(Kind::Failed, || format!("keep {}", path.display()))?;
    }
    Ok(path)
}

fn measure(layer: &Path, folder: &Path, programs: &Path) -> Result<Vec<Figure>> {
    let at = |name: &str| folder.join(name);
    let image = |name: &str| format!("{}:t", at(name).display());
    tool::run(Command::new("umoci").args(["init", "--layout"]).arg(at("gzip")))?;
    tool::run(Command::new("umoci").args(["new", "--image", &image("gzip")]))?;
    tool::run(Command::new("umoci").args(["raw", "add-layer", "--image", &image("gzip")]).arg(layer))?;
    let (from, to) = (format!("oci:{}", image("gzip")), format!("oci:{}", image("zstd")));
    let words = ["copy", "--quiet", "--dest-compress", "--dest-compress-format", "zstd", &from, &to];
    tool::run(Command::new("skopeo").args(words))?;
    let mut figures = Vec::new();
    for compression in ["gzip", "zstd"] {
        let blob = largest(&at(compression).join("blobs/sha256"))?;
        let mut hull = Command::new(programs.join("hull"));
        hull.arg("--libexec").arg(programs).arg("--dir").arg(at("hull"));
        hull.args(["fetch", "--insecure-options=image", &format!("oci:{}", image(compression))]);
        let mut tar = Command::new("tar");
        tar.args([&format!("--{compression}"), "--numeric-owner", "--xattrs", "-xpf"]).arg(blob);
        tar.arg("-C").arg(at("tar"));
        let mut umoci = Command::new("umoci");
        umoci.args(["unpack", "--image", &image(compression)]).arg(at("umoci"));
        let contenders = [("hull", hull), ("tar", tar), ("umoci", umoci)];
        for (program, command) in contenders {
            // This version of umoci reads gzip alone.
            if (program, compression) == ("umoci", "zstd") {
                continue;
            }
            if program == "tar" {
                fs::create_dir(at("tar")).doing(Kind::Failed, || "create a folder for tar".into())?;
            }
            figures.push(timed(compression, program, command)?);
            let made = at(program);
            fs::remove_dir_all(&made).doing(Kind::Failed, || format!("remove {}", made.display()))?;
        }
    }
    Ok(figures)
}

fn timed(compression: &'static str, program: &'static str, mut command: Command) -> Result<Figure> {
    let doing = || format!("measure {}", tool::shown(&command));
    let text = doing();
    let started = Instant::now();
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let ended = child.and_then(|mut child| child.wait4()).doing(Kind::Failed, || text.clone())?;
    let time = started.elapsed();
    tool::verdict(&text, ended.status)?;
    // With that of the processes it waited for, the converter and tar's decompressors among them.
    Ok(Figure { compression, program, time, peak_kib: ended.rusage.maxrss / 1024 })
}

fn largest(folder: &Path) -> Result<PathBuf> {
    let doing = || format!("list {}", folder.display());
    let mut found = None;
    for entry in fs::read_dir(folder).doing(Kind::Failed, doing)? {
        let path = entry.doing(Kind::Failed, doing)?.path();
        let size = path.metadata().doing(Kind::Failed, doing)?.len();
        found = found.max(Some((size, path)));
    }
    found.map(|(_, path)| path).ok_or_else(|| Error::new(Kind::Failed, doing()))
}

fn print(figures: &[Figure]) {
    println!("{:<12} {:<8} {:>10} {:>12}", "layer", "program", "seconds", "peak KiB");
    for Figure { compression, program, time, peak_kib } in figures {
        println!("{compression:<12} {program:<8} {:>10.2} {peak_kib:>12}", time.as_secs_f64());
    }
}

fn as_json(figures: &[Figure]) -> serde_json::Value {
    let figure = |f: &Figure| json!({ "layer": f.compression, "program": f.program, "seconds": f.time.as_secs_f64(), "peak_kib": f.peak_kib });
    figures.iter().map(figure).collect()
}

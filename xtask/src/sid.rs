//! Programs that only Debian's unstable release has and that run here all the same: unpacked into the cache,
//! nothing of them is installed.
use std::fs;
use std::path::Path;
use std::process::Command;

use hull_errors::Doing;

use crate::error::{Error, Kind, Result};
use crate::paths::Paths;
use crate::tool::{self, say};

/// Makes sure that `debian-sid/PROGRAM` is in the cache, `program` being its path in `package`.
///
/// # Errors
/// Not a Debian, or its servers do not answer.
pub(crate) fn ensure(paths: &Paths, package: &str, program: &str) -> Result<()> {
    let root = paths.cache.join("debian-sid");
    if root.join(program).is_file() {
        return Ok(());
    }
    say(format_args!("unpacking {package} of Debian unstable into {}", root.display()));
    let folder = root.with_extension(format!("{}", std::process::id()));
    let unpacked = unpack(&folder, &root, package);
    let _ = fs::remove_dir_all(&folder); // Nothing looks at it again.
    unpacked.doing(Kind::Failed, || format!("get `{package}` of Debian unstable"))?;
    match root.join(program).is_file() {
        true => Ok(()),
        false => Err(Error::new(Kind::Failed, format!("find `{program}` in the package `{package}`"))),
    }
}

/// Has apt work on folders of its own, with the server that this machine uses.
fn unpack(folder: &Path, root: &Path, package: &str) -> Result<()> {
    let made =
        |path: &Path| fs::create_dir_all(path).doing(Kind::Failed, || format!("make {}", path.display()));
    made(&folder.join("state/lists/partial"))?;
    made(&folder.join("cache/archives/partial"))?;
    let sources = folder.join("sources.list");
    let key = "signed-by=/usr/share/keyrings/debian-archive-keyring.gpg";
    fs::write(&sources, format!("deb [{key}] {} sid main\n", server()?))
        .doing(Kind::Failed, || format!("write {}", sources.display()))?;
    let apt = |words: &[&str]| {
        let mut command = Command::new("apt-get");
        let shown = folder.display();
        let options = [
            format!("Dir::State={shown}/state"),
            format!("Dir::Cache={shown}/cache"),
            format!("Dir::Etc::SourceList={shown}/sources.list"),
            "Dir::Etc::SourceParts=-".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "APT::Sandbox::User=root".to_owned(),
        ];
        command.current_dir(folder).args(["--quiet", "--quiet"]);
        command.args(options.iter().flat_map(|option| ["-o", option])).args(words);
        tool::run(&mut command)
    };
    apt(&["update"])?;
    apt(&["download", package])?;
    let listed = fs::read_dir(folder).doing(Kind::Failed, || format!("list {}", folder.display()))?;
    let mut files = listed.filter_map(|entry| Some(entry.ok()?.path()));
    let archive = files.find(|path| path.extension().is_some_and(|e| e == "deb"));
    let archive = archive.ok_or_else(|| Error::new(Kind::Failed, "find what apt-get downloaded"))?;
    made(root)?;
    tool::run(Command::new("dpkg-deb").arg("--extract").arg(archive).arg(root))
}

/// The server of Debian's packages, as this machine is configured.
fn server() -> Result<String> {
    let words = ["indextargets", "--format", "$(REPO_URI)", "Origin: Debian", "Label: Debian"];
    let ask = || tool::read(Command::new("apt-get").args(words));
    let mut listed = ask()?;
    if listed.trim().is_empty() {
        // A fresh machine has no lists.
        tool::run(Command::new("apt-get").args(["--quiet", "--quiet", "update"]))?;
        listed = ask()?;
    }
    let first = listed.lines().next().map(str::to_owned);
    first.ok_or_else(|| {
        Error::new(Kind::Failed, "find the server of Debian's packages (apt-get indextargets)")
    })
}

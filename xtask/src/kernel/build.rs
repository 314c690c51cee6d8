//! Builds one kernel: source tree, configuration, vmlinux, cache entry. The caller holds the lock.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Instant;

use hull_errors::Doing;

use super::{Recipe, SOURCE_PACKAGE};
use crate::error::{Error, Kind, Result};
use crate::tool::{self, say};

/// Part of the key: raise it when this file makes other bytes from the same recipe.
pub(crate) const RECIPE: &str = "1";

/// Leaves a finished `entry` or none at all.
pub(crate) fn build(recipe: &Recipe, home: &Path, entry: &Path) -> Result<()> {
    let started = Instant::now();
    let source = source_tree(recipe, home)?;
    let objects = Objects::open(home.join(format!("objects-{}", recipe.flavour.name())), recipe)?;
    configure(recipe, &source, &objects.0)?;
    say(format_args!("building {} from {}: some minutes", entry.display(), recipe.source));
    tool::run(make(&source, &objects.0).arg("vmlinux"))?;
    publish(&objects.0, entry)?;
    objects.finish(recipe)?;
    say(format_args!("built {} in {} s", entry.display(), started.elapsed().as_secs()));
    Ok(())
}

/// The unpacked and patched source; any other is removed.
fn source_tree(recipe: &Recipe, home: &Path) -> Result<PathBuf> {
    let tree = home.join("source");
    let state = format!("{}\n{}", recipe.source, recipe.patches.text());
    let stamp = |tree: &Path| tree.join("hull-state");
    if fs::read_to_string(stamp(&tree)).is_ok_and(|found| found == state) {
        return Ok(tree);
    }
    let archive = format!("/usr/src/{SOURCE_PACKAGE}.tar.xz");
    let fresh = home.join("source.new");
    say(format_args!("unpacking {archive}"));
    remove(&fresh)?;
    remove(&tree)?;
    create(&fresh)?;
    tool::run(Command::new("tar").args(["--strip-components=1", "-xf", &archive, "-C"]).arg(&fresh))?;
    for file in recipe.patches.files() {
        tool::run(Command::new("patch").args(["-p1", "--silent", "-d"]).arg(&fresh).arg("-i").arg(file))?;
    }
    write(&stamp(&fresh), &state)?;
    fs::rename(&fresh, &tree).doing(Kind::Failed, || format!("rename {} to source", fresh.display()))?;
    Ok(tree)
}

/// A folder of object files. After a finished build they serve the next configuration of the
/// same source; after an interrupted one nobody knows which of them are whole.
struct Objects(PathBuf);

impl Objects {
    fn open(folder: PathBuf, recipe: &Recipe) -> Result<Self> {
        let objects = Self(folder);
        let reusable = fs::read_to_string(objects.stamp()).is_ok_and(|s| s == Self::state(recipe));
        match reusable {
            true => remove(&objects.stamp())?,
            false => remove(&objects.0)?,
        }
        create(&objects.0)?;
        Ok(objects)
    }

    fn finish(&self, recipe: &Recipe) -> Result<()> {
        write(&self.stamp(), &Self::state(recipe))
    }

    fn stamp(&self) -> PathBuf {
        self.0.join("hull-finished")
    }

    fn state(recipe: &Recipe) -> String {
        format!("{}\n{}\n{RECIPE}\n", recipe.source, recipe.compiler)
    }
}

fn configure(recipe: &Recipe, source: &Path, objects: &Path) -> Result<()> {
    let fragment = objects.join("hull.config");
    write(&fragment, &recipe.fragment.text())?;
    tool::run(make(source, objects).env("KCONFIG_ALLCONFIG", &fragment).arg("allnoconfig"))?;
    let path = objects.join(".config");
    let config = fs::read_to_string(&path).doing(Kind::Failed, || format!("read {}", path.display()))?;
    let lost = recipe.fragment.lost_in(&config);
    if lost.is_empty() {
        return Ok(());
    }
    let what = "the kernel's configuration did not take these (unknown symbol or missing dependency)";
    Err(Error::new(Kind::Failed, format!("configure: {what}:\n  {}", lost.join("\n  "))))
}

/// Nothing of the machine, the user or the day gets into the image.
fn make(source: &Path, objects: &Path) -> Command {
    let jobs = thread::available_parallelism().map_or(1, usize::from);
    // It ends when we do.
    let mut make = Command::new("setpriv");
    make.args(["--pdeathsig", "TERM", "make"])
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C")
        .env("KBUILD_BUILD_TIMESTAMP", "@0")
        .env("KBUILD_BUILD_VERSION", "1")
        .env("KBUILD_BUILD_USER", "hull")
        .env("KBUILD_BUILD_HOST", "hull")
        .arg(format!("-j{jobs}"))
        .arg("--silent")
        .arg("-C")
        .arg(source)
        .arg(format!("O={}", objects.display()));
    make
}

/// `entry` appears by a rename, with all its files in it. What an earlier attempt or a hand left
/// there goes: it has no image, or nobody would have built.
fn publish(objects: &Path, entry: &Path) -> Result<()> {
    let fresh = entry.with_extension("new");
    remove(&fresh)?;
    create(&fresh)?;
    let strip = ["--strip-all", "-o"];
    let image = fresh.join("vmlinux");
    tool::run(Command::new("strip").args(strip).arg(&image).arg(objects.join("vmlinux")))?;
    for (from, to) in [(".config", "config"), ("System.map", "System.map")] {
        fs::copy(objects.join(from), fresh.join(to)).doing(Kind::Failed, || format!("keep {from}"))?;
    }
    let opened = fs::File::open(&image).and_then(|f| f.sync_all());
    opened.doing(Kind::Failed, || format!("sync {}", image.display()))?;
    remove(entry)?;
    fs::rename(&fresh, entry).doing(Kind::Failed, || format!("rename {}", fresh.display()))
}

fn create(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).doing(Kind::Failed, || format!("create {}", folder.display()))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).doing(Kind::Failed, || format!("write {}", path.display()))
}

/// Removes a file or a tree, or nothing.
fn remove(path: &Path) -> Result<()> {
    let removed = match path.is_dir() {
        true => fs::remove_dir_all(path),
        false if path.exists() => fs::remove_file(path),
        false => Ok(()),
    };
    removed.doing(Kind::Failed, || format!("remove {}", path.display()))
}

//! Rules that neither rustc nor clippy can check: the map of the crates, and how every file looks.
mod edges;
mod files;

use std::fs;
use std::path::Path;
use std::process::Command;

use hull_errors::Doing;

use crate::error::{Error, Kind, Result};
use crate::paths::Paths;
use crate::tool;

/// The page that says which crate may know which.
const MAP: &str = "ARCHITECTURE.md";

pub(super) fn check(paths: &Paths) -> Result<()> {
    let mut complaints = edges(paths)?;
    let files = tracked(&paths.checkout)?;
    complaints.extend(files.iter().flat_map(|(path, text)| files::complaints(path, text)));
    complaints.extend(files::unguarded(&files));
    if complaints.is_empty() {
        println!("{} files are tidy", files.len());
        return Ok(());
    }
    let count = complaints.len();
    Err(Error::new(
        Kind::Failed,
        format!("find the tree tidy: {count} complaints:\n  {}", complaints.join("\n  ")),
    ))
}

fn edges(paths: &Paths) -> Result<Vec<String>> {
    let page = read(&paths.checkout.join(MAP))?;
    let allowed =
        edges::allowed(&page).ok_or_else(|| Error::new(Kind::Failed, format!("find the edges in {MAP}")))?;
    let mut cargo = tool::cargo(paths, &["metadata", "--no-deps", "--format-version=1"]);
    let metadata = serde_json::from_str(&tool::read(&mut cargo)?);
    let metadata = metadata.doing(Kind::Failed, || "read cargo's metadata".into())?;
    let there =
        edges::there(&metadata).ok_or_else(|| Error::new(Kind::Failed, "understand cargo's metadata"))?;
    Ok(edges::complaints(&there, &allowed, MAP))
}

/// Every text file that git tracks or would: path below the checkout, and text.
fn tracked(checkout: &Path) -> Result<Vec<(String, String)>> {
    let mut git = Command::new("git");
    git.current_dir(checkout).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let list = tool::read(&mut git)?;
    let mut files = Vec::new();
    for path in list.split('\0').filter(|path| !path.is_empty()) {
        // What is deleted and not committed is not there; what is no text has no words.
        if let Ok(text) = fs::read_to_string(checkout.join(path)) {
            files.push((path.to_owned(), text));
        }
    }
    Ok(files)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).doing(Kind::Failed, || format!("read {}", path.display()))
}

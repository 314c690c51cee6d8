//! Which crate of ours may use which: cargo's word against the page with the map.
use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

/// The line of the page that the table follows.
const HEADING: &str = "Edges between our crates, and no others:";

/// On the page: whoever it is.
const ALL: &str = "all";

/// A folder, and the folder of a crate that it uses.
pub(super) type Edge = (String, String);

/// Reads the indented lines after [`HEADING`]: columns of `FOLDER -> FOLDER, FOLDER`, two spaces
/// or more apart.
pub(super) fn allowed(page: &str) -> Option<BTreeSet<Edge>> {
    let after = page.split_once(HEADING)?.1;
    let table = after.lines().skip_while(|line| line.is_empty()).take_while(|line| line.starts_with("    "));
    let cells = table.flat_map(|line| line.split("  ")).map(str::trim).filter(|cell| !cell.is_empty());
    let mut edges = BTreeSet::new();
    for cell in cells {
        let (from, to) = cell.split_once(" -> ")?;
        edges.extend(to.split(", ").map(|to| (from.to_owned(), to.to_owned())));
    }
    (!edges.is_empty()).then_some(edges)
}

/// Reads `cargo metadata`: dependencies with a path are ours, for whatever purpose they are there.
pub(super) fn there(metadata: &Value) -> Option<BTreeSet<Edge>> {
    let mut edges = BTreeSet::new();
    for package in metadata["packages"].as_array()? {
        let from = folder(Path::new(package["manifest_path"].as_str()?).parent()?)?;
        let paths = package["dependencies"].as_array()?.iter().filter_map(|d| d["path"].as_str());
        for path in paths {
            edges.insert((from.clone(), folder(Path::new(path))?));
        }
    }
    Some(edges)
}

fn folder(path: &Path) -> Option<String> {
    Some(path.file_name()?.to_string_lossy().into_owned())
}

pub(super) fn complaints(there: &BTreeSet<Edge>, allowed: &BTreeSet<Edge>, page: &str) -> Vec<String> {
    let for_all = |to: &str| allowed.contains(&(ALL.to_owned(), to.to_owned()));
    let extra = there.iter().filter(|edge| !allowed.contains(*edge) && !for_all(&edge.1));
    extra.map(|(from, to)| format!("{from} uses {to}: {page} has no such edge")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn edges(pairs: &[(&str, &str)]) -> BTreeSet<Edge> {
        pairs.iter().map(|(from, to)| ((*from).to_owned(), (*to).to_owned())).collect()
    }

    #[test]
    fn the_page_is_read() {
        let page =
            format!("# Map\n\n{HEADING}\n\n    a -> b, c-d     e -> b\n    all -> f\n\nNothing -> more.\n");
        assert_eq!(allowed(&page), Some(edges(&[("a", "b"), ("a", "c-d"), ("e", "b"), ("all", "f")])));
        assert_eq!(allowed("# Map\n"), None);
        assert_eq!(allowed(&format!("{HEADING}\n\n    a, b\n")), None);
        assert_eq!(allowed(&format!("{HEADING}\n\nnone\n")), None);
    }

    #[test]
    fn cargo_is_read() {
        let metadata = json!({ "packages": [{
            "manifest_path": "/c/a/Cargo.toml",
            "dependencies": [{ "name": "hull-b", "path": "/c/b" }, { "name": "libc", "path": null }],
        }] });
        assert_eq!(there(&metadata), Some(edges(&[("a", "b")])));
        assert_eq!(there(&json!({})), None);
    }

    #[test]
    fn an_edge_too_many_is_named() {
        let allowed = edges(&[("a", "b"), (ALL, "f")]);
        assert!(complaints(&edges(&[("a", "b"), ("a", "f")]), &allowed, "M").is_empty());
        assert_eq!(complaints(&edges(&[("b", "a")]), &allowed, "M"), ["b uses a: M has no such edge"]);
    }
}

//! What no file may contain, and how each file of Rust begins.

/// Not in any file. In pieces, so that this file may be looked at as well.
const NOWHERE: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X:"),
    concat!("issue ", "#"),
    concat!("/wo", "rk/"),
    concat!("/Us", "ers/"),
    concat!("deb.deb", "ian.org"),
    concat!("index.crates", ".io"),
    concat!("registry.npm", "js.org"),
    concat!("files.python", "hosted.org"),
];

/// Not in Rust.
const NOT_IN_RUST: &[&str] =
    &[concat!("to", "do!"), concat!("db", "g!("), concat!("#[ign", "ore"), concat!("allow(", "unsafe_code")];

/// Files that others wrote.
const FOREIGN: &[&str] = &["Cargo.lock", "LICENSE"];

const FORBID: &str = "#![forbid(unsafe_code)]";
const ISLAND: &str = "#![expect(unsafe_code";

/// Every breach in one file.
pub(super) fn complaints(path: &str, text: &str) -> Vec<String> {
    if FOREIGN.contains(&path) {
        return Vec::new();
    }
    let rust = is_rust(path);
    let words = NOWHERE.iter().chain(NOT_IN_RUST.iter().filter(|_| rust));
    let mut found: Vec<String> =
        words.filter_map(|word| Some(format!("{path}:{}: has `{word}`", line_of(text, word)?))).collect();
    if rust && !text.starts_with("//!") {
        found.push(format!("{path}:1: the first line is no `//!` that says what the file is for"));
    }
    let item = text.contains(concat!("#[expect(", "unsafe_code"));
    if rust && item {
        found.push(format!(
            "{path}: unsafe code is allowed for a whole file, `{ISLAND}, …)]`, not for an item"
        ));
    }
    found
}

/// Crates that neither forbid unsafe code nor have a file that says why it needs it.
pub(super) fn unguarded(files: &[(String, String)]) -> Vec<String> {
    let root = |path: &str| path.ends_with("src/lib.rs") || path.ends_with("src/main.rs");
    let open = files.iter().filter(|(path, text)| root(path) && !text.contains(FORBID));
    let island = |root: &str| {
        let crate_folder = root.rsplit_once("src/").map_or("", |(folder, _)| folder);
        let inside = files.iter().filter(move |(path, _)| is_rust(path) && path.starts_with(crate_folder));
        inside.into_iter().any(|(_, text)| is_island(text))
    };
    let lacking = open.filter(|(path, _)| !island(path));
    lacking.map(|(path, _)| format!("{path}: has neither `{FORBID}` nor an island with `{ISLAND}`")).collect()
}

fn is_rust(path: &str) -> bool {
    path.ends_with(".rs")
}

/// Formatting may have put the attribute on several lines.
fn is_island(text: &str) -> bool {
    let dense: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    dense.contains(ISLAND)
}

/// The number of the first line with `word` in it. A path counts only where it begins.
fn line_of(text: &str, word: &str) -> Option<usize> {
    let begins = |before: &str| !before.ends_with(|c: char| c.is_alphanumeric() || "_-.}$".contains(c));
    let there = |line: &str| {
        line.match_indices(word).any(|(index, _)| !word.starts_with('/') || begins(&line[..index]))
    };
    text.lines().position(there).map(|index| index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_where_they_are() {
        let check = |path: &str, text: &str, want: usize| {
            assert_eq!(complaints(path, text).len(), want, "{path} {text}");
        };
        check("a.rs", "//! Says.\n", 0);
        check("a.rs", "fn main() {}\n", 1);
        check("a.md", "# Title\n", 0);
        for word in NOWHERE {
            check("a.md", &format!("see {word}x"), 1);
            check("LICENSE", &format!("see {word}x"), 0);
        }
        for word in NOT_IN_RUST {
            check("a.rs", &format!("//! Says.\n{word}"), 1);
            check("a.md", word, 0);
        }
        check("a.rs", "//! Says.\nlet p = \"upper/work/x\";\n", 0);
        let line = complaints("a.rs", &format!("//! Says.\n\n// {}\n", NOWHERE[0])).remove(0);
        assert!(line.starts_with("a.rs:3: "), "{line}");
    }

    #[test]
    fn a_crate_forbids_or_explains_unsafe_code() {
        let files = |all: &[(&str, &str)]| -> Vec<(String, String)> {
            all.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
        };
        let island = "//! X.\n#![expect(\n    unsafe_code,\n    reason = \"y\"\n)]\n";
        assert!(unguarded(&files(&[("a/src/lib.rs", FORBID)])).is_empty());
        assert!(unguarded(&files(&[("a/src/lib.rs", ""), ("a/src/sys.rs", island)])).is_empty());
        let bare = unguarded(&files(&[("a/src/lib.rs", ""), ("b/src/sys.rs", island)]));
        assert_eq!(bare.len(), 1, "{bare:?}");
        let item = format!("//! X.\n#[expect({}, reason = \"y\")]\n", "unsafe_code");
        assert_eq!(complaints("a.rs", &item).len(), 1);
    }
}

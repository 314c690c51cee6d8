//! Which files of an App Container Image show (appc spec, "Image Manifest Schema", `pathWhitelist`).

use std::collections::BTreeSet;

use crate::tree::TreePath;

/// The files that an image and those above it agree to show.
pub(crate) struct Whitelist {
    own: Option<BTreeSet<TreePath>>,
    above: Option<BTreeSet<TreePath>>,
}

impl Whitelist {
    /// `own` is the image's list, `above` that of an image that depends on it; empty ones name everything.
    pub(crate) fn new(own: &[String], above: &[String]) -> Result<Self, String> {
        Ok(Self { own: set(own)?, above: set(above)? })
    }

    pub(crate) fn shows_all(&self) -> bool {
        self.own.is_none() && self.above.is_none()
    }

    /// Whether a file that is no directory shows.
    pub(crate) fn shows(&self, path: &TreePath) -> bool {
        [&self.own, &self.above].into_iter().flatten().all(|list| list.contains(path))
    }

    /// Whether a directory shows. The image's own list is about files only, as rkt reads it.
    pub(crate) fn shows_directory(&self, path: &TreePath) -> bool {
        // In the order of paths, whatever lies in a directory comes after it and before all else.
        let leads =
            |list: &BTreeSet<TreePath>| list.range(path..).next().is_some_and(|p| p.is_below_or_at(path));
        self.above.as_ref().is_none_or(leads)
    }
}

fn set(paths: &[String]) -> Result<Option<BTreeSet<TreePath>>, String> {
    let paths = paths.iter().map(|path| TreePath::parse(path.as_bytes()));
    let paths = paths.collect::<Result<BTreeSet<_>, _>>().map_err(|e| format!("its pathWhitelist: {e}"))?;
    Ok(Some(paths).filter(|paths| !paths.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(paths: &str) -> Vec<String> {
        paths.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn lists_are_about_files_and_the_way_to_them() {
        let check = |own: &str, above: &str, path: &str, want: (bool, bool)| {
            let whitelist = Whitelist::new(&list(own), &list(above)).unwrap();
            let path = TreePath::parse(path.as_bytes()).unwrap();
            assert_eq!(
                (whitelist.shows(&path), whitelist.shows_directory(&path)),
                want,
                "{own} {above} {path}"
            );
        };
        check("", "", "a", (true, true));
        check("/a", "", "a", (true, true));
        check("/a/b", "", "a", (false, true));
        check("/a/b", "", "c", (false, true));
        check("", "/a/b", "a", (false, true));
        check("", "/a/b", "a/b", (true, true));
        check("", "/a/b", "a/b/c", (false, false));
        check("", "/a/b", "a/a", (false, false));
        check("", "/a/b /a-b", "a", (false, true));
        check("", "a/b/", "c", (false, false));
        check("/a", "/b", "a", (false, false));
        check("/a", "/b", "b", (false, true));
        check("/a /b", "/b", "b", (true, true));
        assert!(Whitelist::new(&list("/a/../b"), &[]).is_err());
    }
}

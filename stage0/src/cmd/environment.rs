//! Where an app's environment comes from. What stands lower wins, as in rkt:
//!
//! 1. `--inherit-env`: hull's own environment
//! 2. the image
//! 3. `--environment` of the app
//! 4. `--set-env-file`
//! 5. `--set-env`

use std::fs::File;
use std::io::Read;
use std::path::Path;

use hull_errors::Doing;

use crate::{Error, Kind};

/// Longest file of variables, in bytes.
const FILE_MAX: u64 = 1 << 20;

/// Variables in the order in which they were first set.
#[derive(Debug, Default)]
pub(super) struct Environment(Vec<(String, String)>);

impl Environment {
    /// Sets each, in the place of what was there.
    pub(super) fn set(mut self, pairs: &[(String, String)]) -> Self {
        for (name, value) in pairs {
            match self.0.iter_mut().find(|(known, _)| known == name) {
                Some((_, old)) => old.clone_from(value),
                None => self.0.push((name.clone(), value.clone())),
            }
        }
        self
    }

    pub(super) fn into_pairs(self) -> Vec<(String, String)> {
        self.0
    }
}

/// hull's own variables, but for those that are no text and those whose name no file could have.
pub(super) fn own() -> Vec<(String, String)> {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(text).filter(|(name, _)| !name.is_empty()).collect()
}

/// The variables of a file: `NAME=VALUE` lines; empty lines and those that begin with `#` or `;` say nothing.
pub(super) fn of_file(path: &Path) -> Result<Vec<(String, String)>, Error> {
    let doing = || format!("read the environment from {}", path.display());
    let mut text = String::new();
    let mut file = File::open(path).doing(Kind::User, doing)?.take(FILE_MAX + 1);
    file.read_to_string(&mut text).doing(Kind::User, doing)?;
    if text.len() as u64 > FILE_MAX {
        return Err(Error::new(Kind::User, format!("{}: longer than {FILE_MAX} bytes", doing())));
    }
    parse(&text).map_err(|why| Error::new(Kind::User, format!("{}: {why}", doing())))
}

fn parse(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        let pair = line.split_once('=').filter(|(name, _)| !name.is_empty());
        let (name, value) = pair.ok_or_else(|| format!("line {} is not NAME=VALUE", index + 1))?;
        if value.contains('\0') || name.contains('\0') {
            return Err(format!("line {} has a NUL inside", index + 1));
        }
        if pairs.iter().any(|(known, _)| known == name) {
            return Err(format!("line {} sets {name} a second time", index + 1));
        }
        pairs.push((name.to_owned(), value.to_owned()));
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &[(&str, &str)]) -> Vec<(String, String)> {
        text.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    #[test]
    fn what_is_set_later_wins_in_the_old_place() {
        let environment = Environment::default().set(&pairs(&[("A", "1"), ("B", "2")])).set(&pairs(&[
            ("A", "3"),
            ("C", "4"),
            ("C", "5"),
        ]));
        assert_eq!(environment.into_pairs(), pairs(&[("A", "3"), ("B", "2"), ("C", "5")]));
    }

    #[test]
    fn files_have_lines_and_remarks() {
        let text = "# no\n; no\n\nA=1\nB=x=y # z\nEMPTY=\n";
        assert_eq!(parse(text), Ok(pairs(&[("A", "1"), ("B", "x=y # z"), ("EMPTY", "")])));
        for (text, want) in [("A", "line 1"), ("A=1\n=2", "line 2"), ("A=1\nA=1", "sets A"), ("A=\0", "NUL")]
        {
            let why = parse(text).unwrap_err();
            assert!(why.contains(want), "{why}");
        }
    }
}

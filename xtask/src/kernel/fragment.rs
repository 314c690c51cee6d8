//! Reads kernel configuration fragments, joins them, and checks what became of them.
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use hull_errors::Doing;

use crate::error::{Error, Kind, Result};

/// Settings by symbol, `CONFIG_` included. The value is as in a `.config`; off is `n`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Fragment(BTreeMap<String, String>);

impl Fragment {
    /// Joins the files; the later one wins.
    pub(crate) fn read(files: impl Iterator<Item = PathBuf>) -> Result<Self> {
        let mut all = Self::default();
        for file in files {
            let text = fs::read_to_string(&file)
                .doing(Kind::Failed, || format!("read kernel configuration {}", file.display()))?;
            let one = Self::parse(&text).map_err(|line| {
                let what = "expected CONFIG_NAME=value, once a file, or a comment";
                Error::new(Kind::Failed, format!("read {}: line {line}: {what}", file.display()))
            })?;
            all.0.extend(one.0);
        }
        Ok(all)
    }

    /// The error is the number of the line that is neither setting nor comment, or sets a symbol
    /// for the second time.
    fn parse(text: &str) -> std::result::Result<Self, usize> {
        let mut settings = BTreeMap::new();
        for (index, line) in text.lines().enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let setting = line.split_once('=').filter(|(symbol, _)| symbol.starts_with("CONFIG_"));
            let (symbol, value) = setting.ok_or(index + 1)?;
            if settings.insert(symbol.to_owned(), value.to_owned()).is_some() {
                return Err(index + 1);
            }
        }
        Ok(Self(settings))
    }

    /// One line a setting, sorted, without comments: editing those builds nothing anew.
    pub(crate) fn text(&self) -> String {
        self.0.iter().map(|(symbol, value)| format!("{symbol}={value}\n")).collect()
    }

    /// What the kernel's own configuration program made of us differently, one line a symbol. A
    /// symbol that does not exist, or whose dependencies are missing, silently stays off.
    pub(crate) fn lost_in(&self, config: &str) -> Vec<String> {
        let got: BTreeMap<&str, &str> =
            config.lines().filter(|l| !l.starts_with('#')).filter_map(|l| l.split_once('=')).collect();
        let differing = self.0.iter().filter_map(|(symbol, want)| {
            let have = got.get(symbol.as_str()).copied().unwrap_or("n");
            (have != want).then(|| format!("{symbol}: asked for {want}, got {have}"))
        });
        differing.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_settings_count() {
        let got = Fragment::parse("# why\n\nCONFIG_B=y\nCONFIG_A=\"x=y\"\n").unwrap();
        assert_eq!(got.text(), "CONFIG_A=\"x=y\"\nCONFIG_B=y\n");
    }

    #[test]
    fn a_bad_line_is_named() {
        let check = |text: &str, want: usize| assert_eq!(Fragment::parse(text), Err(want));
        check("CONFIG_A=y\nB=y\n", 2);
        check("# CONFIG_A is not set\nCONFIG_A\n", 2);
        check("CONFIG_A=y\n\nCONFIG_A=n\n", 3);
    }

    #[test]
    fn what_did_not_stick_is_named() {
        let asked = Fragment::parse("CONFIG_A=y\nCONFIG_B=n\nCONFIG_C=64\nCONFIG_D=n\n").unwrap();
        let config = "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=64\n";
        assert!(asked.lost_in(config).is_empty());
        let config = "CONFIG_B=y\nCONFIG_C=8\n";
        assert_eq!(
            asked.lost_in(config),
            ["CONFIG_A: asked for y, got n", "CONFIG_B: asked for n, got y", "CONFIG_C: asked for 64, got 8"]
        );
    }
}

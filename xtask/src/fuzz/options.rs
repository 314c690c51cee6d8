//! What was typed after `cargo xtask fuzz`.
use crate::error::{Result, usage};

/// Enough to notice what a change broke.
const SECONDS: u32 = 5;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Options {
    /// For each target.
    pub(super) seconds: u32,
    /// None means all.
    targets: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { seconds: SECONDS, targets: Vec::new() }
    }
}

impl Options {
    pub(super) fn parse(arguments: &[String]) -> Result<Self> {
        let mut options = Self::default();
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            if word == "--seconds" {
                let number = words.next().and_then(|n| n.parse().ok()).filter(|n| *n > 0);
                options.seconds = number.ok_or_else(|| usage("--seconds needs a number above 0"))?;
            } else if word.starts_with('-') {
                return Err(usage(format_args!("fuzz has no option {word}")));
            } else {
                options.targets.push(word.clone());
            }
        }
        Ok(options)
    }

    /// Those of `known` that are wanted.
    pub(super) fn chosen(&self, known: Vec<String>) -> Result<Vec<String>> {
        if let Some(stranger) = self.targets.iter().find(|name| !known.contains(name)) {
            let known = known.join(", ");
            return Err(usage(format_args!("there is no fuzz target {stranger}; there are {known}")));
        }
        Ok(if self.targets.is_empty() { known } else { self.targets.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read() {
        let check = |typed: &str, want: Option<(u32, &[&str])>| {
            let words: Vec<String> = typed.split_whitespace().map(str::to_owned).collect();
            let known = ["a", "b"].map(str::to_owned).to_vec();
            let got = Options::parse(&words).and_then(|o| Ok((o.seconds, o.chosen(known)?)));
            let got = got.ok();
            let want =
                want.map(|(seconds, names)| (seconds, names.iter().map(|n| (*n).to_owned()).collect()));
            assert_eq!(got, want, "{typed}");
        };
        check("", Some((SECONDS, &["a", "b"])));
        check("--seconds 60 b", Some((60, &["b"])));
        check("--seconds 0", None);
        check("--seconds", None);
        check("c", None);
        check("-x", None);
    }
}

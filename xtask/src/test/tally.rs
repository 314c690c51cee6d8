//! Reads what Rust's test harness says.
use std::collections::BTreeMap;
use std::fmt;
use std::ops::AddAssign;

/// How many tests passed and failed. An ignored test has failed: nothing is skipped here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
}

impl Tally {
    /// A step that fails without a failed test counts as one.
    pub(crate) fn blame(&mut self) {
        self.failed = self.failed.max(1);
    }

    /// Reads `test result: ok. 3 passed; 0 failed; 1 ignored; …`.
    fn read(line: &str) -> Option<Self> {
        let counts = line.strip_prefix("test result: ")?.split_once(". ")?.1;
        let count = |word: &str| -> Option<usize> {
            let mut fields = counts.split(';').map(str::trim);
            fields.find_map(|field| field.strip_suffix(word))?.trim().parse().ok()
        };
        Some(Self { passed: count("passed")?, failed: count("failed")?.checked_add(count("ignored")?)? })
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

/// What was heard of one or more test programs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Heard {
    /// The sum of what the programs said at their ends.
    results: Tally,
    /// Which tests passed, by name.
    verdicts: BTreeMap<String, bool>,
}

impl Heard {
    pub(crate) fn line(&mut self, line: &str) {
        if let Some(tally) = Tally::read(line) {
            self.results += tally;
        }
        let test = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... "));
        let passed = |word: &str| match word {
            "ok" => Some(true),
            "FAILED" | "ignored" => Some(false),
            _ => None,
        };
        if let Some((name, passed)) = test.and_then(|(name, word)| Some((name, passed(word)?))) {
            self.verdicts.insert(name.to_owned(), passed);
        }
    }

    /// What the programs said at their ends. One that died said nothing: then its verdicts count.
    pub(crate) fn tally(&self) -> Tally {
        if self.results != Tally::default() {
            return self.results;
        }
        let passed = self.verdicts.values().filter(|passed| **passed).count();
        Tally { passed, failed: self.verdicts.len() - passed }
    }

    /// Which of `names` have no verdict.
    pub(crate) fn silent<'a>(&self, names: &'a [String]) -> Vec<&'a str> {
        names.iter().filter(|name| !self.verdicts.contains_key(*name)).map(String::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_read() {
        let check = |line: &str, want: Option<(usize, usize)>| {
            assert_eq!(Tally::read(line).map(|t| (t.passed, t.failed)), want, "{line}");
        };
        let rest = "0 measured; 7 filtered out; finished in 1.2s";
        check(&format!("test result: ok. 12 passed; 0 failed; 0 ignored; {rest}"), Some((12, 0)));
        check(&format!("test result: FAILED. 1 passed; 2 failed; 0 ignored; {rest}"), Some((1, 2)));
        check(&format!("test result: ok. 1 passed; 0 failed; 3 ignored; {rest}"), Some((1, 3)));
        check("test result: ok. many passed", None);
        check("test a::b ... ok", None);
    }

    #[test]
    fn a_program_that_died_is_counted_by_its_verdicts() {
        let names = ["a::b", "a::c", "a::d", "a::e"].map(str::to_owned);
        let mut heard = Heard::default();
        let lines = ["running 3 tests", "test a::c ... FAILED", "test a::b ... ok", "test a::d ... killed"];
        lines.iter().for_each(|line| heard.line(line));
        assert_eq!(heard.silent(&names), ["a::d", "a::e"]);
        assert_eq!(heard.tally(), Tally { passed: 1, failed: 1 });
        heard.line("test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured");
        assert_eq!(heard.tally(), Tally { passed: 2, failed: 0 });
    }
}

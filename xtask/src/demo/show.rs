//! Commands as a reader would type them, and what is expected of them.
use std::path::Path;
use std::process::Command;

use crate::error::{Error, Kind, Result};
use crate::test::Stream;

/// A command of hull's, as it is typed.
pub(super) struct Shown<'a> {
    /// Shown as a word of its own, started from [`Shown::programs`].
    pub(super) words: &'a [&'a str],
    pub(super) programs: &'a Path,
    pub(super) data: &'a Path,
}

impl Shown<'_> {
    /// Shows the command, its output and its exit code, and returns the output.
    ///
    /// # Errors
    /// Another exit code, or one of `wanted` is not in the output.
    pub(super) fn expect(&self, code: i32, wanted: &[&str]) -> Result<String> {
        let line = format!("hull {}", typed(self.words));
        println!("$ {line}");
        let mut command = Command::new(self.programs.join("hull"));
        command.args(self.words).env("HULL_DIR", self.data);
        let mut output = String::new();
        let status = Stream::start(command)?.finish("", |text| {
            output.push_str(text);
            output.push('\n');
        })?;
        println!("[exit code {}]\n", status.code().map_or("none".into(), |code| code.to_string()));
        if status.code() != Some(code) {
            let text = format!("run `{line}`: expected exit code {code}, got {status}");
            return Err(Error::new(Kind::Failed, text));
        }
        match wanted.iter().find(|text| !output.contains(**text)) {
            Some(text) => {
                Err(Error::new(Kind::Failed, format!("run `{line}`: `{text}` is not in its output")))
            }
            None => Ok(output),
        }
    }
}

/// Words as a shell wants them.
fn typed(words: &[&str]) -> String {
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+:,./@%".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_a_shell() {
        let words = ["run", "oci:/x", "--", "", "it's", "a b", "$HOME", "x\ny"];
        let output = Command::new("sh").args(["-c", &format!("printf '%s|' {}", typed(&words))]).output();
        assert_eq!(String::from_utf8(output.unwrap().stdout).unwrap(), format!("{}|", words.join("|")));
        assert_eq!(typed(&words[..3]), "run oci:/x --");
    }
}

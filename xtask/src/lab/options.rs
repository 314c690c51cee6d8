//! The command line of `cargo xtask lab`.
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::{Result, usage};

/// How to start the emulated host, and what to run on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// The host's clock counts instructions instead of time.
    pub(crate) icount: bool,
    pub(crate) memory_mib: u32,
    pub(crate) cpus: u32,
    pub(crate) timeout: Duration,
    /// Copy the host's console to stderr.
    pub(crate) console: bool,
    /// Added to the host's kernel command line.
    pub(crate) append: Vec<String>,
    pub(crate) shares: Vec<PathBuf>,
    /// Program first; never empty.
    pub(crate) command: Vec<OsString>,
}

impl Options {
    pub(crate) fn parse(arguments: &[String]) -> Result<Self> {
        let mut options = Self {
            icount: false,
            memory_mib: 4096,
            cpus: 1,
            timeout: Duration::from_secs(600),
            console: false,
            append: Vec::new(),
            shares: Vec::new(),
            command: Vec::new(),
        };
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| usage(format_args!("{word} needs a value")));
            match word.as_str() {
                "--" => break,
                "--icount" => options.icount = true,
                "--console" => options.console = true,
                "--memory" => options.memory_mib = number(word, value()?)?,
                "--cpus" => options.cpus = number(word, value()?)?,
                "--timeout" => options.timeout = Duration::from_secs(number(word, value()?)?.into()),
                "--append" => options.append.push(value()?.clone()),
                "--share" => options.shares.push(absolute(value()?)?),
                _ => return Err(usage(format_args!("lab does not know {word}; the command follows `--`"))),
            }
        }
        options.command = words.map(OsString::from).collect();
        if options.command.is_empty() {
            return Err(usage("lab needs a command: cargo xtask lab -- COMMAND"));
        }
        if options.icount && options.cpus > 1 {
            return Err(usage("--icount counts on one processor only"));
        }
        Ok(options)
    }
}

fn number(option: &str, text: &str) -> Result<u32> {
    let positive = text.parse().ok().filter(|n| *n > 0);
    positive.ok_or_else(|| usage(format_args!("{option} {text}: expected a number above 0")))
}

fn absolute(text: &str) -> Result<PathBuf> {
    std::fs::canonicalize(text).map_err(|e| usage(format_args!("--share {text}: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn parse(line: &str) -> Result<Options> {
        Options::parse(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn the_command_keeps_its_own_options() {
        let got = parse("--icount --timeout 5 -- ls --memory --").unwrap();
        assert!(got.icount);
        assert_eq!(got.timeout, Duration::from_secs(5));
        assert_eq!(got.command, ["ls", "--memory", "--"]);
        assert_eq!(got.memory_mib, 4096);
    }

    #[test]
    fn nonsense_is_refused() {
        let check = |line| assert_eq!(*parse(line).unwrap_err().kind(), Kind::Usage, "{line}");
        check("--icount");
        check("--memory -- ls");
        check("--memory 0 -- ls");
        check("--share /no/such/folder -- ls");
        check("--cpus 2 --icount -- ls");
        check("ls");
    }
}

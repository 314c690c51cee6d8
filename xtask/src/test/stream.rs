//! A program whose output is shown and read at once, line by line.
use std::io::{self, BufRead, BufReader, PipeReader};
use std::process::{Child, Command, ExitStatus, Stdio};

use hull_errors::Doing;

use crate::error::{Kind, Result};
use crate::tool;

/// A program that runs. Its stdout and stderr are one stream, in the order of their writing.
#[derive(Debug)]
pub(crate) struct Stream {
    child: Child,
    output: PipeReader,
    name: String,
}

impl Stream {
    pub(crate) fn start(mut command: Command) -> Result<Self> {
        let name = tool::shown(&command);
        let start = || format!("start {name}");
        let (output, end) = io::pipe().doing(Kind::Failed, start)?;
        let other = end.try_clone().doing(Kind::Failed, start)?;
        let spawned = command.stdin(Stdio::null()).stdout(end).stderr(other).spawn();
        let child = spawned.doing(Kind::Failed, start)?;
        Ok(Self { child, output, name })
    }

    /// Shows every line behind `prefix`, hands it to `hear`, and waits for the end.
    pub(crate) fn finish(mut self, prefix: &str, mut hear: impl FnMut(&str)) -> Result<ExitStatus> {
        let doing = || format!("listen to {}", self.name);
        let mut lines = BufReader::new(self.output);
        let mut bytes = Vec::new();
        while lines.read_until(b'\n', &mut bytes).doing(Kind::Failed, doing)? > 0 {
            let line = String::from_utf8_lossy(&bytes);
            let line = line.trim_end_matches(['\n', '\r']);
            println!("{prefix}{line}");
            hear(line);
            bytes.clear();
        }
        self.child.wait().doing(Kind::Failed, || format!("wait for {}", self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_outputs_are_heard_in_order_with_the_end() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; echo two >&2; printf three; exit 3"]);
        let mut heard = Vec::new();
        let status = Stream::start(command).unwrap().finish("", |line| heard.push(line.to_owned())).unwrap();
        assert_eq!(heard, ["one", "two", "three"]);
        assert_eq!(status.code(), Some(3));
    }
}

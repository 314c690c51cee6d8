//! What an app has written, kept in the pod directory in the format that Kubernetes defined for container
//! runtimes (design proposal "CRI: Log management for container stdout/stderr streams"), so that log
//! collectors need not learn another. An entry is a line:
//!
//! ```text
//! 2016-10-06T00:17:09.669794202Z stdout F what the app wrote
//! ```
//! `F` ends a line of the app's. `P` is a piece of one that the next entry of the stream goes on with.

use std::io::Write;
use std::time::SystemTime;

use crate::{AppName, isolators};

/// The folder of the logs in the pod directory.
pub const FOLDER: &str = "logs";

/// Longest file, in bytes. One that is full becomes the older one, and takes the place of that: an app
/// never has more than two, whatever it writes.
pub const FILE_MAX: u64 = 8 << 20;

/// The least that it may be instead: an app may write so much at once.
pub const FILE_MIN: u64 = 64 << 10;

/// Reads how long a file may be: `1Mi`.
///
/// # Errors
/// What is no size, or too little of it.
pub fn parse_size(text: &str) -> Result<u64, String> {
    match isolators::bytes(text)? {
        bytes if bytes < FILE_MIN => Err(format!("at least {FILE_MIN} bytes")),
        bytes => Ok(bytes),
    }
}

/// Where an app wrote to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// One line of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    pub time: SystemTime,
    pub stream: Stream,
    /// A line feed followed.
    pub whole: bool,
    pub text: &'a [u8],
}

impl<'a> Entry<'a> {
    /// Reads a line, without its line feed; `None` if it is no entry, as after a disk that was full.
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.splitn(4, |byte| *byte == b' ');
        let mut word = || std::str::from_utf8(fields.next()?).ok();
        let time = humantime::parse_rfc3339(word()?).ok()?;
        let stream = match word()? {
            "stdout" => Stream::Stdout,
            "stderr" => Stream::Stderr,
            _ => return None,
        };
        let whole = match word()? {
            "F" => true,
            "P" => false,
            _ => return None,
        };
        Some(Self { time, stream, whole, text: fields.next()? })
    }
}

/// Appends the entries for bytes that an app has written at once.
pub fn encode(time: SystemTime, stream: Stream, bytes: &[u8], into: &mut Vec<u8>) {
    let stream = stream.as_str();
    let time = humantime::format_rfc3339_nanos(time).to_string();
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let (tag, text) = match line.split_last() {
            Some((b'\n', text)) => ('F', text),
            _ => ('P', line),
        };
        let _ = write!(into, "{time} {stream} {tag} "); // A vector takes everything.
        into.extend_from_slice(text);
        into.push(b'\n');
    }
}

/// The file that entries are appended to.
pub fn file_name(app: &AppName) -> String {
    format!("{app}.log")
}

/// The file before it.
pub fn older_name(app: &AppName) -> String {
    format!("{app}.log.1")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_and_pieces_are_told_apart() {
        let mut log = vec![];
        encode(SystemTime::UNIX_EPOCH, Stream::Stderr, b"one\n\ntwo and", &mut log);
        let want = "1970-01-01T00:00:00.000000000Z stderr F one\n1970-01-01T00:00:00.000000000Z stderr F \n\
                    1970-01-01T00:00:00.000000000Z stderr P two and\n";
        assert_eq!(String::from_utf8(log).unwrap(), want);
    }

    #[test]
    fn what_is_no_entry_is_none() {
        for line in
            ["", "x", "1970-01-01T00:00:00Z stdout F", "1970-01-01T00:00:00Z stdin F x", "now stdout F x"]
        {
            assert_eq!(Entry::parse(line.as_bytes()), None, "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(
            bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..300),
            nanos in 0..4_000_000_000_000_000_000u64,
        ) {
            let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos);
            let mut log = vec![];
            encode(time, Stream::Stdout, &bytes, &mut log);
            let mut got = vec![];
            for line in log.split_inclusive(|byte| *byte == b'\n') {
                let entry = Entry::parse(line.strip_suffix(b"\n").unwrap()).unwrap();
                prop_assert_eq!((entry.time, entry.stream), (time, Stream::Stdout));
                got.extend_from_slice(entry.text);
                got.extend(entry.whole.then_some(b'\n'));
            }
            prop_assert_eq!(got, bytes);
        }

        #[test]
        fn no_line_is_too_strange(line in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = Entry::parse(&line);
        }
    }
}

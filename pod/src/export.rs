//! The files of an app as they come out of its pod ([`hull_agent_protocol::export`]). The guest of a VM pod says
//! what it likes: every head is checked, and what came whole is known.

use std::io::{self, Read, Take};

use hull_agent_protocol::export::HEAD_MAX;
pub use hull_agent_protocol::export::{Entry, EntryKind};
use hull_errors::Doing;

use crate::{Error, Kind};

/// Most bytes that an app's files may have together, heads included: 64 GiB. Only a guest that makes them up has more.
pub const TOTAL_MAX: u64 = 64 << 30;

/// Reads entries, one after the other.
#[derive(Debug)]
pub struct Entries<R> {
    source: Take<R>,
    /// Of the last entry's content.
    left: u64,
}

impl<R: Read> Entries<R> {
    /// Reads from `source`.
    pub fn new(source: R) -> Self {
        Self { source: source.take(TOTAL_MAX), left: 0 }
    }

    /// The next entry; `None` after the last. What was not read of the one before is passed over.
    ///
    /// # Errors
    /// [`Kind::BadFile`]: what came is no entry, is too much, or ended before its end.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, Error> {
        let doing = || "understand the files of the app".to_owned();
        let skipped = io::copy(&mut self.content(), &mut io::sink());
        skipped.doing(Kind::BadFile, doing)?;
        if self.left > 0 {
            return Err(Error::new(Kind::BadFile, format!("{}: they ended in the middle", doing())));
        }
        let mut len = [0; 4];
        self.source.read_exact(&mut len).doing(Kind::BadFile, doing)?;
        let len = u32::from_le_bytes(len) as usize;
        if len == 0 {
            return Ok(None);
        }
        if len > HEAD_MAX {
            return Err(Error::new(Kind::BadFile, format!("{}: a head of {len} bytes", doing())));
        }
        let mut head = vec![0; len];
        self.source.read_exact(&mut head).doing(Kind::BadFile, doing)?;
        let entry = Entry::decode(&head).doing(Kind::BadFile, doing)?;
        self.left = if let EntryKind::File { size } = entry.kind { size } else { 0 };
        Ok(Some(entry))
    }

    /// The content of the last entry. Ends early only where the source does.
    pub fn content(&mut self) -> impl Read + '_ {
        Content(self)
    }
}

struct Content<'a, R>(&'a mut Entries<R>);

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.0.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.0.source.read(&mut buffer[..room])?;
        self.0.left -= count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(path: &str, size: u64) -> Entry {
        let kind = EntryKind::File { size };
        Entry { path: path.into(), kind, mode: 0o644, uid: 0, gid: 0, modified: 0 }
    }

    #[test]
    fn entries_come_with_their_content_and_an_end() {
        let mut bytes = vec![];
        entry("a", 3).encode(&mut bytes).unwrap();
        bytes.extend(b"abc");
        entry("b", 2).encode(&mut bytes).unwrap();
        bytes.extend(b"de");
        let whole = [&bytes[..], &[0; 4]].concat();
        let mut entries = Entries::new(&whole[..]);
        assert_eq!(entries.next_entry().unwrap(), Some(entry("a", 3)));
        assert_eq!(entries.next_entry().unwrap(), Some(entry("b", 2)), "what nobody reads is passed over");
        let mut text = String::new();
        entries.content().read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), entries.next_entry().unwrap()), ("de", None));
        for cut in [bytes.len(), bytes.len() - 1, 2, 10] {
            let mut entries = Entries::new(&bytes[..cut]);
            let end = loop {
                match entries.next_entry() {
                    Ok(Some(_)) => (),
                    other => break other,
                }
            };
            assert!(end.is_err(), "cut at {cut}");
        }
    }

    proptest! {
        #[test]
        fn nothing_is_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut entries = Entries::new(&bytes[..]);
            while let Ok(Some(_)) = entries.next_entry() {}
        }
    }
}

//! Where each member of an archive lies, links resolved inside only.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::BufReader;

use hull_converter_protocol::{Kind, MEMBERS_MAX, Member, Place, Window, shown};
use hull_errors::Doing;

use crate::Error;
use crate::tar_stream::{EntryKind, TarStream};
use crate::tree::TreePath;

/// Enough for a header, and for the extended header before it.
const HEADER_BUFFER_SIZE: usize = 4096;

/// Reads the headers of an uncompressed archive; contents are skipped, not read.
pub(crate) fn list(name: &str, file: &File) -> Result<Vec<Member>, Error> {
    let length = file.metadata().doing(Kind::Host, || format!("look at {name}"))?.len();
    let mut listing = Listing { name, length, members: Vec::new(), seen: BTreeSet::new() };
    let mut position = 0;
    loop {
        let window = Window::new(file, position, length);
        let input = BufReader::with_capacity(HEADER_BUFFER_SIZE, window);
        let mut tar = TarStream::starting_at(position, input, name);
        let Some(entry) = tar.next_entry()? else { return Ok(listing.members) };
        position = listing.add(&entry.path, entry.kind, tar.position())?;
    }
}

struct Listing<'a> {
    name: &'a str,
    length: u64,
    members: Vec<Member>,
    seen: BTreeSet<String>,
}

impl Listing<'_> {
    /// Adds the entry whose content begins at `start`; returns where the next one's header does.
    fn add(&mut self, path: &[u8], kind: EntryKind, start: u64) -> Result<u64, Error> {
        let path = self.normal(path)?;
        let mut next = start;
        let place = match kind {
            EntryKind::Directory => return Ok(next),
            EntryKind::File(content) => {
                let size = content.whole_size().ok_or_else(|| self.wrong(&path, "is sparse"))?;
                next = end_of(start, size, self.length).ok_or_else(|| self.wrong(&path, "is truncated"))?;
                Place::File { start, size }
            }
            EntryKind::HardLink(target) => Place::Link(self.normal(&target)?),
            EntryKind::Symlink(target) => Place::Link(self.beside(&path, &target)?),
            _ => return Err(self.wrong(&path, "is a device")),
        };
        if self.members.len() == MEMBERS_MAX {
            return Err(self.wrong(&path, &format!("is one of more than {MEMBERS_MAX} members")));
        }
        if !self.seen.insert(path.clone()) {
            return Err(self.wrong(&path, "is in the archive twice"));
        }
        self.members.push(Member { path, place });
        Ok(next)
    }

    fn normal(&self, path: &[u8]) -> Result<String, Error> {
        let path =
            TreePath::parse(path).map_err(|text| self.wrong(&shown(path), &format!("is refused: {text}")))?;
        Ok(path.to_string())
    }

    /// Where a symbolic link leads. Only the archive counts: what leads out of it is refused.
    fn beside(&self, link: &str, target: &[u8]) -> Result<String, Error> {
        let leads_out =
            || self.wrong(link, &format!("is a link that leads out of the archive, to `{}`", shown(target)));
        if target.starts_with(b"/") {
            return Err(leads_out());
        }
        let mut parts: Vec<&[u8]> = link.as_bytes().split(|b| *b == b'/').collect();
        parts.pop();
        for part in target.split(|b| *b == b'/') {
            match part {
                b"" | b"." => (),
                b".." => drop(parts.pop().ok_or_else(leads_out)?),
                part => parts.push(part),
            }
        }
        self.normal(&parts.join(&b'/'))
    }

    fn wrong(&self, path: &str, text: &str) -> Error {
        Error::new(Kind::Corrupt, format!("read {}: member `{path}` {text}", self.name))
    }
}

/// Where the block after a content begins; `None` if the content is not all there.
fn end_of(start: u64, size: u64, length: u64) -> Option<u64> {
    let end = start.checked_add(size).filter(|end| *end <= length)?;
    end.checked_next_multiple_of(512)
}

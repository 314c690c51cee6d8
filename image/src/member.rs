//! An archive as a box of named files: where each member lies, links followed inside only.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;

use hull_errors::Doing;

use crate::error::shown;
use crate::tar_stream::{EntryKind, TarStream};
use crate::tree::TreePath;
use crate::{Error, Kind};

/// Most members of an archive that holds images: layers, their configurations, folders.
const MEMBERS_MAX: usize = 1 << 14;

/// Most links that are followed to a member.
const HOPS_MAX: usize = 8;

/// Enough for a header, and for the extended header before it.
const HEADER_BUFFER_SIZE: usize = 4096;

/// An uncompressed tar archive whose headers were read.
pub(crate) struct Archive {
    file: File,
    name: String,
    members: BTreeMap<String, Member>,
}

enum Member {
    File {
        start: u64,
        size: u64,
    },
    /// Where the link leads, from the archive's top.
    Link(String),
}

impl Archive {
    /// Reads the headers; contents are skipped, not read. `name` is for errors.
    pub(crate) fn open_file(file: File, name: &str) -> Result<Self, Error> {
        let length = file.metadata().doing(Kind::Host, || format!("look at {name}"))?.len();
        let mut archive = Self { file, name: name.to_owned(), members: BTreeMap::new() };
        let mut position = 0;
        loop {
            let window = Window { file: &archive.file, position, end: length };
            let input = BufReader::with_capacity(HEADER_BUFFER_SIZE, window);
            let mut tar = TarStream::starting_at(position, input, name);
            let Some(entry) = tar.next_entry()? else { return Ok(archive) };
            position = tar.position();
            let path = archive.normal(&entry.path)?;
            let member = match entry.kind {
                EntryKind::Directory => continue,
                EntryKind::File(content) => {
                    let start = position;
                    position = end_of(start, content.size(), length)
                        .ok_or_else(|| archive.wrong(&path, "is truncated"))?;
                    Member::File {
                        start,
                        size: content.whole_size().ok_or_else(|| archive.wrong(&path, "is sparse"))?,
                    }
                }
                EntryKind::HardLink(target) => Member::Link(archive.normal(&target)?),
                EntryKind::Symlink(target) => Member::Link(archive.beside(&path, &target)?),
                _ => return Err(archive.wrong(&path, "is a device")),
            };
            if archive.members.len() == MEMBERS_MAX {
                return Err(archive.wrong(&path, &format!("is one of more than {MEMBERS_MAX} members")));
            }
            if archive.members.insert(path.clone(), member).is_some() {
                return Err(archive.wrong(&path, "is in the archive twice"));
            }
        }
    }

    /// The content and size of a member, if there is one of that name.
    pub(crate) fn open(&self, path: &str) -> Result<Option<(Window<'_>, u64)>, Error> {
        let mut path = self.normal(path.as_bytes())?;
        for _ in 0..HOPS_MAX {
            match self.members.get(&path) {
                None => return Ok(None),
                Some(Member::Link(target)) => path.clone_from(target),
                Some(Member::File { start, size }) => {
                    let window = Window { file: &self.file, position: *start, end: *start + *size };
                    return Ok(Some((window, *size)));
                }
            }
        }
        Err(self.wrong(&path, &format!("is a link over more than {HOPS_MAX} others")))
    }

    /// A whole member, for one that is known to be short.
    pub(crate) fn document(&self, path: &str, max: u64) -> Result<Option<Vec<u8>>, Error> {
        let Some((mut window, size)) = self.open(path)? else { return Ok(None) };
        if size > max {
            let text = format!("read `{path}` of {self}: {size} bytes, at most {max} are accepted");
            return Err(Error::new(Kind::TooLarge, text));
        }
        let mut bytes = Vec::new();
        window.read_to_end(&mut bytes).doing(Kind::Host, || format!("read `{path}` of {self}"))?;
        Ok(Some(bytes))
    }

    /// Whether there is a member of that name, or one inside a folder of that name.
    pub(crate) fn contains(&self, path: &str) -> bool {
        let inside = |member: &String| member.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'));
        self.members.contains_key(path) || self.members.keys().any(inside)
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

impl fmt::Display for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Where the block after a content begins; `None` if the content is not all there.
fn end_of(start: u64, size: u64, length: u64) -> Option<u64> {
    let end = start.checked_add(size).filter(|end| *end <= length)?;
    end.checked_next_multiple_of(512)
}

/// A part of a file as a reader of its own.
pub(crate) struct Window<'a> {
    file: &'a File,
    position: u64,
    end: u64,
}

impl<'a> Window<'a> {
    /// All of a file, without moving the position that its descriptor has.
    pub(crate) fn whole(file: &'a File) -> Self {
        Self { file, position: 0, end: u64::MAX }
    }
}

impl Read for Window<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.position)).unwrap_or(usize::MAX);
        let length = buffer.len().min(left);
        let count = self.file.read_at(&mut buffer[..length], self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}

//! Reads a tar archive entry by entry, in one pass, believing nothing.
//!
//! The `tar` crate decodes the fields of a header; the walk from header to header is ours, because
//! here every length has a bound before memory is spent on it, and because what two readers would
//! understand differently is refused, not guessed: a link with content, a name given twice.
//! Whatever goes wrong names the entry.

mod pax;
mod sparse;
#[cfg(test)]
mod tests;

use std::io::{self, BufRead};

use hull_converter_protocol::{Kind, UNCOMPRESSED_MAX, shown};
use tar::Header;

use crate::Error;
use crate::attributes::{Attributes, DeviceNumber, NAME_MAX, PATH_MAX, Time, Xattr};
use crate::error::reading;
use pax::{EXTENDED_MAX, Pax};
pub(crate) use sparse::Content;

const BLOCK: usize = 512;

/// One member of an archive.
#[derive(Debug)]
pub(crate) struct Entry {
    /// As the archive has it; not empty, no NUL inside.
    pub(crate) path: Vec<u8>,
    pub(crate) kind: EntryKind,
    pub(crate) attributes: Attributes,
    /// Sorted by name, each name once.
    pub(crate) xattrs: Vec<Xattr>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum EntryKind {
    Directory,
    /// The bytes follow in the stream.
    File(Content),
    Symlink(Vec<u8>),
    HardLink(Vec<u8>),
    CharacterDevice(DeviceNumber),
    BlockDevice(DeviceNumber),
    Fifo,
}

/// An archive that is being read.
pub(crate) struct TarStream<R> {
    input: R,
    /// Named in errors.
    archive: String,
    /// The path of the current entry; empty before the first. Named in errors.
    current: Vec<u8>,
    /// Bytes of the current entry's content that were not read.
    remaining: u64,
    /// Bytes after the content up to the next block.
    padding: u64,
    /// Bytes read so far: where the next one lies in the archive.
    position: u64,
}

/// What extension headers said about the entry to come.
#[derive(Default)]
struct Extensions {
    pax: Pax,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

impl<R: BufRead> TarStream<R> {
    pub(crate) fn new(input: R, archive: impl Into<String>) -> Self {
        Self::starting_at(0, input, archive)
    }

    /// Reads from a header in the middle of an archive.
    pub(crate) fn starting_at(position: u64, input: R, archive: impl Into<String>) -> Self {
        Self { input, archive: archive.into(), current: Vec::new(), remaining: 0, padding: 0, position }
    }

    /// The next member; what is left of the current one's content is skipped.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>, Error> {
        let mut extensions = Extensions::default();
        let mut extended = false;
        loop {
            self.skip_content()?;
            let Some(header) = self.header()? else {
                if extended {
                    return Err(self.corrupt("the archive ends after an extended header"));
                }
                return Ok(None);
            };
            let name = header.path_bytes().into_owned();
            let in_entry = |text: String| self.corrupt_entry(&name, &text);
            let size = header.entry_size().map_err(|e| in_entry(format!("its size: {e}")))?;
            match header.entry_type().as_byte() {
                b'x' => extensions
                    .pax
                    .add(&self.extension(&name, size)?)
                    .map_err(|e| self.corrupt_entry(&name, &e))?,
                b'L' => extensions.long_name = Some(until_nul(self.extension(&name, size)?)),
                b'K' => extensions.long_link = Some(until_nul(self.extension(&name, size)?)),
                b'g' => {
                    pax::check_global(&self.extension(&name, size)?)
                        .map_err(|e| self.corrupt_entry(&name, &e))?;
                    continue;
                }
                _ => return self.entry(&header, size, extensions).map(Some),
            }
            extended = true;
        }
    }

    /// Where the content that comes next lies in the archive.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// The next piece of the current entry's content, at most `max` bytes; empty at its end.
    pub(crate) fn content(&mut self, max: u64) -> Result<&[u8], Error> {
        let max = max.min(self.remaining);
        if max == 0 {
            return Ok(&[]);
        }
        // Asked twice, because a borrow that is returned on one path only is held on all.
        let got = self.input.fill_buf().map(<[u8]>::len);
        match got {
            Ok(0) => Err(self.truncated()),
            Ok(_) => {
                let bytes = self.input.fill_buf().unwrap_or_default();
                Ok(&bytes[..bytes.len().min(usize::try_from(max).unwrap_or(usize::MAX))])
            }
            Err(e) => Err(self.unreadable(e)),
        }
    }

    /// Says how much of what [`Self::content`] gave was used.
    pub(crate) fn consume(&mut self, count: usize) {
        self.input.consume(count);
        self.position += count as u64;
        self.remaining -= count as u64;
    }

    /// The current entry's whole content, for one that is known to be short.
    pub(crate) fn short_content(&mut self, max: u64) -> Result<Vec<u8>, Error> {
        if self.remaining > max {
            let text = format!(
                "{}: a document of {} bytes, at most {max} are accepted",
                self.archive, self.remaining
            );
            return Err(Error::new(Kind::TooLarge, text));
        }
        let mut bytes = Vec::new();
        loop {
            let piece = self.content(u64::MAX)?;
            if piece.is_empty() {
                return Ok(bytes);
            }
            bytes.extend_from_slice(piece);
            let count = piece.len();
            self.consume(count);
        }
    }

    /// Reads what follows the archive's end, and gives the input back.
    pub(crate) fn finish(mut self) -> Result<R, Error> {
        loop {
            match self.input.fill_buf() {
                Ok([]) => return Ok(self.input),
                Ok(bytes) => {
                    let count = bytes.len();
                    self.input.consume(count);
                }
                Err(e) => return Err(self.unreadable(e)),
            }
        }
    }

    fn entry(&mut self, header: &Header, size: u64, mut said: Extensions) -> Result<Entry, Error> {
        let twice = said.long_name.is_some() && (said.pax.path.is_some() || said.pax.sparse.name.is_some())
            || said.long_link.is_some() && said.pax.link_path.is_some();
        let path = said.pax.sparse.name.take().or(said.pax.path.take()).or(said.long_name.take());
        let path = path.unwrap_or_else(|| header.path_bytes().into_owned());
        if twice {
            return Err(self.corrupt_entry(&path, "its name is given twice, in two formats"));
        }
        self.check_name(&path, &path)?;
        path.clone_into(&mut self.current);
        let stored = said.pax.size.unwrap_or(size);
        let attributes = attributes(header, &said.pax).map_err(|e| self.corrupt_entry(&path, &e))?;
        let mut link = said.pax.link_path.take().or(said.long_link.take());
        let mut link =
            || link.take().or(header.link_name_bytes().map(|n| n.into_owned())).unwrap_or_default();
        let kind = match header.entry_type().as_byte() {
            b'0' | b'7' => EntryKind::File(self.file(header, stored, &said.pax, &path)?),
            // The oldest archives have no type for directories.
            0 if path.ends_with(b"/") => EntryKind::Directory,
            0 | b'S' => EntryKind::File(self.file(header, stored, &said.pax, &path)?),
            b'1' => EntryKind::HardLink(link()),
            b'2' => EntryKind::Symlink(link()),
            b'3' => EntryKind::CharacterDevice(self.device(header, &path)?),
            b'4' => EntryKind::BlockDevice(self.device(header, &path)?),
            b'5' => EntryKind::Directory,
            b'6' => EntryKind::Fifo,
            other => {
                let text = format!("its type `{}` is unknown", other.escape_ascii());
                return Err(self.corrupt_entry(&path, &text));
            }
        };
        match &kind {
            EntryKind::File(_) => (),
            _ if stored != 0 => {
                let text = format!("{stored} bytes of content on something that is no file");
                return Err(self.corrupt_entry(&path, &text));
            }
            EntryKind::Symlink(target) | EntryKind::HardLink(target) => self.check_name(&path, target)?,
            _ => (),
        }
        let xattrs = std::mem::take(&mut said.pax.xattrs).into_iter();
        let xattrs = xattrs.map(|(name, value)| Xattr { name: name.into(), value: value.into() }).collect();
        Ok(Entry { path, kind, attributes, xattrs })
    }

    fn file(&mut self, header: &Header, stored: u64, pax: &Pax, path: &[u8]) -> Result<Content, Error> {
        if stored > UNCOMPRESSED_MAX {
            let text = format!("{stored} bytes, at most {UNCOMPRESSED_MAX} are accepted");
            return Err(self.corrupt_entry(path, &text));
        }
        let pax_sparse = pax.sparse.major.is_some() || pax.sparse.map.is_some() || pax.sparse.is_version_0_0;
        self.remaining = stored;
        self.padding = stored.wrapping_neg() % BLOCK as u64;
        let content = if header.entry_type().as_byte() == b'S' {
            let position = &mut self.position;
            let input = &mut self.input;
            sparse::gnu(header, stored, |block| {
                input.read_exact(block)?;
                *position += BLOCK as u64;
                Ok(())
            })
        } else if pax_sparse {
            sparse::pax(&pax.sparse, stored, &mut self.input).map(|read| {
                read.map(|(content, taken)| {
                    self.remaining -= taken;
                    self.position += taken;
                    content
                })
            })
        } else {
            Ok(Ok(Content::whole(stored)))
        };
        match content {
            Ok(Ok(content)) => Ok(content),
            Ok(Err(e)) => Err(self.unreadable(e)),
            Err(text) => Err(self.corrupt_entry(path, &text)),
        }
    }

    fn device(&self, header: &Header, path: &[u8]) -> Result<DeviceNumber, Error> {
        let part = |number: io::Result<Option<u32>>| number.ok().map(Option::unwrap_or_default);
        part(header.device_major())
            .zip(part(header.device_minor()))
            .and_then(|(major, minor)| DeviceNumber::new(major, minor))
            .ok_or_else(|| self.corrupt_entry(path, "its device number is none of Linux"))
    }

    /// Checks a path or a link's target of the entry `path`.
    fn check_name(&self, path: &[u8], name: &[u8]) -> Result<(), Error> {
        let what = if std::ptr::eq(path, name) { "its name" } else { "its target" };
        let wrong = if name.is_empty() {
            "is empty".into()
        } else if name.contains(&0) {
            "has a NUL inside".into()
        } else if name.len() > PATH_MAX {
            format!("has {} bytes, at most {PATH_MAX} are possible", name.len())
        } else if name.split(|b| *b == b'/').any(|part| part.len() > NAME_MAX) {
            format!("has a part of more than {NAME_MAX} bytes")
        } else {
            return Ok(());
        };
        Err(self.corrupt_entry(path, &format!("{what} {wrong}")))
    }

    /// The next header, or `None` at the archive's end: two blocks of zeros, or the end of the input.
    fn header(&mut self) -> Result<Option<Header>, Error> {
        let start = self.position;
        let mut header = Header::new_old();
        if !self.block(header.as_mut_bytes())? {
            return Ok(None);
        }
        if header.as_bytes().iter().all(|b| *b == 0) {
            let mut second = [0; BLOCK];
            if self.block(&mut second)? && second != [0; BLOCK] {
                return Err(self.corrupt("a block of zeros in the middle of the archive"));
            }
            return Ok(None);
        }
        let sum = header.as_bytes().iter().enumerate();
        // The checksum field counts as spaces (POSIX.1-2017, `pax`, "ustar Interchange Format").
        let sum = sum.map(|(i, b)| if (148..156).contains(&i) { 32 } else { u32::from(*b) }).sum::<u32>();
        if header.cksum().ok() != Some(sum) {
            return Err(self.corrupt_at(start, "no tar header where one must be: the checksum is wrong"));
        }
        Ok(Some(header))
    }

    /// Reads a block; `false` if the input ends before its first byte.
    fn block(&mut self, block: &mut [u8; BLOCK]) -> Result<bool, Error> {
        let mut filled = 0;
        while filled < BLOCK {
            match self.input.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(false),
                Ok(0) => return Err(self.truncated()),
                Ok(count) => filled += count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => (),
                Err(e) => return Err(self.unreadable(e)),
            }
        }
        self.position += BLOCK as u64;
        Ok(true)
    }

    /// The content of an extension header, which lives in memory.
    fn extension(&mut self, name: &[u8], size: u64) -> Result<Vec<u8>, Error> {
        if size > EXTENDED_MAX {
            let text = format!("an extended header of {size} bytes, at most {EXTENDED_MAX} are accepted");
            return Err(self.corrupt_entry(name, &text));
        }
        self.remaining = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
        self.short_content(EXTENDED_MAX)
    }

    fn skip_content(&mut self) -> Result<(), Error> {
        self.remaining += std::mem::take(&mut self.padding);
        while self.remaining > 0 {
            let count = self.content(u64::MAX)?.len();
            self.consume(count);
        }
        Ok(())
    }

    fn truncated(&self) -> Error {
        self.corrupt("the archive ends in the middle of an entry")
    }

    fn corrupt(&self, text: &str) -> Error {
        self.corrupt_at(self.position, text)
    }

    fn corrupt_at(&self, position: u64, text: &str) -> Error {
        Error::new(Kind::Corrupt, format!("{}: {text}", self.reading_at(position)))
    }

    fn reading_at(&self, position: u64) -> String {
        let place = match (&*self.current, self.remaining) {
            (b"", _) => String::new(),
            (path, 0) => format!(", after entry `{}`", shown(path)),
            (path, _) => format!(", in entry `{}`", shown(path)),
        };
        format!("read {} at byte {position}{place}", self.archive)
    }

    fn corrupt_entry(&self, path: &[u8], text: &str) -> Error {
        Error::new(Kind::Corrupt, format!("read {}: entry `{}`: {text}", self.archive, shown(path)))
    }

    fn unreadable(&self, error: io::Error) -> Error {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return self.truncated();
        }
        Error::because(reading(&error), self.reading_at(self.position), error)
    }
}

/// For the fuzzer: a pax header, as that of one entry and as that of all.
pub(crate) fn fuzz_pax(bytes: &[u8]) {
    let _ = Pax::default().add(bytes); // Refusing is right; panicking is not.
    let _ = pax::check_global(bytes); // Likewise.
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    bytes.truncate(end);
    bytes
}

fn attributes(header: &Header, pax: &Pax) -> Result<Attributes, String> {
    let id = |what: &str, from_pax: Option<u64>, field: io::Result<u64>| {
        let id = from_pax.map_or(field, Ok).map_err(|e| format!("its {what}: {e}"))?;
        // The largest 32-bit number means "no id" to the kernel.
        u32::try_from(id)
            .ok()
            .filter(|id| *id != u32::MAX)
            .ok_or_else(|| format!("its {what} {id} is too large"))
    };
    let modified = match pax.modified {
        Some(time) => time,
        // A negative number arrives as its two's complement.
        None => Time {
            seconds: header.mtime().map_err(|e| format!("its time: {e}"))?.cast_signed(),
            nanoseconds: 0,
        },
    };
    let mode = header.mode().map_err(|e| format!("its mode: {e}"))?;
    Ok(Attributes {
        permissions: u16::try_from(mode & 0o7777).expect("twelve bits fit"),
        uid: id("owner", pax.uid, header.uid())?,
        gid: id("group", pax.gid, header.gid())?,
        modified,
    })
}

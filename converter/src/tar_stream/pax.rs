//! The extended headers of the pax format (POSIX.1-2017, `pax`, "pax Extended Header").

use std::collections::BTreeMap;

use crate::attributes::{Time, XATTR_VALUE_MAX, XATTRS_TOTAL_MAX};

/// Longest extended header, in bytes: room for every attribute a file may have, and its path.
pub(super) const EXTENDED_MAX: u64 = 1 << 20;

/// What extended headers say about the entry after them.
#[derive(Debug, Default)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link_path: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) modified: Option<Time>,
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Bytes of all names and values that were ever set.
    xattrs_total: usize,
    pub(super) sparse: PaxSparse,
}

/// The sparse formats that GNU tar puts into pax headers (its manual, "Sparse Formats").
#[derive(Debug, Default)]
pub(super) struct PaxSparse {
    pub(super) major: Option<u64>,
    pub(super) minor: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    pub(super) real_size: Option<u64>,
    pub(super) map: Option<Vec<u8>>,
    /// Format 0.0 repeats its keywords for each segment.
    pub(super) is_version_0_0: bool,
}

impl Pax {
    /// Adds the records of one more extended header; later records win.
    pub(super) fn add(&mut self, header: &[u8]) -> Result<(), String> {
        let mut rest = header;
        while !rest.is_empty() {
            let record;
            (record, rest) = Record::split_off(rest)?;
            self.set(record.keyword, record.value)?;
        }
        Ok(())
    }

    fn set(&mut self, keyword: &[u8], value: &[u8]) -> Result<(), String> {
        let text = || shown_keyword(keyword);
        let number =
            || decimal(value).ok_or_else(|| format!("the {} of its pax header is no number", text()));
        match keyword {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link_path = Some(value.to_vec()),
            b"size" => self.size = Some(number()?),
            b"uid" => self.uid = Some(number()?),
            b"gid" => self.gid = Some(number()?),
            b"mtime" => {
                self.modified = Some(time(value).ok_or("the mtime of its pax header is no time")?);
            }
            b"GNU.sparse.major" => self.sparse.major = Some(number()?),
            b"GNU.sparse.minor" => self.sparse.minor = Some(number()?),
            b"GNU.sparse.name" => self.sparse.name = Some(value.to_vec()),
            b"GNU.sparse.realsize" | b"GNU.sparse.size" => self.sparse.real_size = Some(number()?),
            b"GNU.sparse.map" => self.sparse.map = Some(value.to_vec()),
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => self.sparse.is_version_0_0 = true,
            _ => {
                if let Some(name) = keyword.strip_prefix(b"SCHILY.xattr.") {
                    self.set_xattr(name, value)?;
                }
                // Everything else (access times, user names, comments) has no place in an image.
            }
        }
        Ok(())
    }

    fn set_xattr(&mut self, name: &[u8], value: &[u8]) -> Result<(), String> {
        if value.len() > XATTR_VALUE_MAX {
            return Err(format!(
                "an extended attribute of {} bytes, at most {XATTR_VALUE_MAX} fit",
                value.len()
            ));
        }
        // What a repeated name replaces counts too: summing up what is there each time would be quadratic.
        self.xattrs_total += name.len() + value.len();
        self.xattrs.insert(name.to_vec(), value.to_vec());
        if self.xattrs_total > XATTRS_TOTAL_MAX {
            return Err(format!("more than {XATTRS_TOTAL_MAX} bytes of extended attributes"));
        }
        Ok(())
    }
}

/// Refuses a global header that would change how entries are read: readers disagree on those.
pub(super) fn check_global(header: &[u8]) -> Result<(), String> {
    let mut rest = header;
    while !rest.is_empty() {
        let record;
        (record, rest) = Record::split_off(rest)?;
        if !matches!(record.keyword, b"comment" | b"mtime" | b"atime" | b"ctime" | b"charset" | b"hdrcharset")
        {
            return Err(format!("a global pax header sets {}", shown_keyword(record.keyword)));
        }
    }
    Ok(())
}

/// `LENGTH KEYWORD=VALUE\n`, where the length counts the whole record. The value may hold any byte.
struct Record<'a> {
    keyword: &'a [u8],
    value: &'a [u8],
}

impl<'a> Record<'a> {
    /// The first record, and what follows it.
    fn split_off(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), String> {
        let split = || {
            let space = bytes.iter().take(20).position(|b| *b == b' ')?;
            let length = usize::try_from(decimal(&bytes[..space])?).ok()?;
            let body = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
            let equals = body.iter().position(|b| *b == b'=')?;
            let record = Self { keyword: &body[..equals], value: &body[equals + 1..] };
            Some((record, &bytes[length..]))
        };
        split().ok_or_else(|| "a malformed pax header".to_owned())
    }
}

/// Digits and nothing else.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// `-12.5` and the like; digits after the ninth are dropped.
fn time(text: &[u8]) -> Option<Time> {
    let (negative, text) = text.strip_prefix(b"-").map_or((false, text), |rest| (true, rest));
    let point = text.iter().position(|b| *b == b'.').unwrap_or(text.len());
    let whole = i64::try_from(decimal(&text[..point])?).ok()?;
    let fraction = text.get(point + 1..).unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = fraction.iter().copied().chain(std::iter::repeat(b'0')).take(9);
    let nanoseconds = digits.fold(0, |sum: u32, digit| sum * 10 + u32::from(digit - b'0'));
    Some(match (negative, nanoseconds) {
        (false, _) => Time { seconds: whole, nanoseconds },
        (true, 0) => Time { seconds: -whole, nanoseconds },
        (true, _) => Time { seconds: -whole - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}

fn shown_keyword(keyword: &[u8]) -> String {
    format!("`{}`", hull_converter_protocol::shown(keyword))
}

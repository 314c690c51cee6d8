//! How an app's files leave the pod: entry by entry, each a head and, where it is a regular file, as many bytes as
//! the head says. A head is its length as a little-endian `u32` and a JSON value; one of length 0 ends them all.

use serde::{Deserialize, Serialize};

use crate::Violation;

/// Longest head, in bytes: two paths as numbers in text, and then some.
pub const HEAD_MAX: usize = 64 << 10;

/// Longest path, in bytes (`PATH_MAX` of limits.h, less the NUL).
pub const PATH_MAX: usize = 4095;

/// What lies at one path of an app's root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// From the root, without a slash at its begin or end; empty: the root itself.
    pub path: Vec<u8>,
    pub kind: EntryKind,
    /// The permissions: the low twelve bits of `st_mode` (inode(7)).
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since the epoch, when its content was last changed.
    pub modified: u64,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum EntryKind {
    Directory,
    /// So many bytes follow the head.
    File {
        size: u64,
    },
    Symlink {
        target: Vec<u8>,
    },
    /// Another name of an entry before it, by its path.
    HardLink {
        target: Vec<u8>,
    },
    Character {
        major: u32,
        minor: u32,
    },
    Block {
        major: u32,
        minor: u32,
    },
    Fifo,
}

impl Entry {
    /// Appends the head to `out`.
    ///
    /// # Errors
    /// It would be refused at the other end.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), Violation> {
        self.check()?;
        let json = serde_json::to_vec(self).map_err(|why| Violation(format!("encode an entry: {why}")))?;
        let len = u32::try_from(json.len()).ok().filter(|_| json.len() <= HEAD_MAX);
        let len = len.ok_or_else(|| Violation(format!("a head of {} bytes", json.len())))?;
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&json);
        Ok(())
    }

    /// Reads a head, without its length.
    ///
    /// # Errors
    /// What is no entry, or leads out of the root.
    pub fn decode(head: &[u8]) -> Result<Self, Violation> {
        let entry: Self =
            serde_json::from_slice(head).map_err(|why| Violation(format!("malformed entry: {why}")))?;
        entry.check()?;
        Ok(entry)
    }

    fn check(&self) -> Result<(), Violation> {
        check_path(&self.path, self.kind == EntryKind::Directory)?;
        match &self.kind {
            EntryKind::HardLink { target } => check_path(target, false)?,
            EntryKind::Symlink { target }
                if target.is_empty() || target.len() > PATH_MAX || target.contains(&0) =>
            {
                return Err(Violation("a symbolic link that no file system has".into()));
            }
            _ => (),
        }
        match self.mode & !0o7777 {
            0 => Ok(()),
            _ => Err(Violation(format!("an entry of mode {:o}", self.mode))),
        }
    }
}

fn check_path(path: &[u8], may_be_root: bool) -> Result<(), Violation> {
    if path.is_empty() && may_be_root {
        return Ok(());
    }
    let plain = |name: &[u8]| !matches!(name, b"" | b"." | b"..") && !name.contains(&0);
    match path.len() <= PATH_MAX && path.split(|byte| *byte == b'/').all(plain) {
        true => Ok(()),
        false => Err(Violation(format!("an entry at {:?}", String::from_utf8_lossy(path)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, kind: EntryKind) -> Entry {
        Entry { path: path.into(), kind, mode: 0o755, uid: 0, gid: 7, modified: 9 }
    }

    #[test]
    fn what_is_written_is_read() {
        let links = [b"a".to_vec(), b"\xff".to_vec()];
        for kind in [
            EntryKind::Directory,
            EntryKind::File { size: u64::MAX },
            EntryKind::Symlink { target: links[1].clone() },
            EntryKind::HardLink { target: links[0].clone() },
            EntryKind::Character { major: 1, minor: 3 },
            EntryKind::Fifo,
        ] {
            let (entry, mut out) = (entry("etc/x", kind), vec![]);
            entry.encode(&mut out).unwrap();
            let (len, head) = out.split_first_chunk::<4>().unwrap();
            assert_eq!(u32::from_le_bytes(*len) as usize, head.len());
            assert_eq!(Entry::decode(head).unwrap(), entry);
        }
    }

    #[test]
    fn nothing_leads_out_of_the_root() {
        for path in ["/etc", "etc/", "a//b", "..", "a/../b", ".", "a\0b", &"x".repeat(PATH_MAX + 1)] {
            assert!(entry(path, EntryKind::Directory).encode(&mut vec![]).is_err(), "{path:?}");
            let link = EntryKind::HardLink { target: path.into() };
            assert!(entry("a", link).encode(&mut vec![]).is_err(), "{path:?}");
        }
        assert!(entry("", EntryKind::Directory).encode(&mut vec![]).is_ok());
        assert!(entry("", EntryKind::Fifo).encode(&mut vec![]).is_err());
        let set = Entry { mode: 0o100_644, ..entry("a", EntryKind::Fifo) };
        assert!(set.encode(&mut vec![]).is_err());
    }

    #[test]
    fn garbage_is_no_entry() {
        for bytes in [&b""[..], b"{}", b"null", b"\xff", br#"{"path":[999]}"#] {
            assert!(Entry::decode(bytes).is_err());
        }
    }
}

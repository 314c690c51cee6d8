//! An initramfs without an archive on disk: `newc` heads and the files' bytes go straight into guest RAM
//! (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::BTreeSet;
use std::fs::File;

use hull_errors::Doing;
use vm_memory::{Bytes, GuestAddress};

use crate::error::{Error, Kind};
use crate::memory::{Claimed, GuestRam};
use crate::volatile_io::{Direction, transfer};

/// Largest file, in bytes.
const FILE_SIZE_MAX: u64 = 1 << 30;
/// Longest path, in bytes; Linux' PATH_MAX.
const PATH_MAX: usize = 4096;
/// Heads and contents begin at multiples of this.
const ALIGNMENT: u64 = 4;
const HEAD_SIZE: usize = 110;
const TRAILER: &str = "TRAILER!!!";

const TYPE_DIRECTORY: u32 = 0o040_000;
const TYPE_FILE: u32 = 0o100_000;

/// One file of the initramfs; its parent directories are made by the archive.
#[derive(Debug)]
pub struct InitramfsFile {
    /// Path in the guest, absolute or relative to its root: `init` or `/init`.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// The contents, from the first byte to the last, whatever the file's position.
    pub file: File,
}

/// What will be written, all sizes known.
pub(crate) struct Archive<'a> {
    parts: Vec<Part<'a>>,
    size: u64,
}

struct Part<'a> {
    at: u64,
    head: Vec<u8>,
    content: Option<Content<'a>>,
}

#[derive(Clone, Copy)]
struct Content<'a> {
    file: &'a File,
    size: u64,
}

impl<'a> Archive<'a> {
    /// Lays the archive out.
    pub(crate) fn plan(files: &'a [InitramfsFile]) -> Result<Self, Error> {
        let mut archive = Self { parts: Vec::new(), size: 0 };
        let mut directories = BTreeSet::new();
        for file in files {
            let path = check_path(&file.path)?;
            for (at, _) in path.match_indices('/') {
                if directories.insert(&path[..at]) {
                    archive.push(&path[..at], TYPE_DIRECTORY | 0o755, None);
                }
            }
            let doing = || format!("read {} for the initramfs", file.path);
            let size = file.file.metadata().doing(Kind::Host, doing)?.len();
            if FILE_SIZE_MAX < size {
                return Err(Error::new(Kind::Config, format!("{}: {size} bytes are too large", doing())));
            }
            let content = Content { file: &file.file, size };
            archive.push(path, TYPE_FILE | (file.mode & 0o7777), Some(content));
        }
        archive.push(TRAILER, 0, None);
        Ok(archive)
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Writes the archive to `first` on; the RAM there must be zero.
    pub(crate) fn write(&self, ram: &GuestRam, first: u64) -> Result<(), Error> {
        for part in &self.parts {
            let at = first + part.at;
            let doing = || format!("write the initramfs at {at:#x}");
            ram.memory().write_slice(&part.head, GuestAddress(at)).doing(Kind::Host, doing)?;
            if let Some(content) = part.content {
                let at = at + part.head.len() as u64;
                let len = u32::try_from(content.size).expect("FILE_SIZE_MAX fits in 32 bits");
                let target = Claimed::new(at, len).and_then(|claim| ram.admit(claim));
                let target = target.map_err(|_| Error::new(Kind::Config, "fit the initramfs into RAM"))?;
                transfer(content.file, &[target], 0, Direction::FileToGuest).doing(Kind::Host, doing)?;
            }
        }
        Ok(())
    }

    fn push(&mut self, path: &str, mode: u32, content: Option<Content<'a>>) {
        let content_size = content.map_or(0, |content| content.size);
        let inode = self.parts.len() as u64 + 1;
        let head = head(path, mode, inode, content_size);
        let at = self.size;
        let end = at + head.len() as u64 + content_size;
        self.size = end.next_multiple_of(ALIGNMENT);
        self.parts.push(Part { at, head, content });
    }
}

/// Relative to the root, no way out, nothing the format cannot say.
fn check_path(path: &str) -> Result<&str, Error> {
    let relative = path.trim_start_matches('/');
    let good = relative.len() < PATH_MAX
        && !relative.contains('\0')
        && relative != TRAILER
        && relative.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if good {
        Ok(relative)
    } else {
        Err(Error::new(Kind::Config, format!("put {path:?} into the initramfs")))
    }
}

/// The head, the path, and the padding up to the content.
fn head(path: &str, mode: u32, inode: u64, size: u64) -> Vec<u8> {
    let links = if mode & TYPE_DIRECTORY == 0 { 1 } else { 2 };
    let name_size = path.len() as u64 + 1;
    let mut head = b"070701".to_vec();
    // Inode, mode, uid, gid, links, mtime, size, device (2), special device (2), name size, checksum.
    for field in [inode, u64::from(mode), 0, 0, links, 0, size, 0, 0, 0, 0, name_size, 0] {
        head.extend(format!("{field:08x}").bytes());
    }
    debug_assert_eq!(head.len(), HEAD_SIZE);
    head.extend(path.bytes());
    head.push(0);
    head.resize(head.len().next_multiple_of(ALIGNMENT as usize), 0);
    head
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    fn file(path: &str, content: &[u8]) -> InitramfsFile {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        InitramfsFile { path: path.to_owned(), mode: 0o755, file }
    }

    fn archive(files: &[InitramfsFile]) -> Vec<u8> {
        let archive = Archive::plan(files).unwrap();
        let ram = GuestRam::new(&crate::layout::ram_regions(32)).unwrap();
        archive.write(&ram, 0x10_0000).unwrap();
        let mut bytes = vec![0; usize::try_from(archive.size()).unwrap()];
        ram.memory().read_slice(&mut bytes, GuestAddress(0x10_0000)).unwrap();
        bytes
    }

    /// The oracle: what another implementation of the format makes of it.
    fn list(bytes: &[u8]) -> Option<String> {
        let mut cpio = Command::new("cpio")
            .args(["-t", "-v", "--quiet"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .ok()?;
        cpio.stdin.take().unwrap().write_all(bytes).unwrap();
        Some(String::from_utf8(cpio.wait_with_output().unwrap().stdout).unwrap())
    }

    #[test]
    fn parents_come_first_and_once() {
        let bytes = archive(&[file("/init", b"abcde"), file("etc/x/a", b""), file("etc/x/b", b"1")]);
        let mut at = 0;
        let mut got = Vec::new();
        while at + HEAD_SIZE <= bytes.len() {
            let field = |i: usize| {
                let from = at + 6 + i * 8;
                usize::from_str_radix(std::str::from_utf8(&bytes[from..from + 8]).unwrap(), 16).unwrap()
            };
            assert_eq!(&bytes[at..at + 6], b"070701");
            let name = &bytes[at + HEAD_SIZE..at + HEAD_SIZE + field(11) - 1];
            got.push((String::from_utf8(name.to_vec()).unwrap(), field(1), field(6)));
            at = (at + HEAD_SIZE + field(11)).next_multiple_of(4) + field(6);
            at = at.next_multiple_of(4);
        }
        let want = [
            ("init", 0o100_755, 5),
            ("etc", 0o40_755, 0),
            ("etc/x", 0o40_755, 0),
            ("etc/x/a", 0o100_755, 0),
            ("etc/x/b", 0o100_755, 1),
            (TRAILER, 0, 0),
        ];
        assert_eq!(got, want.map(|(name, mode, size)| (name.to_owned(), mode, size)));
        if let Some(listing) = list(&bytes) {
            assert!(listing.contains("-rwxr-xr-x") && listing.contains("etc/x/b"), "{listing}");
        }
    }

    #[test]
    fn paths_that_lead_elsewhere_are_refused() {
        for path in ["", "/", "../x", "a/../b", "a//b", "a/", "a\0b", "./a", TRAILER] {
            assert!(Archive::plan(&[file(path, b"")]).is_err(), "{path:?}");
        }
    }
}

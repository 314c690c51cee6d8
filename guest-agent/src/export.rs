//! An app's files on their way out of the pod, see [`hull_agent_protocol::export`]. A process of the app's cgroup
//! walks the app's root, which it cannot leave, and meets nothing that is mounted there.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Read, Write, stdout};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use hull_agent_protocol::export::{Entry, EntryKind};
use nix::sys::stat::{major, minor};

/// Bytes that are copied at once.
const CHUNK: usize = 64 << 10;

/// Writes what is at and below the root of this process to standard output.
pub(crate) fn write_all() -> io::Result<()> {
    let mut writer = Writer { out: stdout().lock(), linked: HashMap::new() };
    writer.directory(Path::new("/"))?;
    writer.out.write_all(&0u32.to_le_bytes())?;
    writer.out.flush()
}

struct Writer<W> {
    out: W,
    /// Files with several names, by device and number: where the first was.
    linked: HashMap<(u64, u64), Vec<u8>>,
}

impl<W: Write> Writer<W> {
    fn directory(&mut self, path: &Path) -> io::Result<()> {
        let metadata = fs::symlink_metadata(path)?;
        self.head(path, &metadata, EntryKind::Directory)?;
        let mut names: Vec<_> =
            fs::read_dir(path)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<_>>()?;
        names.sort_unstable();
        for name in names {
            match self.entry(&path.join(name)) {
                // The app goes on: what it has removed meanwhile is not there.
                Err(why) if why.kind() == ErrorKind::NotFound => (),
                other => other?,
            }
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path) -> io::Result<()> {
        let metadata = fs::symlink_metadata(path)?;
        let kind = metadata.file_type();
        if kind.is_dir() {
            return self.directory(path);
        }
        if metadata.nlink() > 1 {
            let first = self.linked.entry((metadata.dev(), metadata.ino()));
            let own = relative(path);
            let first = first.or_insert_with(|| own.clone());
            if *first != own {
                let target = first.clone();
                return self.head(path, &metadata, EntryKind::HardLink { target });
            }
        }
        let device = || io::Result::Ok((number(major(metadata.rdev()))?, number(minor(metadata.rdev()))?));
        if kind.is_file() {
            self.file(path)
        } else if kind.is_symlink() {
            let target = fs::read_link(path)?.as_os_str().as_bytes().to_vec();
            self.head(path, &metadata, EntryKind::Symlink { target })
        } else if kind.is_fifo() {
            self.head(path, &metadata, EntryKind::Fifo)
        } else if kind.is_char_device() {
            let (major, minor) = device()?;
            self.head(path, &metadata, EntryKind::Character { major, minor })
        } else if kind.is_block_device() {
            let (major, minor) = device()?;
            self.head(path, &metadata, EntryKind::Block { major, minor })
        } else {
            Ok(()) // A socket without its listener is nothing.
        }
    }

    /// As many bytes as the file had when it was looked at, whatever the app does to it meanwhile.
    fn file(&mut self, path: &Path) -> io::Result<()> {
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
        let file = File::options().read(true).custom_flags(flags).open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Ok(()); // It was replaced just now.
        }
        self.head(path, &metadata, EntryKind::File { size: metadata.len() })?;
        let mut content = file.take(metadata.len()).chain(io::repeat(0)).take(metadata.len());
        let mut chunk = vec![0; CHUNK];
        loop {
            let count = content.read(&mut chunk)?;
            if count == 0 {
                return Ok(());
            }
            self.out.write_all(&chunk[..count])?;
        }
    }

    fn head(&mut self, path: &Path, of: &Metadata, kind: EntryKind) -> io::Result<()> {
        let entry = Entry {
            path: relative(path),
            kind,
            mode: of.mode() & 0o7777,
            uid: of.uid(),
            gid: of.gid(),
            modified: u64::try_from(of.mtime()).unwrap_or(0),
        };
        let mut head = vec![];
        entry.encode(&mut head).map_err(|why| io::Error::new(ErrorKind::InvalidData, why))?;
        self.out.write_all(&head)
    }
}

fn relative(path: &Path) -> Vec<u8> {
    path.strip_prefix("/").unwrap_or(path).as_os_str().as_bytes().to_vec()
}

fn number(of: u64) -> io::Result<u32> {
    u32::try_from(of).map_err(|_| ErrorKind::InvalidData.into())
}

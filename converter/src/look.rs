//! What an archive is, without reading more of it than that takes.

use std::cell::Cell;
use std::fs::File;
use std::io::{BufReader, Read};

use hull_converter_protocol::{Answer, BUFFER_SIZE, DOCUMENT_MAX, Holds, Kind, UNCOMPRESSED_MAX, Window};

use crate::Error;
use crate::decompress::{Compression, Limited, uncompressed};
use crate::error::reading;
use crate::tar_stream::{EntryKind, TarStream};
use crate::tree::TreePath;

pub(crate) fn look(name: &str, file: &File) -> Result<Answer, Error> {
    let not_an_archive = |e: Error| {
        let doing =
            format!("read {name}: it is no tar archive (compressed by gzip, bzip2, xz or zstd, or not)");
        Error::because(Kind::NotAnImage, doing, e)
    };
    let mut head = Vec::new();
    let read = Window::whole(file).take(Compression::HEAD_LEN).read_to_end(&mut head);
    read.map_err(|e| Error::because(Kind::Host, format!("read {name}"), e))?;
    let is_compressed = Compression::sniff(&head) != Compression::None;
    let budget = Cell::new(UNCOMPRESSED_MAX);
    let mut tar = open(name, file, &budget).map_err(not_an_archive)?;
    while let Some(entry) = tar.next_entry().map_err(not_an_archive)? {
        // The archive's own top comes first in what `tar -c .` makes.
        if let Some(first) = parse(name, &entry.path)?.parts().next() {
            let is_aci = matches!(first, b"manifest" | b"rootfs");
            let holds = if is_aci { Holds::Aci } else { Holds::Something };
            return Ok(Answer::Looked { holds, is_compressed });
        }
    }
    Ok(Answer::Looked { holds: Holds::Nothing, is_compressed })
}

/// The bytes of the member `manifest`.
pub(crate) fn manifest(name: &str, file: &File) -> Result<String, Error> {
    let budget = Cell::new(UNCOMPRESSED_MAX);
    let mut tar = open(name, file, &budget)?;
    while let Some(entry) = tar.next_entry()? {
        let is_manifest = parse(name, &entry.path)?.parts().eq([b"manifest".as_slice()]);
        if is_manifest && matches!(entry.kind, EntryKind::File(_)) {
            let text = String::from_utf8(tar.short_content(DOCUMENT_MAX)?);
            return text
                .map_err(|e| Error::because(Kind::Corrupt, format!("read the manifest of {name}"), e));
        }
    }
    Err(Error::new(Kind::NotAnImage, format!("read {name}: no `manifest` in it")))
}

fn open<'a>(
    name: &str,
    file: &'a File,
    budget: &'a Cell<u64>,
) -> Result<TarStream<BufReader<Limited<'a>>>, Error> {
    let plain = uncompressed(Window::whole(file), budget);
    let plain = plain.map_err(|e| Error::because(reading(&e), format!("uncompress {name}"), e))?;
    Ok(TarStream::new(BufReader::with_capacity(BUFFER_SIZE, plain), name))
}

fn parse(name: &str, path: &[u8]) -> Result<TreePath, Error> {
    TreePath::parse(path).map_err(|text| Error::new(Kind::Corrupt, format!("read {name}: {text}")))
}

//! Decompression, bounded in memory and in output.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Read};

use bzip2::read::MultiBzDecoder;
use flate2::bufread::MultiGzDecoder;
use hull_converter_protocol::{BUFFER_SIZE, UNCOMPRESSED_MAX};
use lzma_rust2::XzReader;

/// Largest window of a zstd frame, as a power of two: 32 MiB. That is the most that builders of images use
/// (klauspost/compress at its best level); `zstd -19` uses 8 MiB, only `--ultra` and `--long` more.
const ZSTD_WINDOW_LOG_MAX: u32 = 25;

/// Most memory an xz stream may ask for, in KiB: enough for `xz -8` with its window of 32 MiB.
const XZ_MEMORY_MAX_KIB: u32 = 33 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Bzip2,
    Xz,
    Zstd,
}

impl Compression {
    /// How many bytes [`Self::sniff`] looks at.
    pub(crate) const HEAD_LEN: u64 = 6;

    /// Recognises a compressed file by its first bytes; whatever is none counts as uncompressed.
    pub(crate) fn sniff(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, ..] => Compression::Gzip, // RFC 1952 section 2.3.1
            [b'B', b'Z', b'h', ..] => Compression::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Compression::Xz, // The .xz file format, 2.1.1.1
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,        // RFC 8878 section 3.1.1
            _ => Compression::None,
        }
    }
}

/// Reads `input` uncompressed, whatever it is compressed with. What comes out counts against
/// `budget`; when that is spent, reading fails with `FileTooLarge`.
pub(crate) fn uncompressed<'a, R: Read + 'a>(input: R, budget: &'a Cell<u64>) -> io::Result<Limited<'a>> {
    let mut input = BufReader::with_capacity(BUFFER_SIZE, input);
    let inner: Box<dyn Read + 'a> = match Compression::sniff(input.fill_buf()?) {
        Compression::None => Box::new(input),
        Compression::Gzip => Box::new(MultiGzDecoder::new(input)),
        Compression::Bzip2 => Box::new(MultiBzDecoder::new(input)),
        Compression::Xz => Box::new(XzReader::new_mem_limit(input, true, XZ_MEMORY_MAX_KIB)),
        Compression::Zstd => {
            let mut decoder = zstd::Decoder::with_buffer(input)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Box::new(decoder)
        }
    };
    Ok(Limited { inner, budget })
}

/// Stops a stream that goes on for too long.
pub(crate) struct Limited<'a> {
    inner: Box<dyn Read + 'a>,
    budget: &'a Cell<u64>,
}

impl Read for Limited<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer).map_err(explained)?;
        let left = self.budget.get().checked_sub(count as u64).ok_or_else(|| {
            let text = format!("more than {UNCOMPRESSED_MAX} bytes when uncompressed");
            io::Error::new(io::ErrorKind::FileTooLarge, text)
        })?;
        self.budget.set(left);
        Ok(count)
    }
}

/// Says what to do about a window that is too large.
fn explained(error: io::Error) -> io::Error {
    let is_window = error.kind() == io::ErrorKind::OutOfMemory
        // What libzstd calls `ZSTD_error_frameParameter_windowTooLarge`.
        || error.to_string().contains("requires too much memory");
    if !is_window {
        return error;
    }
    let text = "it was compressed with a window of more than 32 MiB (compress it anew: zstd without --ultra and \
                --long, xz with -8 or less)";
    io::Error::new(io::ErrorKind::FileTooLarge, text)
}

//! File I/O straight between a file and guest memory: at an offset, or a packet at a time.
#![expect(
    unsafe_code,
    reason = "vm-memory reads and writes one slice at a time, at the file's own position only"
)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use vm_memory::VolatileSlice;

/// Most pieces of one system call; IOV_MAX of Linux is 1024.
const PIECES_MAX: usize = 64;

/// Which way the bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    FileToGuest,
    GuestToFile,
}

/// Moves all bytes of `slices`, from or to `offset` on.
///
/// # Errors
/// The system call's; `UnexpectedEof` where the file ends first, `WriteZero` where nothing was taken.
pub(crate) fn transfer(
    file: &File,
    slices: &[VolatileSlice<'_>],
    mut offset: u64,
    direction: Direction,
) -> io::Result<()> {
    for piece in slices.chunks(PIECES_MAX) {
        let mut rest = piece.to_vec();
        loop {
            rest.retain(|slice| !slice.is_empty());
            if rest.is_empty() {
                break;
            }
            let moved = transfer_some(file, &rest, offset, direction)?;
            skip(&mut rest, moved)?;
            offset = offset.checked_add(moved as u64).ok_or(io::ErrorKind::InvalidInput)?;
        }
    }
    Ok(())
}

/// Writes `head` and all bytes of `slices` by one system call, as what keeps packets apart wants it.
///
/// # Errors
/// The system call's; `WriteZero` where less was taken, `InvalidInput` for more pieces than it takes.
pub(crate) fn write_packet(file: &File, head: &[u8], slices: &[VolatileSlice<'_>]) -> io::Result<()> {
    let guards: Vec<_> = slices.iter().map(VolatileSlice::ptr_guard).collect();
    let head_piece = libc::iovec { iov_base: head.as_ptr().cast_mut().cast(), iov_len: head.len() };
    let pieces = guards
        .iter()
        .map(|guard| libc::iovec { iov_base: guard.as_ptr().cast_mut().cast(), iov_len: guard.len() });
    let pieces: Vec<_> = std::iter::once(head_piece).chain(pieces).collect();
    let len: usize = pieces.iter().map(|piece| piece.iov_len).sum();
    // Above IOV_MAX the kernel refuses.
    let count = i32::try_from(pieces.len()).map_err(io::Error::other)?;
    loop {
        // SAFETY: the first piece is a slice of ours, each other is valid guest memory while its guard
        // lives; the kernel only reads them, and writing to guest memory meanwhile is harmless.
        let done = unsafe { libc::writev(file.as_raw_fd(), pieces.as_ptr(), count) };
        match usize::try_from(done) {
            Ok(done) if done == len => return Ok(()),
            Ok(_) => return Err(io::ErrorKind::WriteZero.into()),
            Err(_) => match io::Error::last_os_error() {
                err if err.kind() == io::ErrorKind::Interrupted => (),
                err => return Err(err),
            },
        }
    }
}

/// One system call; never zero bytes.
fn transfer_some(
    file: &File,
    slices: &[VolatileSlice<'_>],
    offset: u64,
    direction: Direction,
) -> io::Result<usize> {
    let guards: Vec<_> = slices.iter().map(VolatileSlice::ptr_guard_mut).collect();
    let pieces: Vec<_> = guards
        .iter()
        .map(|guard| libc::iovec { iov_base: guard.as_ptr().cast(), iov_len: guard.len() })
        .collect();
    let count = i32::try_from(pieces.len()).map_err(io::Error::other)?;
    let offset = i64::try_from(offset).map_err(io::Error::other)?;
    loop {
        let done = match direction {
            // SAFETY: each piece is valid guest memory while its guard lives, and guest memory may be
            // written at any time: all access to it is volatile.
            Direction::FileToGuest => unsafe {
                libc::preadv(file.as_raw_fd(), pieces.as_ptr(), count, offset)
            },
            // SAFETY: each piece is valid guest memory while its guard lives; the kernel only reads it.
            Direction::GuestToFile => unsafe {
                libc::pwritev(file.as_raw_fd(), pieces.as_ptr(), count, offset)
            },
        };
        match usize::try_from(done) {
            Ok(0) if direction == Direction::FileToGuest => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(moved) => return Ok(moved),
            Err(_) => match io::Error::last_os_error() {
                err if err.kind() == io::ErrorKind::Interrupted => (),
                err => return Err(err),
            },
        }
    }
}

/// Forgets the first `moved` bytes.
fn skip(slices: &mut [VolatileSlice<'_>], mut moved: usize) -> io::Result<()> {
    for slice in slices {
        let here = moved.min(slice.len());
        *slice = slice.offset(here).map_err(io::Error::other)?;
        moved -= here;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

    fn memory() -> GuestMemoryMmap {
        GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x10000)]).unwrap()
    }

    #[test]
    fn bytes_go_round_in_many_pieces() {
        let memory = memory();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 100]).unwrap();
        let want: Vec<u8> = (0..u8::MAX).cycle().take(600).collect();
        memory.write_slice(&want, GuestAddress(0)).unwrap();
        let slice = |first: u64, len| memory.get_slice(GuestAddress(first), len).unwrap();
        // More pieces than one system call takes, an empty one among them.
        let out: Vec<_> = (0..200).map(|i| slice(i * 3, 3)).chain([slice(0, 0)]).collect();
        transfer(&file, &out, 100, Direction::GuestToFile).unwrap();
        transfer(&file, &[slice(0x1000, 600)], 100, Direction::FileToGuest).unwrap();
        let mut got = vec![0; 600];
        memory.read_slice(&mut got, GuestAddress(0x1000)).unwrap();
        assert_eq!(got, want);
    }

    #[test]
    fn the_end_of_the_file_is_an_error() {
        let memory = memory();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 100]).unwrap();
        let slice = memory.get_slice(GuestAddress(0), 101).unwrap();
        let err = transfer(&file, &[slice], 0, Direction::FileToGuest).unwrap_err();
        assert_eq!(err.kind(), io::ErrorKind::UnexpectedEof);
    }
}

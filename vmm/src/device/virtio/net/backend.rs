//! Frames from and to a tap, each behind its header. Knows nothing of queues, nor of what headers say.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, RawFd};

use vm_memory::VolatileSlice;

use crate::device::virtio::net::request::{FRAME_MAX, HEAD_SIZE};
use crate::volatile_io::write_packet;

/// Header and frame.
const PACKET_MAX: usize = HEAD_SIZE + FRAME_MAX as usize;

/// What became of an attempt to get a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fetched {
    Frame,
    Nothing,
    /// There is no tap any more.
    Gone,
}

/// A tap, or whatever else keeps packets apart, that does not block.
pub(crate) struct Backend {
    tap: File,
    buffer: Box<[u8]>,
    /// Bytes of the frame that waits in the buffer, its header included; 0 is none.
    held: usize,
}

impl Backend {
    pub(crate) fn new(tap: File) -> Self {
        Self { tap, buffer: vec![0; PACKET_MAX].into(), held: 0 }
    }

    pub(super) fn fd(&self) -> RawFd {
        self.tap.as_raw_fd()
    }

    /// The frame that waits; empty if there is none.
    pub(super) fn held(&mut self) -> &mut [u8] {
        &mut self.buffer[..self.held]
    }

    pub(super) fn forget(&mut self) {
        self.held = 0;
    }

    /// Gets a frame unless one waits.
    pub(super) fn fetch(&mut self) -> Fetched {
        while self.held == 0 {
            match (&self.tap).read(&mut self.buffer) {
                // Shorter than a header: no tap does that.
                Ok(len) if len < HEAD_SIZE => return Fetched::Gone,
                Ok(len) => self.held = len,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => (),
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => return Fetched::Nothing,
                Err(_) => return Fetched::Gone,
            }
        }
        Fetched::Frame
    }

    /// # Errors
    /// The system call's. The frame is lost then, as on a wire.
    pub(super) fn send(&self, head: [u8; HEAD_SIZE], frame: &[VolatileSlice<'_>]) -> io::Result<()> {
        write_packet(&self.tap, &head, frame)
    }
}

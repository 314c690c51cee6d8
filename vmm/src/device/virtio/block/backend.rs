//! [`Request`] -> file I/O. Knows nothing of queues.

use std::fs::File;
use std::iter;

use vm_memory::VolatileSlice;
use vmm_sys_util::fallocate::{FallocateMode, fallocate};

use crate::device::virtio::block::request::{Extent, Request, SECTOR_SIZE, Status};
use crate::device::virtio::queue::Buffers;
use crate::memory::GuestRam;
use crate::volatile_io::{Direction, transfer};

/// Length of a disk's id, virtio 1.2 section 5.2.6.1.
const ID_SIZE: usize = 20;
/// Most data of one request. Linux asks for 1.25 MiB at most unless told otherwise.
const DATA_MAX: u64 = 64 << 20;
/// What zeroes are written from, where a file can do no better.
const ZEROES_SIZE: usize = 64 << 10;

/// A disk that is a file or a block device.
pub(crate) struct Backend {
    file: File,
    sectors: u64,
    read_only: bool,
    id: [u8; ID_SIZE],
}

impl Backend {
    /// `sectors` is what the guest is told, whatever becomes of the file; `index` names the disk.
    pub(crate) fn new(file: File, sectors: u64, read_only: bool, index: usize) -> Self {
        let mut id = [0; ID_SIZE];
        let text = format!("hull-{index}");
        id[..text.len()].copy_from_slice(text.as_bytes());
        Self { file, sectors, read_only, id }
    }

    pub(crate) fn sectors(&self) -> u64 {
        self.sectors
    }

    pub(crate) fn read_only(&self) -> bool {
        self.read_only
    }

    /// Returns how many bytes were put into the guest's buffers.
    pub(super) fn execute(&self, request: &Request, ram: &GuestRam) -> Result<u32, Status> {
        match request {
            Request::Read { sector, into } => self.transfer(*sector, into, ram, Direction::FileToGuest),
            Request::Write { .. } | Request::Discard(_) | Request::WriteZeroes { .. } if self.read_only => {
                Err(Status::IoError)
            }
            Request::Write { sector, from } => {
                self.transfer(*sector, from, ram, Direction::GuestToFile).map(|_| 0)
            }
            Request::Flush if self.read_only => Ok(0),
            Request::Flush => self.file.sync_data().map(|()| 0).map_err(|_| Status::IoError),
            Request::Id { into } => self.write_id(into, ram),
            Request::Discard(extents) => {
                extents.iter().try_for_each(|extent| self.discard(*extent)).map(|()| 0)
            }
            Request::WriteZeroes { extent, unmap } => self.write_zeroes(*extent, *unmap).map(|()| 0),
            Request::Refused(status) => Err(*status),
        }
    }

    /// The bytes of an extent that lies on the disk: where they begin, and how many.
    fn place(&self, extent: Extent) -> Result<(u64, u64), Status> {
        let end = extent.sector.checked_add(extent.count.into()).filter(|end| *end <= self.sectors);
        end.ok_or(Status::IoError)?;
        Ok((extent.sector * SECTOR_SIZE, u64::from(extent.count) * SECTOR_SIZE))
    }

    fn discard(&self, extent: Extent) -> Result<(), Status> {
        let (first, len) = self.place(extent)?;
        match fallocate(&self.file, FallocateMode::PunchHole, true, first, len) {
            // The contents of what is discarded are nobody's business: keeping them is allowed.
            Err(err) if err.errno() == libc::EOPNOTSUPP => Ok(()),
            _ if len == 0 => Ok(()),
            result => result.map_err(|_| Status::IoError),
        }
    }

    fn write_zeroes(&self, extent: Extent, unmap: bool) -> Result<(), Status> {
        let (first, len) = self.place(extent)?;
        let mode = if unmap { FallocateMode::PunchHole } else { FallocateMode::ZeroRange };
        match fallocate(&self.file, mode, true, first, len) {
            _ if len == 0 => Ok(()),
            Err(err) if err.errno() == libc::EOPNOTSUPP => self.write_zeroes_slowly(first, len),
            result => result.map_err(|_| Status::IoError),
        }
    }

    fn write_zeroes_slowly(&self, first: u64, len: u64) -> Result<(), Status> {
        let mut zeroes = vec![0; ZEROES_SIZE];
        let zeroes = VolatileSlice::from(&mut zeroes[..]);
        let end = first + len;
        let pieces = iter::successors(Some(first), |at| at.checked_add(ZEROES_SIZE as u64));
        for at in pieces.take_while(|at| *at < end) {
            let size = usize::try_from(end - at).unwrap_or(usize::MAX).min(ZEROES_SIZE);
            let piece = zeroes.subslice(0, size).expect("a piece is no larger than all zeroes");
            transfer(&self.file, &[piece], at, Direction::GuestToFile).map_err(|_| Status::IoError)?;
        }
        Ok(())
    }

    fn transfer(
        &self,
        sector: u64,
        data: &Buffers,
        ram: &GuestRam,
        direction: Direction,
    ) -> Result<u32, Status> {
        let len = data.len();
        let end = sector.checked_add(len / SECTOR_SIZE).filter(|end| *end <= self.sectors);
        if end.is_none() || !len.is_multiple_of(SECTOR_SIZE) || DATA_MAX < len {
            return Err(Status::IoError);
        }
        let slices = match direction {
            Direction::FileToGuest => data.admit(ram),
            Direction::GuestToFile => data.admit_for_syscall(ram),
        };
        let slices = slices.map_err(|_| Status::IoError)?;
        // Below `sectors * SECTOR_SIZE`, which is the size of a file.
        let offset = sector * SECTOR_SIZE;
        transfer(&self.file, &slices, offset, direction).map_err(|_| Status::IoError)?;
        Ok(u32::try_from(len).expect("DATA_MAX fits in 32 bits"))
    }

    fn write_id(&self, into: &Buffers, ram: &GuestRam) -> Result<u32, Status> {
        if into.len() < ID_SIZE as u64 {
            return Err(Status::IoError);
        }
        into.clone().write(ram, &self.id).map_err(|_| Status::IoError)?;
        Ok(ID_SIZE as u32)
    }
}

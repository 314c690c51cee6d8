//! [`Request`] -> file I/O. Knows nothing of queues.

use std::fs::File;

use crate::device::virtio::block::request::{Request, SECTOR_SIZE, Status};
use crate::device::virtio::queue::Buffers;
use crate::memory::GuestRam;
use crate::volatile_io::{Direction, transfer};

/// Length of a disk's id, virtio 1.2 section 5.2.6.1.
const ID_SIZE: usize = 20;
/// Most data of one request. Linux asks for 1.25 MiB at most unless told otherwise.
const DATA_MAX: u64 = 64 << 20;

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
            Request::Write { .. } if self.read_only => Err(Status::IoError),
            Request::Write { sector, from } => {
                self.transfer(*sector, from, ram, Direction::GuestToFile).map(|_| 0)
            }
            Request::Flush if self.read_only => Ok(0),
            Request::Flush => self.file.sync_data().map(|()| 0).map_err(|_| Status::IoError),
            Request::Id { into } => self.write_id(into, ram),
            Request::Unknown => Err(Status::Unsupported),
        }
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

//! Everything the guest finds in its RAM when the first vCPU starts.
#![forbid(unsafe_code)]

pub(crate) mod cmdline;
pub(crate) mod elf;
pub(crate) mod initramfs;
pub(crate) mod mptable;
pub(crate) use mptable::IOAPIC_VERSION;
pub(crate) use tables::{CODE_SELECTOR, DATA_SELECTOR};
pub(crate) mod params;
mod tables;

use std::fs::File;
use std::io::Read;

use hull_errors::Doing;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use crate::boot::initramfs::InitramfsFile;
use crate::error::{Error, Kind};
use crate::layout::{CMDLINE, GDT, MMIO_GAP, MP_POINTER, MP_TABLE, PAGE_TABLES, RNG_SEED, Region, ZERO_PAGE};
use crate::memory::GuestRam;

/// The initramfs and the kernel begin at page boundaries.
const PAGE: u64 = 0x1000;

/// What goes into RAM beside the kernel.
pub(crate) struct BootData<'a> {
    pub cmdline: &'a str,
    pub initramfs: &'a [InitramfsFile],
    pub vcpus: u8,
    /// The interrupt pins in use, and how many the IOAPIC has.
    pub pins_used: &'a [u8],
    pub pin_count: u8,
    /// Where random bytes come from.
    pub entropy: &'a File,
}

/// What the first vCPU has to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub rip: u64,
    pub kernel_bytes: u64,
}

/// Fills RAM. Reads files, opens none.
pub(crate) fn load(ram: &GuestRam, kernel: &File, data: &BootData<'_>) -> Result<Entry, Error> {
    let low_end = low_end(ram);
    let kernel = elf::load(ram, kernel, low_end)?;
    let initramfs = place_initramfs(ram, data.initramfs, kernel.end, low_end)?;
    put(ram, CMDLINE, &cmdline::nul_terminated(data.cmdline)?)?;
    put(ram, MP_TABLE, &mptable::table(data.vcpus, data.pins_used, data.pin_count))?;
    put(ram, MP_POINTER, &mptable::pointer())?;
    put(ram, GDT, &tables::gdt())?;
    put(ram, PAGE_TABLES, &tables::page_tables())?;
    put(ram, RNG_SEED, &params::seed(&seed_bytes(data.entropy)?))?;
    put(ram, ZERO_PAGE, &params::zero_page(&ram_regions(ram), data.cmdline.len(), initramfs))?;
    Ok(Entry { rip: kernel.entry, kernel_bytes: kernel.bytes_copied })
}

/// The end of the RAM below the gap, where kernel and initramfs have to lie.
fn low_end(ram: &GuestRam) -> u64 {
    let ends = ram_regions(ram).into_iter().map(Region::end);
    ends.filter(|end| *end <= MMIO_GAP.first).max().unwrap_or(0)
}

fn ram_regions(ram: &GuestRam) -> Vec<Region> {
    ram.memory().iter().map(|part| Region { first: part.start_addr().0, size: part.len() }).collect()
}

fn put(ram: &GuestRam, at: Region, bytes: &[u8]) -> Result<(), Error> {
    assert!(bytes.len() as u64 <= at.size, "{} bytes do not fit in {at:?}", bytes.len());
    ram.memory()
        .write_slice(bytes, GuestAddress(at.first))
        .doing(Kind::Host, || format!("write boot data at {:#x}", at.first))
}

fn seed_bytes(mut entropy: &File) -> Result<[u8; params::SEED_SIZE], Error> {
    let mut seed = [0; params::SEED_SIZE];
    entropy.read_exact(&mut seed).doing(Kind::Host, || "read random bytes for the guest".to_owned())?;
    Ok(seed)
}

/// Puts the archive at the end of the RAM below the gap: the kernel wants to grow upwards.
fn place_initramfs(
    ram: &GuestRam,
    files: &[InitramfsFile],
    kernel_end: u64,
    low_end: u64,
) -> Result<Option<Region>, Error> {
    if files.is_empty() {
        return Ok(None);
    }
    let archive = initramfs::Archive::plan(files)?;
    let size = archive.size();
    let first =
        low_end.checked_sub(size).map(|first| first & !(PAGE - 1)).filter(|first| kernel_end <= *first);
    let first = first.ok_or_else(|| {
        Error::new(
            Kind::Config,
            format!("fit an initramfs of {size} bytes and the kernel into RAM: give more RAM"),
        )
    })?;
    archive.write(ram, first)?;
    Ok(Some(Region { first, size }))
}

//! Guest memory: its mappings, its KVM slots, and the doors from a guest's claim to bytes.
#![expect(
    unsafe_code,
    reason = "vm-memory can neither align an anonymous mapping to huge pages nor give pages back, and handing \
              RAM to KVM is unsafe in kvm-ioctls"
)]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::ptr::NonNull;
use std::sync::Arc;

use hull_errors::Doing;
use kvm_bindings::{KVM_MEM_READONLY, kvm_userspace_memory_region};
use kvm_ioctls::VmFd;
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{
    GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap, VolatileSlice,
};

use crate::error::{Error, Kind};
use crate::layout::Region;

/// Transparent huge pages are this large on x86-64.
const HUGE_PAGE: usize = 2 << 20;
const PAGE: usize = 4096;

const PROTECTION: i32 = libc::PROT_READ | libc::PROT_WRITE;
const FLAGS: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;

/// A byte range that the guest *says* is its own. Known: it does not wrap. Not known: whether any RAM
/// is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claimed {
    first: u64,
    len: u32,
}

/// Why a claim is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadClaim {
    Wraps,
    NotRam { first: u64, len: u32 },
}

impl Claimed {
    pub(crate) fn new(first: u64, len: u32) -> Result<Self, BadClaim> {
        first.checked_add(u64::from(len)).ok_or(BadClaim::Wraps)?;
        Ok(Self { first, len })
    }

    pub(crate) fn len(self) -> u32 {
        self.len
    }

    /// The first `at` bytes, and the rest. `at` must not be above the length.
    pub(crate) fn split(self, at: u32) -> (Self, Self) {
        let rest = self.len.checked_sub(at).expect("the caller never splits behind the end");
        (Self { first: self.first, len: at }, Self { first: self.first + u64::from(at), len: rest })
    }
}

/// The guest's RAM, and the images that it sees as memory. RAM's bytes are volatile: the guest may change
/// them at any time. An image's are read-only, for the guest by its KVM slot and for us by its mapping.
#[derive(Debug)]
pub(crate) struct GuestRam {
    // Dropped first: they point into the mappings.
    memory: GuestMemoryMmap,
    images: GuestMemoryMmap,
    mappings: Vec<Mapping>,
    /// The file that all RAM is, region after region, where others map it too.
    file: Option<File>,
}

/// A region of RAM in the file that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub region: Region,
    pub offset: u64,
}

impl GuestRam {
    /// Maps RAM for `regions`, all zero, aligned for and asking for huge pages.
    pub(crate) fn new(regions: &[Region]) -> Result<Self, Error> {
        Self::map(regions, None)
    }

    /// The same, in a file that other processes can map: they see what the guest sees.
    pub(crate) fn shared(regions: &[Region]) -> Result<Self, Error> {
        let size = regions.iter().map(|region| region.size).sum::<u64>();
        let file = memory_file(size).doing(Kind::Host, || format!("make a file of {} MiB", size >> 20))?;
        Self::map(regions, Some(file))
    }

    fn map(regions: &[Region], file: Option<File>) -> Result<Self, Error> {
        let mut mappings = Vec::with_capacity(regions.len());
        let mut parts = Vec::with_capacity(regions.len());
        for (region, offset) in regions.iter().zip(offsets(regions)) {
            let (mapping, part) = map_region(*region, file.as_ref().map(|file| (file, offset)))
                .doing(Kind::Host, || format!("map {} MiB of guest RAM", region.size >> 20))?;
            mappings.push(mapping);
            parts.push(part);
        }
        let memory = GuestMemoryMmap::from_regions(parts)
            .doing(Kind::Host, || "put the guest's RAM together".to_owned())?;
        Ok(Self { memory, images: GuestMemoryMmap::new(), mappings, file })
    }

    /// The file that RAM is, and where in it each region lies; `None` where it is nobody else's.
    pub(crate) fn file(&self) -> Option<(&File, Vec<Part>)> {
        let region = |region: &GuestRegionMmap| Region { first: region.start_addr().0, size: region.len() };
        let regions: Vec<Region> = self.memory.iter().map(region).collect();
        let parts =
            regions.iter().zip(offsets(&regions)).map(|(region, offset)| Part { region: *region, offset });
        Some((self.file.as_ref()?, parts.collect()))
    }

    /// Adds the file as memory at `region`, which is no shorter than it; behind the file's end is zero.
    /// Its pages are the page cache's, so that all machines on a host share one copy.
    pub(crate) fn add_image(&mut self, file: &File, region: Region) -> Result<(), Error> {
        let doing = || format!("map an image of {} MiB", region.size >> 20);
        let (mapping, part) = map_image(file, region).doing(Kind::Host, doing)?;
        self.images = self.images.insert_region(Arc::new(part)).doing(Kind::Host, doing)?;
        self.mappings.push(mapping);
        Ok(())
    }

    /// Hands the memory to KVM, one slot for each region.
    pub(crate) fn register(&self, vm: &VmFd) -> Result<(), Error> {
        let ram = self.memory.iter().map(|region| (region, 0));
        let images = self.images.iter().map(|region| (region, KVM_MEM_READONLY));
        for (slot, (region, flags)) in (0..).zip(ram.chain(images)) {
            let slot = kvm_userspace_memory_region {
                slot,
                flags,
                guest_phys_addr: region.start_addr().0,
                memory_size: region.len(),
                userspace_addr: region.as_ptr() as u64,
            };
            // SAFETY: the range is a mapping of ours that nothing but `Drop` unmaps, and KVM forgets
            // what is unmapped; all other access to it is volatile.
            unsafe { vm.set_user_memory_region(slot) }
                .doing(Kind::Host, || "register guest memory with KVM".to_owned())?;
        }
        Ok(())
    }

    pub(crate) fn memory(&self) -> &GuestMemoryMmap {
        &self.memory
    }

    /// From a claim to bytes that may be read, by system calls only: the file below an image may have
    /// become shorter, and then touching it is a signal.
    pub(crate) fn admit_for_syscall(&self, claim: Claimed) -> Result<VolatileSlice<'_>, BadClaim> {
        self.admit(claim).or_else(|bad| {
            self.images.get_slice(GuestAddress(claim.first), claim.len as usize).map_err(|_| bad)
        })
    }

    /// Gives the whole pages of a range back to the host: they read as zero from then on. How many bytes have
    /// gone; none, if the host refuses.
    pub(crate) fn release(&self, claim: Claimed) -> Result<u64, BadClaim> {
        let slice = self.admit(claim)?;
        let guard = slice.ptr_guard_mut();
        let skip = guard.as_ptr().align_offset(PAGE);
        let len = guard.len().saturating_sub(skip) / PAGE * PAGE;
        if len == 0 {
            return Ok(0);
        }
        // SAFETY: `skip` is below the length, as there is a page behind it.
        let first = unsafe { guard.as_ptr().add(skip) };
        // Of a file it is the file's pages that have to go.
        let advice = if self.file.is_some() { libc::MADV_REMOVE } else { libc::MADV_DONTNEED };
        // SAFETY: the range is inside a mapping of ours that is private and anonymous, or of the file that RAM is,
        // and stays mapped; its bytes may change at any time, and all access to them is volatile.
        let failed = unsafe { libc::madvise(first.cast(), len, advice) } != 0;
        Ok(if failed { 0 } else { len as u64 })
    }

    /// From a claim to bytes that may be read and written.
    pub(crate) fn admit(&self, claim: Claimed) -> Result<VolatileSlice<'_>, BadClaim> {
        self.memory
            .get_slice(GuestAddress(claim.first), claim.len as usize)
            .map_err(|_| BadClaim::NotRam { first: claim.first, len: claim.len })
    }
}

/// An anonymous mapping that ends with its owner.
#[derive(Debug)]
struct Mapping {
    first: NonNull<libc::c_void>,
    len: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread; `Mapping` only unmaps it, once.
unsafe impl Send for Mapping {}
// SAFETY: no method takes `&self`.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `first` and `len` are what mmap returned, and nothing uses the range any more: the
        // only other holder is `GuestRam::memory`, which is dropped before.
        unsafe { libc::munmap(self.first.as_ptr(), self.len) };
    }
}

fn map_region(region: Region, file: Option<(&File, u64)>) -> io::Result<(Mapping, GuestRegionMmap)> {
    let (mapping, first, size) = map_aligned(region)?;
    if let Some((file, offset)) = file {
        place(first, size, PROTECTION, file, offset)?;
    }
    advise(first, size, libc::MADV_HUGEPAGE);
    advise(first, size, libc::MADV_DONTDUMP);
    let flags = if file.is_some() { libc::MAP_SHARED } else { FLAGS };
    Ok((mapping, part(first, size, PROTECTION, flags, region)?))
}

/// Maps a file over the first `len` bytes of a range that [`map_aligned`] has made and nobody uses yet.
fn place(first: *mut u8, len: usize, protection: i32, file: &File, offset: u64) -> io::Result<()> {
    let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
    let flags = libc::MAP_SHARED | libc::MAP_FIXED;
    // SAFETY: the callers pass a range of their own mapping, and a length that is not above its size.
    let placed = unsafe { libc::mmap(first.cast(), len, protection, flags, file.as_raw_fd(), offset) };
    match placed == libc::MAP_FAILED {
        true => Err(io::Error::last_os_error()),
        false => Ok(()),
    }
}

/// Where each region begins in a file of all of them.
fn offsets(regions: &[Region]) -> impl Iterator<Item = u64> {
    regions.iter().scan(0, |end, region| {
        let offset = *end;
        *end += region.size;
        Some(offset)
    })
}

/// A file in memory whose size nobody who gets it can change: cut off, RAM would be a signal for us.
fn memory_file(size: u64) -> io::Result<File> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: memfd_create reads one string that ends with NUL and lives for ever.
    let fd = unsafe { libc::memfd_create(c"hull-ram".as_ptr(), flags) };
    if fd == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just opened this descriptor for us; nothing else owns it.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(size)?;
    let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
    // SAFETY: F_ADD_SEALS takes integers only.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(file),
    }
}

fn map_image(file: &File, region: Region) -> io::Result<(Mapping, GuestRegionMmap)> {
    let len = usize::try_from(file.metadata()?.len().min(region.size)).map_err(io::Error::other)?;
    let (mapping, first, size) = map_aligned(region)?;
    place(first, len, libc::PROT_READ, file, 0)?;
    Ok((mapping, part(first, size, libc::PROT_READ, libc::MAP_SHARED, region)?))
}

/// A mapping with a range for `region` in it that begins at a huge page's boundary.
fn map_aligned(region: Region) -> io::Result<(Mapping, *mut u8, usize)> {
    let size = usize::try_from(region.size).map_err(io::Error::other)?;
    let mapping = map_anonymous(size.checked_add(HUGE_PAGE).ok_or(io::ErrorKind::OutOfMemory)?)?;
    let first = mapping.first.as_ptr().cast::<u8>();
    let skip = first.align_offset(HUGE_PAGE);
    // SAFETY: `skip` is below HUGE_PAGE, so that `skip + size` is inside the mapping.
    let first = unsafe { first.add(skip) };
    Ok((mapping, first, size))
}

/// What vm-memory knows of a range that is mapped already.
fn part(
    first: *mut u8,
    size: usize,
    protection: i32,
    flags: i32,
    region: Region,
) -> io::Result<GuestRegionMmap> {
    let builder = MmapRegionBuilder::new(size).with_mmap_prot(protection).with_mmap_flags(flags);
    // SAFETY: the range is mapped, and stays so while its `Mapping` lives, which `GuestRam` keeps.
    let builder = unsafe { builder.with_raw_mmap_pointer(first) };
    GuestRegionMmap::new(builder.build().map_err(io::Error::other)?, GuestAddress(region.first))
        .ok_or_else(|| io::Error::other("the region wraps"))
}

fn map_anonymous(len: usize) -> io::Result<Mapping> {
    // SAFETY: a new anonymous mapping at an address of the kernel's choice touches no memory of ours.
    let first = unsafe { libc::mmap(std::ptr::null_mut(), len, PROTECTION, FLAGS, -1, 0) };
    if first == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let first = NonNull::new(first).ok_or_else(|| io::Error::other("mapped at address 0"))?;
    Ok(Mapping { first, len })
}

/// Advice only: a host without huge pages, or without the option, runs the guest just as well.
fn advise(first: *mut u8, len: usize, advice: i32) {
    // SAFETY: the range is a mapping of ours; neither piece of advice changes its contents.
    unsafe { libc::madvise(first.cast(), len, advice) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use vm_memory::Bytes;

    fn ram() -> GuestRam {
        GuestRam::new(&crate::layout::ram_regions(32)).unwrap()
    }

    #[test]
    fn ram_is_aligned_to_huge_pages_and_zero() {
        let ram = ram();
        let slice = ram.admit(Claimed::new(0, 4096).unwrap()).unwrap();
        assert_eq!(slice.ptr_guard().as_ptr() as usize % HUGE_PAGE, 0);
        assert_eq!(ram.memory().read_obj::<u64>(GuestAddress(0x1f_fff8)).unwrap(), 0);
    }

    #[test]
    fn shared_ram_is_one_file_of_one_size() {
        let regions = [Region { first: 0, size: 2 << 20 }, Region { first: 4 << 30, size: 4 << 20 }];
        let ram = GuestRam::shared(&regions).unwrap();
        let (file, parts) = ram.file().unwrap();
        let offsets: Vec<_> = parts.iter().map(|part| (part.region, part.offset)).collect();
        assert_eq!(offsets, [(regions[0], 0), (regions[1], 2 << 20)]);
        ram.memory().write_obj(7_u64, GuestAddress(4 << 30)).unwrap();
        let mut bytes = [0; 8];
        std::os::unix::fs::FileExt::read_exact_at(file, &mut bytes, 2 << 20).unwrap();
        assert_eq!(u64::from_le_bytes(bytes), 7);
        assert!(file.set_len(4096).is_err() && file.set_len(64 << 20).is_err());
        let page = Claimed::new(4 << 30, 4096).unwrap();
        assert_eq!(ram.release(page).unwrap(), 4096);
        std::os::unix::fs::FileExt::read_exact_at(file, &mut bytes, 2 << 20).unwrap();
        assert_eq!(bytes, [0; 8], "given back to the host, whoever else maps it");
        assert!(super::tests::ram().file().is_none());
    }

    #[test]
    fn an_image_is_readable_to_its_end_and_zero_behind() {
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, &[7; 5000]).unwrap();
        let mut ram = ram();
        let region = Region { first: 4 << 30, size: 2 << 20 };
        ram.add_image(&file, region).unwrap();
        let claim = Claimed::new(region.first + 4999, 2).unwrap();
        let mut got = [9_u8; 2];
        ram.admit_for_syscall(claim).unwrap().copy_to(&mut got);
        assert_eq!(got, [7, 0]);
        // Nothing writes to it.
        assert!(ram.admit(claim).is_err());
        assert!(ram.admit_for_syscall(Claimed::new(region.first + (2 << 20) - 1, 2).unwrap()).is_err());
    }

    #[test]
    fn a_claim_outside_ram_is_not_admitted() {
        let ram = ram();
        let end = 32 << 20;
        assert!(ram.admit(Claimed::new(end - 1, 1).unwrap()).is_ok());
        for (first, len) in [(end - 1, 2), (end, 1), (u64::MAX - 9, 9)] {
            let claim = Claimed::new(first, len).unwrap();
            assert_eq!(ram.admit(claim).unwrap_err(), BadClaim::NotRam { first, len });
        }
        assert_eq!(Claimed::new(u64::MAX, 1), Err(BadClaim::Wraps));
    }

    proptest! {
        /// A claim is admitted exactly if all of it is RAM, and a cut loses nothing.
        #[test]
        fn a_claim_is_what_it_says(
            first in prop_oneof![0_u64..0x50_0000, any::<u64>(), u64::MAX - 9..],
            len in prop_oneof![0_u32..0x50_0000, any::<u32>()],
            cut: u32,
        ) {
            // A region, a hole, a region.
            let parts = [Region { first: 0, size: 1 << 20 }, Region { first: 2 << 20, size: 2 << 20 }];
            let ram = GuestRam::new(&parts).unwrap();
            let end = u128::from(first) + u128::from(len);
            let Ok(claim) = Claimed::new(first, len) else {
                prop_assert!(u128::from(u64::MAX) < end);
                return Ok(());
            };
            let inside = |part: &Region| part.first <= first && end <= u128::from(part.end());
            // Nothing is anywhere: whether that is RAM nobody needs to know.
            if 0 < len {
                prop_assert_eq!(ram.admit(claim).is_ok(), parts.iter().any(inside));
            }
            let cut = cut.min(len);
            let (front, back) = claim.split(cut);
            prop_assert_eq!((front.first, front.len, back.len), (first, cut, len - cut));
            prop_assert_eq!(u128::from(back.first) + u128::from(back.len), end);
        }
    }

    #[test]
    fn cve_2023_41051_no_access_leaves_its_region() {
        let parts = [Region { first: 0, size: 0x1000 }, Region { first: 0x2000, size: 0x1000 }];
        let ram = GuestRam::new(&parts).unwrap();
        // Across the end, across the hole, over all of it; the mapping behind is larger than the region.
        for (first, len) in [(0xfff, 2), (0xfff, 0x1002), (0, 0x3000), (0x2fff, 2), (0, u32::MAX)] {
            let claim = Claimed::new(first, len).unwrap();
            assert!(
                ram.admit(claim).is_err() && ram.admit_for_syscall(claim).is_err(),
                "{first:#x} {len:#x}"
            );
        }
        assert!(ram.memory().write_obj(0_u64, GuestAddress(0xffc)).is_err());
        assert_eq!(ram.admit(Claimed::new(0, 0x1000).unwrap()).unwrap().len(), 0x1000);
    }
}

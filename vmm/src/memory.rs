//! Guest RAM: its mapping, its KVM slots, and the one door from a guest's claim to bytes.
#![expect(
    unsafe_code,
    reason = "vm-memory cannot align an anonymous mapping to huge pages, and handing RAM to KVM is unsafe \
              in kvm-ioctls"
)]

use std::io;
use std::ptr::NonNull;

use hull_errors::Doing;
use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{
    GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap, VolatileSlice,
};

use crate::error::{Error, Kind};
use crate::layout::Region;

/// Transparent huge pages are this large on x86-64.
const HUGE_PAGE: usize = 2 << 20;

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

/// The guest's RAM. Its bytes are volatile: the guest may change them at any time.
#[derive(Debug)]
pub(crate) struct GuestRam {
    // Dropped first: it points into the mappings.
    memory: GuestMemoryMmap,
    _mappings: Vec<Mapping>,
}

impl GuestRam {
    /// Maps RAM for `regions`, all zero, aligned for and asking for huge pages.
    pub(crate) fn new(regions: &[Region]) -> Result<Self, Error> {
        let mut mappings = Vec::with_capacity(regions.len());
        let mut parts = Vec::with_capacity(regions.len());
        for region in regions {
            let (mapping, part) = map_region(*region)
                .doing(Kind::Host, || format!("map {} MiB of guest RAM", region.size >> 20))?;
            mappings.push(mapping);
            parts.push(part);
        }
        let memory = GuestMemoryMmap::from_regions(parts)
            .doing(Kind::Host, || "put the guest's RAM together".to_owned())?;
        Ok(Self { memory, _mappings: mappings })
    }

    /// Hands the RAM to KVM, one slot for each region.
    pub(crate) fn register(&self, vm: &VmFd) -> Result<(), Error> {
        for (slot, region) in (0..).zip(self.memory.iter()) {
            let slot = kvm_userspace_memory_region {
                slot,
                flags: 0,
                guest_phys_addr: region.start_addr().0,
                memory_size: region.len(),
                userspace_addr: region.as_ptr() as u64,
            };
            // SAFETY: the range is a mapping of ours that nothing but `Drop` unmaps, and the machine
            // drops the VM before the RAM; all other access to it is volatile.
            unsafe { vm.set_user_memory_region(slot) }
                .doing(Kind::Host, || "register guest RAM with KVM".to_owned())?;
        }
        Ok(())
    }

    pub(crate) fn memory(&self) -> &GuestMemoryMmap {
        &self.memory
    }

    /// The one door from claim to bytes.
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

fn map_region(region: Region) -> io::Result<(Mapping, GuestRegionMmap)> {
    let size = usize::try_from(region.size).map_err(io::Error::other)?;
    let mapping = map_anonymous(size.checked_add(HUGE_PAGE).ok_or(io::ErrorKind::OutOfMemory)?)?;
    let first = mapping.first.as_ptr().cast::<u8>();
    let skip = first.align_offset(HUGE_PAGE);
    // SAFETY: `skip` is below HUGE_PAGE, so that `skip + size` is inside the mapping.
    let first = unsafe { first.add(skip) };
    advise(first, size, libc::MADV_HUGEPAGE);
    advise(first, size, libc::MADV_DONTDUMP);
    let builder = MmapRegionBuilder::new(size).with_mmap_prot(PROTECTION).with_mmap_flags(FLAGS);
    // SAFETY: the range is mapped with just these flags, and stays so while `mapping` lives.
    let builder = unsafe { builder.with_raw_mmap_pointer(first) };
    let part = GuestRegionMmap::new(builder.build().map_err(io::Error::other)?, GuestAddress(region.first))
        .ok_or_else(|| io::Error::other("the region wraps"))?;
    Ok((mapping, part))
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
}

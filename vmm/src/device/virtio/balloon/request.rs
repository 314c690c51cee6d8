//! Numbers of pages -> ranges of the guest's addresses.

use crate::device::virtio::queue::Buffers;
use crate::memory::{BadClaim, Claimed, GuestRam};

/// Size of a page here, whatever the guest's is (virtio 1.2 section 5.5.6).
const PAGE: u64 = 4096;
const NUMBER_SIZE: usize = 4;
/// Most pages of one request; Linux sends 256. Those behind are not given back.
pub(super) const PAGES_MAX: usize = 1024;

const _: () = assert!(PAGES_MAX as u64 * PAGE <= u32::MAX as u64);

/// Page numbers in order.
#[derive(Debug)]
pub(super) struct Pages(Vec<u32>);

impl Pages {
    pub(super) fn read(mut numbers: Buffers, ram: &GuestRam) -> Result<Self, BadClaim> {
        let count = (numbers.len() / NUMBER_SIZE as u64).min(PAGES_MAX as u64);
        let mut bytes = vec![0; count as usize * NUMBER_SIZE];
        numbers.read(ram, &mut bytes)?;
        let (words, _) = bytes.as_chunks::<NUMBER_SIZE>();
        let mut pages: Vec<u32> = words.iter().map(|word| u32::from_le_bytes(*word)).collect();
        pages.sort_unstable();
        pages.dedup();
        Ok(Self(pages))
    }

    /// Ranges as long as can be: each is a system call.
    pub(super) fn runs(&self) -> impl Iterator<Item = Result<Claimed, BadClaim>> {
        let in_a_row = |a: &u32, b: &u32| a.checked_add(1) == Some(*b);
        // No run is longer than PAGES_MAX.
        self.0
            .chunk_by(in_a_row)
            .map(|run| Claimed::new(u64::from(run[0]) * PAGE, (run.len() as u64 * PAGE) as u32))
    }
}

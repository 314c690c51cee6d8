//! Address -> device window. Built, then frozen: look-up needs no lock and has no lock order.
#![forbid(unsafe_code)]

use std::sync::{Arc, Mutex};

use crate::layout::Region;

/// A device window. `at` is relative to the window; `at + len` never leaves it.
pub(crate) trait Window: Send {
    fn load(&mut self, at: u64, out: &mut [u8]);
    fn store(&mut self, at: u64, bytes: &[u8]);
}

/// What an address without a device reads as.
pub(crate) const NOTHING: u8 = 0xff;

struct Slot {
    region: Region,
    window: Arc<Mutex<dyn Window>>,
}

/// Windows may still be claimed.
#[derive(Default)]
pub(crate) struct BusBuilder(Vec<Slot>);

/// Two windows would share an address, or one wraps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Overlap(pub(crate) Region);

impl BusBuilder {
    pub(crate) fn claim(&mut self, region: Region, window: Arc<Mutex<dyn Window>>) -> Result<(), Overlap> {
        let end = region.first.checked_add(region.size).filter(|end| region.first < *end);
        let end = end.ok_or(Overlap(region))?;
        if self.0.iter().any(|slot| slot.region.first < end && region.first < slot.region.end()) {
            return Err(Overlap(region));
        }
        self.0.push(Slot { region, window });
        Ok(())
    }

    /// After this no device comes or goes.
    pub(crate) fn freeze(mut self) -> Bus {
        self.0.sort_unstable_by_key(|slot| slot.region.first);
        Bus(self.0.into_boxed_slice())
    }
}

/// The frozen bus. Each window has its own lock and takes no other window's.
pub(crate) struct Bus(Box<[Slot]>);

impl Bus {
    pub(crate) fn load(&self, address: u64, out: &mut [u8]) {
        match self.find(address, out.len()) {
            Some((slot, at)) => lock(&slot.window).load(at, out),
            None => out.fill(NOTHING),
        }
    }

    pub(crate) fn store(&self, address: u64, bytes: &[u8]) {
        if let Some((slot, at)) = self.find(address, bytes.len()) {
            lock(&slot.window).store(at, bytes);
        }
    }

    /// The window that holds all of the access.
    fn find(&self, address: u64, len: usize) -> Option<(&Slot, u64)> {
        let index = self.0.partition_point(|slot| slot.region.first <= address).checked_sub(1)?;
        let slot = &self.0[index];
        let at = address - slot.region.first;
        let end = at.checked_add(len as u64)?;
        (end <= slot.region.size).then_some((slot, at))
    }
}

/// A lock is poisoned only if a device panicked: our bug, which must not spread to other threads.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Answers each load with the offset, and remembers the last store.
    struct Probe(Option<u64>);

    impl Window for Probe {
        fn load(&mut self, at: u64, out: &mut [u8]) {
            out.fill(u8::try_from(at).unwrap());
        }

        fn store(&mut self, at: u64, _: &[u8]) {
            self.0 = Some(at);
        }
    }

    fn probe() -> Arc<Mutex<Probe>> {
        Arc::new(Mutex::new(Probe(None)))
    }

    #[test]
    fn accesses_find_their_window_or_nothing() {
        let mut builder = BusBuilder::default();
        builder.claim(Region { first: 0x300, size: 0x10 }, probe()).unwrap();
        let first = probe();
        builder.claim(Region { first: 0x100, size: 0x10 }, Arc::clone(&first) as _).unwrap();
        let bus = builder.freeze();
        let load = |address, len| {
            let mut out = vec![0; len];
            bus.load(address, &mut out);
            out
        };
        assert_eq!(load(0x30f, 1), [0xf]);
        assert_eq!(load(0x30c, 4), [0xc; 4]);
        // Across the end, between, below, wrapping.
        assert_eq!(load(0x30d, 4), [NOTHING; 4]);
        assert_eq!(load(0x200, 2), [NOTHING; 2]);
        assert_eq!(load(0, 1), [NOTHING]);
        assert_eq!(load(u64::MAX, 8), [NOTHING; 8]);
        bus.store(0x108, &[1]);
        bus.store(0x110, &[1]);
        assert_eq!(lock(&first).0, Some(8));
    }

    proptest! {
        #[test]
        fn no_two_windows_overlap(claims in prop::collection::vec((0_u64..64, 0_u64..16), 1..12)) {
            let mut builder = BusBuilder::default();
            let mut taken = [false; 128];
            for (first, size) in claims {
                let wanted = usize::try_from(first).unwrap()..usize::try_from(first + size).unwrap();
                let free = size != 0 && !taken[wanted.clone()].contains(&true);
                prop_assert_eq!(builder.claim(Region { first, size }, probe()).is_ok(), free);
                if free {
                    taken[wanted].fill(true);
                }
            }
            let wraps = Region { first: u64::MAX, size: 2 };
            prop_assert!(builder.claim(wraps, probe()).is_err());
        }
    }
}

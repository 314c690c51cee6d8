//! Stands in for the crate `capng` and the C library behind it: what `virtiofsd` uses of them, by the crate `caps`.
//!
//! libcap-ng collects changes and applies them together; here each takes effect at once, and `apply` has nothing
//! left to do. Everything is of the calling thread, as the kernel has it.
#![forbid(unsafe_code)]

use std::ops::BitOr;

use caps::CapSet;
pub use caps::Capability;
use caps::errors::CapsError;

pub type Result<T> = std::result::Result<T, CapsError>;

/// What is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Set {
    CAPS,
    BOUNDS,
    BOTH,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    DROP,
    ADD,
}

/// Sets of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Type {
    effective: bool,
    permitted: bool,
}

impl Type {
    pub const EFFECTIVE: Self = Self { effective: true, permitted: false };
    pub const PERMITTED: Self = Self { effective: false, permitted: true };

    fn sets(self) -> impl Iterator<Item = CapSet> {
        // A capability has to be permitted before it is effective.
        let both = [(self.permitted, CapSet::Permitted), (self.effective, CapSet::Effective)];
        both.into_iter().filter(|(is_meant, _)| *is_meant).map(|(_, set)| set)
    }
}

impl BitOr for Type {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self { effective: self.effective || other.effective, permitted: self.permitted || other.permitted }
    }
}

/// One change.
#[derive(Clone, Debug)]
pub struct CUpdate {
    pub action: Action,
    pub cap_type: Type,
    pub capability: Capability,
}

/// `FSETID`, as libcap-ng has the names.
///
/// # Errors
/// There is no such capability.
pub fn name_to_capability(name: &str) -> Result<Capability> {
    format!("CAP_{name}").parse()
}

/// # Errors
/// None: what the thread has is asked when it is needed.
pub fn get_caps_process() -> Result<()> {
    Ok(())
}

pub fn have_capability(which: Type, capability: Capability) -> bool {
    which.sets().all(|set| caps::has_cap(None, set, capability).unwrap_or(false))
}

/// Makes the changes.
///
/// # Errors
/// The kernel's.
pub fn update(changes: Vec<CUpdate>) -> Result<()> {
    for CUpdate { action, cap_type, capability } in changes {
        for set in cap_type.sets() {
            match action {
                Action::DROP => caps::drop(None, set, capability)?,
                Action::ADD => caps::raise(None, set, capability)?,
            }
        }
    }
    Ok(())
}

/// Drops everything.
pub fn clear(set: Set) {
    let sets: &[CapSet] = match set {
        Set::CAPS => &[CapSet::Effective, CapSet::Permitted],
        Set::BOUNDS => &[CapSet::Bounding],
        Set::BOTH => &[CapSet::Bounding, CapSet::Effective, CapSet::Permitted],
    };
    for set in sets {
        // Who may not even drop has nothing that is worth dropping.
        let _ = caps::clear(None, *set);
    }
}

/// # Errors
/// None: changes have been made already.
pub fn apply(_: Set) -> Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_capability_goes_and_comes_back() {
        let fsetid = name_to_capability("FSETID").unwrap();
        assert_eq!(fsetid, Capability::CAP_FSETID);
        assert!(name_to_capability("NOPE").is_err());
        // Of this thread alone.
        let change = |action| vec![CUpdate { action, cap_type: Type::EFFECTIVE, capability: fsetid }];
        assert!(have_capability(Type::EFFECTIVE | Type::PERMITTED, fsetid), "these tests need root");
        update(change(Action::DROP)).unwrap();
        assert!(!have_capability(Type::EFFECTIVE, fsetid) && have_capability(Type::PERMITTED, fsetid));
        update(change(Action::ADD)).unwrap();
        apply(Set::CAPS).unwrap();
        assert!(have_capability(Type::EFFECTIVE, fsetid));
    }
}

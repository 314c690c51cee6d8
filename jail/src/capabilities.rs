//! What root may do, and how none of it is left.

use caps::{CapSet, Capability};
use hull_errors::Doing;

use crate::Error;

/// What the process may do on its way in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Powers {
    /// Make namespaces.
    pub(crate) namespaces: bool,
    /// Choose its ids.
    pub(crate) ids: bool,
}

pub(crate) fn powers() -> Result<Powers, Error> {
    let has = |capability| {
        caps::has_cap(None, CapSet::Effective, capability).doing((), || "read the capabilities".into())
    };
    Ok(Powers {
        namespaces: has(Capability::CAP_SYS_ADMIN)?,
        ids: has(Capability::CAP_SETUID)? && has(Capability::CAP_SETGID)?,
    })
}

/// Empties the bounding set where that is allowed; where it is not, there is nothing to regain anyway.
pub(crate) fn shrink_bounds() -> Result<(), Error> {
    let doing = || "empty the bounding set of capabilities".to_owned();
    if !caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).doing((), doing)? {
        return Ok(());
    }
    caps::clear(None, CapSet::Bounding).doing((), doing)
}

pub(crate) fn drop_all() -> Result<(), Error> {
    let sets = [CapSet::Ambient, CapSet::Effective, CapSet::Permitted, CapSet::Inheritable];
    for set in sets {
        caps::clear(None, set).doing((), || format!("drop the {set:?} capabilities"))?;
    }
    Ok(())
}

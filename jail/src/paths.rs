//! Landlock: no path may be used for anything, no port, no signal to the outside.

use hull_errors::Doing;
use landlock::{ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetStatus, Scope};

use crate::Error;

/// The version up to which we know what there is to forbid.
const NEWEST: ABI = ABI::V6;

/// Forbids everything that this kernel's Landlock can; `false` if that is less than all.
pub(crate) fn forbid_all() -> Result<bool, Error> {
    let doing = || "give up all paths by Landlock".to_owned();
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(NEWEST)))
        .and_then(|rules| rules.scope(Scope::from_all(NEWEST)))
        .and_then(Ruleset::create)
        .and_then(|rules| rules.restrict_self())
        .doing((), doing)?;
    Ok(status.ruleset == RulesetStatus::FullyEnforced)
}

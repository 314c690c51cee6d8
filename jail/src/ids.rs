//! User and group ids that nothing else on the host has.

use hull_errors::Doing;
use nix::unistd::{Gid, Uid, getpid, setgroups, setresgid, setresuid};

use crate::Error;

/// Ids for jailed processes. With as many as there are process numbers (4194304, `PID_MAX_LIMIT` of
/// include/linux/threads.h) no two processes ever share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    pub first: u32,
    pub count: u32,
}

/// Where a process that may choose its ids takes them from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ids {
    /// The one of a range that goes with the process's number.
    OfProcess(IdRange),
    /// This one: whoever started the process knows that nobody else has it. 0 is root's, and refused.
    Given(u32),
    /// The user's, who may take no others.
    Kept,
}

impl Ids {
    /// Takes the id, for user and group, and no other group; false if it is to be the user's.
    pub(crate) fn take(self) -> Result<bool, Error> {
        let id = match self {
            Self::OfProcess(range) => range.id(getpid().as_raw().unsigned_abs()),
            Self::Given(id) => id,
            Self::Kept => return Ok(false),
        };
        assert!(id > 0, "root's id is nobody's own");
        let doing = || format!("take the user id {id}");
        let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
        setgroups(&[]).doing((), doing)?;
        setresgid(gid, gid, gid).doing((), doing)?;
        setresuid(uid, uid, uid).doing((), doing)?;
        Ok(true)
    }
}

impl IdRange {
    fn id(self, pid: u32) -> u32 {
        assert!(self.first > 0 && self.count > 0, "a range has ids, and root's is none of them");
        self.first + pid % self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_process_has_an_id_of_the_range() {
        let range = IdRange { first: 1000, count: 10 };
        assert_eq!([0, 9, 10, 4_194_303].map(|pid| range.id(pid)), [1000, 1009, 1000, 1003]);
    }
}

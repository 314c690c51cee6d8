//! The pod as stage0 handed it over.

use std::env;
use std::path::PathBuf;
use std::rc::Rc;

use hull_errors::Doing;
use hull_pod::dir::{self, CONTRACT, Lock, MANIFEST};
use hull_pod::{Contract, Flavour, Manifest, PodId, Verdict, contract};
use nix::unistd::setsid;

use crate::notify::{self, Manager};
use crate::record::Record;
use crate::{Error, Kind, sys};

/// A pod that this process now is: it ends when this value's process ends.
#[derive(Debug)]
pub struct Pod {
    /// The pod directory, absolute.
    pub path: PathBuf,
    pub contract: Contract,
    pub manifest: Manifest,
    pub(crate) manager: Rc<Manager>,
    _lock: Lock,
}

impl Pod {
    /// Takes over the pod: argument 1 is its id, the working directory its directory, and
    /// [`contract::LOCK_FD`] names the descriptor that holds its lock. Call it first in `main`, once.
    ///
    /// # Errors
    /// The caller is not a stage0 of this version, or asks for a flavour that is not in `provided`.
    pub fn take_over(provided: &[Flavour]) -> Result<Self, Error> {
        let lock = take_lock()?;
        let id = env::args().nth(1).unwrap_or_default();
        let id: PodId = id.parse().doing(Kind::Contract, || "read the pod id, argument 1".into())?;
        let path = env::current_dir().doing(Kind::Host, || "find the pod directory".into())?;
        let contract: Contract =
            dir::read_json(&path, CONTRACT).doing(Kind::Contract, || format!("take over pod {id}"))?;
        let manifest =
            dir::read_json(&path, MANIFEST).doing(Kind::Contract, || format!("take over pod {id}"))?;
        check(&contract, &id, provided)?;
        if contract.detached {
            setsid().doing(Kind::Host, || "leave the user's session".into())?;
        }
        let manager = Rc::new(Manager::at(env::var(notify::SOCKET).ok().as_deref()));
        Ok(Self { path, contract, manifest, manager, _lock: lock })
    }

    /// Writes down that the pod failed before its agent could say anything.
    ///
    /// # Errors
    /// The host's: the status could not be written.
    pub fn fail(&self, why: &Error) -> Result<Verdict, Error> {
        let mut record = Record::new(self);
        record.failed(hull_errors::chain(why));
        record.conclude()
    }
}

fn take_lock() -> Result<Lock, Error> {
    let number = env::var(contract::LOCK_FD).ok().and_then(|text| text.parse().ok());
    let number = number.ok_or_else(|| {
        Error::new(
            Kind::Contract,
            format!("{} names no descriptor; pods are started with hull run", contract::LOCK_FD),
        )
    })?;
    let lock = sys::adopt_lock(number).doing(Kind::Contract, || format!("adopt lock descriptor {number}"))?;
    Ok(lock.into())
}

fn check(contract: &Contract, id: &PodId, provided: &[Flavour]) -> Result<(), Error> {
    let refuse = |why: String| Err(Error::new(Kind::Contract, why));
    if contract.version != contract::VERSION {
        return refuse(format!(
            "pod {id} was prepared for stage1 interface {}, this stage1 provides {}; prepare it again",
            contract.version,
            contract::VERSION
        ));
    }
    if contract.pod != *id {
        return refuse(format!("the contract in this directory is for pod {}, not {id}", contract.pod));
    }
    if !provided.contains(&contract.flavour) {
        return refuse(format!("this stage1 does not provide {}", contract.flavour.as_str()));
    }
    Ok(())
}

//! A pod's state is where its directory lies and who holds the lock.
//!
//! ```text
//! embryo/ID ─lock─▶ prepare/ID ─▶ prepared/ID ─▶ run/ID ─process ends─▶ exited-garbage/ID ─▶ gone
//!                       └─ process ends ─▶ garbage/ID ─▶ gone
//! ```
//! A transition is one `rename(2)`; the lock is an exclusive `flock(2)` on the directory itself. It
//! belongs to the open descriptor that stage0 passes to stage1, so a pod is alive exactly as long as
//! its stage1: whatever kills that, the kernel drops the lock, and [`crate::Pods`] sees an exited pod.

use std::fs::{self, File};
use std::io::Write;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use hull_errors::Doing;
use nix::fcntl::{FcntlArg, FdFlag, Flock, FlockArg, fcntl};
use nix::unistd::close;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::pods::Place;
use crate::{Error, Kind, PodId, Pods};

/// The manifest, [`crate::Manifest`]. Its modification time is when the pod was created.
pub const MANIFEST: &str = "pod";
/// The contract, [`crate::Contract`].
pub const CONTRACT: &str = "stage1.json";
/// The status, [`crate::Status`].
pub const STATUS: &str = "status.json";
/// What the stage1 of a pod that nobody waits for says on standard error: its own troubles, no app's output.
pub const STAGE1_LOG: &str = "stage1.log";
/// Process id of the pod's PID 1 (of the VMM in a VM pod), decimal. Its modification time is when the
/// pod was started.
pub const PID: &str = "pid";
/// The pod's cgroup, absolute; written before the cgroup is made, so that gc finds it.
pub const SUBCGROUP: &str = "subcgroup";

/// Being filled by the process that holds it.
#[derive(Debug)]
pub struct Preparing;
/// Complete, not started.
#[derive(Debug)]
pub struct Prepared;
/// Given to a stage1.
#[derive(Debug)]
pub struct Running;

/// A pod directory whose lock this process holds.
#[derive(Debug)]
pub struct PodDir<S> {
    pods: Pods,
    id: PodId,
    place: Place,
    lock: Flock<File>,
    state: PhantomData<S>,
}

impl PodDir<Preparing> {
    /// Makes the directory: locked first, visible under `prepare/` second, so that nobody ever sees it
    /// there unlocked.
    ///
    /// # Errors
    /// The host's, no space above all.
    pub fn create(pods: &Pods, id: PodId) -> Result<Self, Error> {
        let embryo = pods.path(Place::Embryo, &id);
        fs::create_dir(&embryo).doing(Kind::Host, || format!("create pod directory {}", embryo.display()))?;
        let lock = lock(&embryo).inspect_err(|_| remove_quietly(&embryo))?;
        let pod = Self { pods: pods.clone(), id, place: Place::Embryo, lock, state: PhantomData };
        pod.moved_to(Place::Prepare)
    }

    /// Everything is written: the pod may be started.
    ///
    /// # Errors
    /// The host's.
    pub fn commit(self) -> Result<PodDir<Prepared>, Error> {
        self.moved_to(Place::Prepared)
    }
}

impl PodDir<Prepared> {
    /// Takes a pod that somebody prepared.
    ///
    /// # Errors
    /// It does not exist, or another process is starting it.
    pub fn open(pods: &Pods, id: PodId) -> Result<Self, Error> {
        let lock = lock(&pods.path(Place::Prepared, &id))?;
        Ok(Self { pods: pods.clone(), id, place: Place::Prepared, lock, state: PhantomData })
    }

    /// Moves the pod to `run/`.
    ///
    /// # Errors
    /// The host's.
    pub fn start(self) -> Result<PodDir<Running>, Error> {
        self.moved_to(Place::Run)
    }
}

impl PodDir<Running> {
    /// Lets the lock outlive this process image: the descriptor stays open across `execve(2)`. Returns
    /// its number, for [`crate::contract::LOCK_FD`].
    ///
    /// # Errors
    /// The host's.
    pub fn hand_over(&self) -> Result<i32, Error> {
        fcntl(&*self.lock, FcntlArg::F_SETFD(FdFlag::empty()))
            .doing(Kind::Host, || format!("hand over the lock of pod {}", self.id))?;
        Ok(self.lock.as_raw_fd())
    }

    /// Leaves the pod to the process that has inherited the lock.
    ///
    /// # Errors
    /// The host's.
    pub fn leave(self) -> Result<(), Error> {
        // Dropping it would unlock, and that for all who share the descriptor: flock(2).
        let lock = ManuallyDrop::new(self.lock);
        close(lock.as_raw_fd()).doing(Kind::Host, || format!("leave pod {}", self.id))
    }
}

impl<S> PodDir<S> {
    /// The pod's id.
    pub fn id(&self) -> &PodId {
        &self.id
    }

    /// Where the directory is now.
    pub fn path(&self) -> PathBuf {
        self.pods.path(self.place, &self.id)
    }

    /// Writes a JSON file of the pod, whole or not at all.
    ///
    /// # Errors
    /// The host's.
    pub fn write_json<T: Serialize>(&self, name: &str, value: &T) -> Result<(), Error> {
        write_json(&self.path(), name, value)
    }

    /// Removes the pod: what was prepared has failed and nothing of it is worth keeping.
    ///
    /// # Errors
    /// The host's; gc will try again.
    pub fn discard(self) -> Result<(), Error> {
        let id = self.id.clone();
        let pod: PodDir<Preparing> = self.moved_to(Place::Garbage)?;
        fs::remove_dir_all(pod.path()).doing(Kind::Host, || format!("remove pod {id}"))
    }

    fn moved_to<T>(self, place: Place) -> Result<PodDir<T>, Error> {
        let (from, to) = (self.path(), self.pods.path(place, &self.id));
        fs::rename(&from, &to)
            .doing(Kind::Host, || format!("move {} to {}", from.display(), to.display()))?;
        Ok(PodDir { pods: self.pods, id: self.id, place, lock: self.lock, state: PhantomData })
    }
}

/// Takes the exclusive lock of a directory without waiting.
pub(crate) fn lock(dir: &Path) -> Result<Flock<File>, Error> {
    let name = || dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let file = File::open(dir).map_err(|why| match why.kind() {
        std::io::ErrorKind::NotFound => Error::new(Kind::Missing, format!("no pod {} there", name())),
        _ => Error::because(Kind::Host, format!("open pod directory {}", dir.display()), why),
    })?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, why)| match why {
        nix::errno::Errno::EWOULDBLOCK => {
            Error::new(Kind::Locked, format!("pod {} is held by another process", name()))
        }
        _ => Error::because(Kind::Host, format!("lock pod directory {}", dir.display()), why),
    })
}

/// Writes `name` in the pod directory `dir` as JSON, whole or not at all.
///
/// # Errors
/// The host's.
pub fn write_json<T: Serialize>(dir: &Path, name: &str, value: &T) -> Result<(), Error> {
    let bytes = serde_json::to_vec_pretty(value).doing(Kind::Host, || format!("encode {name}"))?;
    write(dir, name, &bytes)
}

/// Writes `name` in the pod directory `dir`, whole or not at all. Not synced: a pod does not survive
/// the power cut that could lose it.
///
/// # Errors
/// The host's; the old file is still there then.
pub fn write(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), Error> {
    let (part, whole) = (dir.join(format!("{name}.part")), dir.join(name));
    let written = File::create(&part)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| fs::rename(&part, &whole));
    written.doing(Kind::Host, || format!("write {}", whole.display()))
}

/// Reads a JSON file of the pod directory `dir`.
///
/// # Errors
/// [`Kind::Missing`] where there is none, [`Kind::BadFile`] where it says something else.
pub fn read_json<T: DeserializeOwned>(dir: &Path, name: &str) -> Result<T, Error> {
    let path = dir.join(name);
    let bytes = fs::read(&path).map_err(|why| match why.kind() {
        std::io::ErrorKind::NotFound => {
            Error::because(Kind::Missing, format!("read {}", path.display()), why)
        }
        _ => Error::because(Kind::Host, format!("read {}", path.display()), why),
    })?;
    serde_json::from_slice(&bytes).doing(Kind::BadFile, || format!("understand {}", path.display()))
}

/// The lock descriptor as stage1 received it; it only has to stay open.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "held, never read")] OwnedFd);

impl From<OwnedFd> for Lock {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

fn remove_quietly(dir: &Path) {
    let _ = fs::remove_dir(dir); // The error that led here is the one worth telling; gc removes embryos.
}

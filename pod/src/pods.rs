//! All pods of a data directory: finding, listing, removing.

use std::fs::{self, DirBuilder, File};
use std::io::Read;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use hull_errors::Doing;
use nix::fcntl::{Flock, FlockArg};

use crate::dir::{self, CONTRACT, MANIFEST, PID, STAGE1_LOG, STATUS, SUBCGROUP};
use crate::{Contract, Error, Kind, Manifest, PodId, Status, cgroup};

/// The folders of pods: for the owner, and to look at for the group that may use hull.
const FOLDER_MODE: u32 = 0o750;

/// Where a pod directory may lie, in the order of a pod's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    Embryo,
    Prepare,
    Prepared,
    Run,
    ExitedGarbage,
    Garbage,
}

impl Place {
    const ALL: [Self; 6] =
        [Self::Embryo, Self::Prepare, Self::Prepared, Self::Run, Self::ExitedGarbage, Self::Garbage];

    fn folder(self) -> &'static str {
        match self {
            Self::Embryo => "embryo",
            Self::Prepare => "prepare",
            Self::Prepared => "prepared",
            Self::Run => "run",
            Self::ExitedGarbage => "exited-garbage",
            Self::Garbage => "garbage",
        }
    }
}

/// A pod's state: its place and whether somebody holds its lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Embryo,
    Preparing,
    AbortedPrepare,
    Prepared,
    Running,
    Exited,
    ExitedGarbage,
    ExitedDeleting,
    Garbage,
    Deleting,
}

impl State {
    fn of(place: Place, locked: bool) -> Self {
        match (place, locked) {
            (Place::Embryo, _) => Self::Embryo,
            (Place::Prepare, true) => Self::Preparing,
            (Place::Prepare, false) => Self::AbortedPrepare,
            (Place::Prepared, _) => Self::Prepared,
            (Place::Run, true) => Self::Running,
            (Place::Run, false) => Self::Exited,
            (Place::ExitedGarbage, false) => Self::ExitedGarbage,
            (Place::ExitedGarbage, true) => Self::ExitedDeleting,
            (Place::Garbage, false) => Self::Garbage,
            (Place::Garbage, true) => Self::Deleting,
        }
    }

    /// As rkt prints it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Embryo => "embryo",
            Self::Preparing => "preparing",
            Self::AbortedPrepare => "aborted prepare",
            Self::Prepared => "prepared",
            Self::Running => "running",
            Self::Exited => "exited",
            Self::ExitedGarbage => "exited garbage",
            Self::ExitedDeleting => "exited deleting",
            Self::Garbage => "garbage",
            Self::Deleting => "deleting",
        }
    }
}

/// The folder of all pods.
#[derive(Clone, Debug)]
pub struct Pods {
    root: PathBuf,
}

/// A pod as it was found; it may have moved on since.
#[derive(Debug)]
pub struct Found {
    pub id: PodId,
    pub state: State,
    place: Place,
    path: PathBuf,
}

impl Pods {
    /// Opens `root`, with all places in it.
    ///
    /// # Errors
    /// The host's.
    pub fn open(root: &Path) -> Result<Self, Error> {
        for place in Place::ALL {
            let folder = root.join(place.folder());
            if !folder.is_dir() {
                // Manifests hold environments, and environments hold secrets.
                let mut builder = DirBuilder::new();
                builder
                    .recursive(true)
                    .mode(FOLDER_MODE)
                    .create(&folder)
                    .doing(Kind::Host, || format!("create {}", folder.display()))?;
            }
        }
        Ok(Self { root: root.to_owned() })
    }

    pub(crate) fn path(&self, place: Place, id: &PodId) -> PathBuf {
        self.root.join(place.folder()).join(id.as_str())
    }

    /// Every pod, sorted by id.
    ///
    /// # Errors
    /// The host's.
    pub fn list(&self) -> Result<Vec<Found>, Error> {
        // Pods only move forward, so walking the places in that order misses none; a pod seen twice
        // counts where it was seen last.
        let mut found = std::collections::BTreeMap::new();
        for place in Place::ALL {
            for id in self.ids(place)? {
                found.insert(id, place);
            }
        }
        Ok(found.into_iter().filter_map(|(id, place)| self.look(place, id)).collect())
    }

    /// The one pod whose id starts with `prefix`, in any case of letters.
    ///
    /// # Errors
    /// None or several.
    pub fn find(&self, prefix: &str) -> Result<Found, Error> {
        let prefix = prefix.to_ascii_lowercase();
        let fits = |found: &Found| found.id.as_str().starts_with(&prefix);
        let mut matches: Vec<_> = self.list()?.into_iter().filter(fits).collect();
        match (matches.pop(), matches.len()) {
            (Some(found), 0) if !prefix.is_empty() => Ok(found),
            (None, _) => {
                Err(Error::new(Kind::Missing, format!("no pod matches {prefix:?}; hull list shows all")))
            }
            (Some(_), others) => Err(Error::new(
                Kind::BadName,
                format!("{prefix:?} matches {} pods; type more of the id", others + 1),
            )),
        }
    }

    fn ids(&self, place: Place) -> Result<Vec<PodId>, Error> {
        let folder = self.root.join(place.folder());
        let entries = fs::read_dir(&folder).doing(Kind::Host, || format!("list {}", folder.display()))?;
        // What has no pod's name is not ours to touch.
        Ok(entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect())
    }

    /// `None`: gone since it was listed.
    fn look(&self, place: Place, id: PodId) -> Option<Found> {
        let forward = Place::ALL.into_iter().filter(|p| *p >= place);
        let (place, path, locked) = forward.into_iter().find_map(|place| {
            let path = self.path(place, &id);
            let dir = File::open(&path).ok()?;
            let locked = Flock::lock(dir, FlockArg::LockSharedNonblock).is_err();
            // A rename between open and lock would pair the old place with the new lock.
            path.exists().then_some((place, path, locked))
        })?;
        Some(Found { state: State::of(place, locked), id, place, path })
    }

    /// Moves what has ended out of the way: exited pods to `exited-garbage/`, aborted ones to `garbage/`.
    ///
    /// # Errors
    /// The host's.
    pub fn mark(&self, found: &Found) -> Result<Option<Found>, Error> {
        let to = match found.state {
            State::Exited => Place::ExitedGarbage,
            State::AbortedPrepare => Place::Garbage,
            State::Embryo if found.age() > EMBRYO_AGE_MAX => Place::Garbage,
            _ => return Ok(None),
        };
        // Whoever holds the lock by now is ahead of us; leave the pod to them.
        let Ok(_lock) = dir::lock(&found.path) else { return Ok(None) };
        let path = self.path(to, &found.id);
        fs::rename(&found.path, &path).doing(Kind::Host, || format!("move pod {} to garbage", found.id))?;
        Ok(Some(Found { id: found.id.clone(), state: State::of(to, false), place: to, path }))
    }

    /// Moves a pod that was prepared and never started to `garbage/`.
    ///
    /// # Errors
    /// It is being started, or the host's.
    pub fn expire(&self, found: &Found) -> Result<Found, Error> {
        let _lock = dir::lock(&found.path)?;
        let path = self.path(Place::Garbage, &found.id);
        fs::rename(&found.path, &path).doing(Kind::Host, || format!("move pod {} to garbage", found.id))?;
        Ok(Found { id: found.id.clone(), state: State::Garbage, place: Place::Garbage, path })
    }

    /// Deletes a pod in `exited-garbage/` or `garbage/`, with its cgroup, whatever still runs in it, and what the
    /// host has of its networks.
    ///
    /// # Errors
    /// [`Kind::WrongState`] for any other pod; [`Kind::Locked`] if another process deletes it already.
    pub fn delete(&self, found: &Found) -> Result<(), Error> {
        if !matches!(found.place, Place::ExitedGarbage | Place::Garbage) {
            return Err(Error::new(
                Kind::WrongState,
                format!("pod {} is {}", found.id, found.state.as_str()),
            ));
        }
        let _lock = dir::lock(&found.path)?;
        if let Ok(path) = fs::read_to_string(found.path.join(SUBCGROUP)) {
            cgroup::remove(Path::new(path.trim()))?;
        }
        hull_network::disconnect(&found.path)
            .doing(Kind::Host, || format!("take pod {} off its networks", found.id))?;
        fs::remove_dir_all(&found.path).doing(Kind::Host, || format!("remove pod {}", found.id))
    }
}

/// How long a directory may stay in `embryo/`: its maker needs two system calls to lock and move it.
const EMBRYO_AGE_MAX: Duration = Duration::from_secs(60);

impl Found {
    /// The pod directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The manifest; absent while the pod is being prepared.
    ///
    /// # Errors
    /// As [`dir::read_json`].
    pub fn manifest(&self) -> Result<Manifest, Error> {
        dir::read_json(&self.path, MANIFEST)
    }

    /// The contract with the stage1.
    ///
    /// # Errors
    /// As [`dir::read_json`].
    pub fn contract(&self) -> Result<Contract, Error> {
        dir::read_json(&self.path, CONTRACT)
    }

    /// What stage1 has written so far; empty before its first word.
    ///
    /// # Errors
    /// As [`dir::read_json`].
    pub fn status(&self) -> Result<Status, Error> {
        match dir::read_json(&self.path, STATUS) {
            Err(why) if *why.kind() == Kind::Missing => Ok(Status::default()),
            other => other,
        }
    }

    /// What the stage1 of a detached pod has said on standard error; the first of it.
    pub fn stage1_said(&self) -> Vec<String> {
        const LEN_MAX: u64 = 16 << 10;
        let mut text = vec![];
        let read =
            File::open(self.path.join(STAGE1_LOG)).and_then(|file| file.take(LEN_MAX).read_to_end(&mut text));
        match read {
            Ok(_) => String::from_utf8_lossy(&text).lines().map(str::to_owned).collect(),
            Err(_) => vec![], // One that somebody waited for has none.
        }
    }

    /// The pod's process id, once it was started.
    pub fn pid(&self) -> Option<i32> {
        fs::read_to_string(self.path.join(PID)).ok()?.trim().parse().ok()
    }

    /// When the pod was created.
    pub fn created(&self) -> Option<SystemTime> {
        modified(&self.path.join(MANIFEST))
    }

    /// When the pod was started.
    pub fn started(&self) -> Option<SystemTime> {
        modified(&self.path.join(PID))
    }

    /// How long ago the directory was last moved or changed.
    pub fn age(&self) -> Duration {
        use std::os::unix::fs::MetadataExt;
        let changed = fs::metadata(&self.path).ok().and_then(|m| u64::try_from(m.ctime()).ok());
        let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(changed.unwrap_or(0));
        changed.elapsed().unwrap_or_default()
    }

    /// Waits until the pod's lock is free, that is, until it has ended.
    ///
    /// # Errors
    /// The host's.
    pub fn wait(&self) -> Result<(), Error> {
        let dir = File::open(&self.path).doing(Kind::Host, || format!("open pod {}", self.id))?;
        Flock::lock(dir, FlockArg::LockShared)
            .map(drop)
            .map_err(|(_, why)| Error::because(Kind::Host, format!("wait for pod {}", self.id), why))
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).ok()?.modified().ok()
}

#[cfg(test)]
mod tests;

//! Writes down how the pod goes: `status.json` in the pod directory.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::SystemTime;

use hull_agent_protocol::Outcome;
use hull_errors::Doing;
use hull_pod::dir::{self, STATUS};
use hull_pod::{AppName, AppStatus, Status, Verdict};

use crate::{Error, Kind, Pod};

/// The status of a pod that this process runs.
#[derive(Debug)]
pub(crate) struct Record {
    dir: PathBuf,
    status: Status,
    /// Those that will not be started again.
    ended: BTreeSet<u16>,
}

impl Record {
    pub(crate) fn new(pod: &Pod) -> Self {
        let apps = pod.manifest.apps.iter().map(|app| AppStatus::new(app.name.clone())).collect();
        Self { dir: pod.path.clone(), status: Status { apps, ..Status::default() }, ended: BTreeSet::new() }
    }

    pub(crate) fn started(&mut self, app: u16) -> Result<(), Error> {
        let status = self.app(app);
        (status.started_at, status.finished_at, status.outcome) = (Some(now()), None, None);
        self.write()
    }

    /// Whether an app has ended; one that waits for its next start has not.
    pub(crate) fn has_ended(&self, app: u16) -> bool {
        self.ended.contains(&app)
    }

    /// Whether every app has run.
    pub(crate) fn has_started(&self) -> bool {
        self.status.apps.iter().all(|app| app.started_at.is_some())
    }

    /// Where it was the last app, it is written with the verdict: between the two there is nothing that anybody
    /// could ask for.
    pub(crate) fn exited(&mut self, app: u16, outcome: Outcome) -> Result<(), Error> {
        self.ended.insert(app);
        let status = self.app(app);
        status.finished_at = Some(now());
        status.outcome = Some(outcome);
        match self.ended.len() == self.status.apps.len() {
            true => Ok(()),
            false => self.write(),
        }
    }

    /// The app has ended and waits for its next start.
    pub(crate) fn restarting(&mut self, app: u16, outcome: Outcome) -> Result<(), Error> {
        let status = self.app(app);
        status.finished_at = Some(now());
        status.outcome = Some(outcome);
        status.restarts = status.restarts.saturating_add(1);
        self.write()
    }

    /// Says and keeps what went wrong.
    pub(crate) fn warn(&mut self, text: String) -> Result<(), Error> {
        if self.status.warnings.len() >= Status::WARNINGS_MAX {
            return Ok(());
        }
        eprintln!("run: {text}");
        self.status.warnings.push(text);
        self.write()
    }

    pub(crate) fn failed(&mut self, why: String) {
        self.status.failure.get_or_insert(why);
    }

    /// The machine was taken away with the apps in it: they ended as by `SIGKILL`.
    pub(crate) fn killed(&mut self) {
        for app in self.status.apps.iter_mut().filter(|app| app.outcome.is_none()) {
            app.finished_at = Some(now());
            app.outcome = Some(Outcome::Signal(9));
        }
    }

    /// Writes the last word and says what the pod came to.
    pub(crate) fn conclude(mut self) -> Result<Verdict, Error> {
        let mut ends: Vec<&AppStatus> = self.status.apps.iter().collect();
        ends.sort_by_key(|app| app.finished_at);
        let codes: Option<Vec<u8>> = ends.into_iter().map(AppStatus::exit_code).collect();
        if codes.is_none() {
            self.failed("the machine ended before every app had".into());
        }
        self.write()?;
        Ok(match (self.status.failure, codes) {
            (None, Some(codes)) => Verdict::Apps(codes),
            (failure, _) => Verdict::Failed(failure.unwrap_or_default()),
        })
    }

    /// The number of an app; of the only one if none is named.
    pub(crate) fn find(&self, name: Option<&AppName>) -> Result<u16, String> {
        let names = || self.status.apps.iter().map(|app| app.name.as_str()).collect::<Vec<_>>().join(", ");
        let place = match name {
            None if self.status.apps.len() == 1 => Some(0),
            None => return Err(format!("pod contains multiple apps; choose one with --app: {}", names())),
            Some(name) => self.status.apps.iter().position(|app| app.name == *name),
        };
        let number = place.and_then(|place| u16::try_from(place).ok());
        number.ok_or_else(|| match name {
            Some(name) => format!("the pod has no app {name}; it has: {}", names()),
            None => "the pod has no apps".into(),
        })
    }

    fn app(&mut self, app: u16) -> &mut AppStatus {
        // `Host` refuses any number that the pod has no app for.
        self.status.apps.get_mut(usize::from(app)).expect("the protocol checked the app's number")
    }

    fn write(&self) -> Result<(), Error> {
        dir::write_json(&self.dir, STATUS, &self.status)
            .doing(Kind::Host, || "record the pod's status".into())
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

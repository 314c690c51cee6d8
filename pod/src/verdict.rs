//! How a pod goes and how it ended: the file `status.json`, written by stage1 and read by everybody.
//!
//! Eight bits of exit code cannot tell the app's end from ours, so this file does; the exit code is a
//! courtesy copy.

use hull_agent_protocol::Outcome;
use serde::{Deserialize, Serialize};

use crate::AppName;

/// The exit code of hull's own failures, as rkt's since 1.18.
pub const EXIT_FAILURE: u8 = 254;

/// Everything known about a pod that stage1 has started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// In manifest order.
    pub apps: Vec<AppStatus>,
    /// Why the pod failed as a whole, where it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// What went wrong and ended nothing; the first of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl Status {
    /// Most warnings that are kept.
    pub const WARNINGS_MAX: usize = 32;
}

/// One app. Times are nanoseconds since the epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppStatus {
    pub name: AppName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// How often it was started again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub restarts: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl AppStatus {
    /// Of an app that has not been started.
    pub fn new(name: AppName) -> Self {
        Self { name, started_at: None, finished_at: None, outcome: None, restarts: 0 }
    }

    /// The shell's number for the app's end: the code, or 128 + the signal.
    pub fn exit_code(&self) -> Option<u8> {
        self.outcome.map(exit_code)
    }
}

/// The shell's number for an end.
pub fn exit_code(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Code(code) => code,
        Outcome::Signal(signal) => signal.saturating_add(128),
    }
}

/// What stage1 ends with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every app ended by itself or was stopped; one code for each, in the order in which they ended.
    Apps(Vec<u8>),
    /// The pod could not be run, or its machine broke.
    Failed(String),
}

impl Verdict {
    /// The first app that did not end well speaks for the pod.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(_) => EXIT_FAILURE,
            Self::Apps(codes) => codes.iter().copied().find(|code| *code != 0).unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bad_end_speaks_for_the_pod() {
        let check = |verdict: Verdict, want: u8| assert_eq!(verdict.exit_code(), want, "{verdict:?}");
        check(Verdict::Apps(vec![0, 0]), 0);
        check(Verdict::Apps(vec![0, 3, 4]), 3);
        check(Verdict::Failed("no".into()), 254);
    }

    #[test]
    fn a_signal_is_128_and_its_number() {
        let name: AppName = "a".parse().unwrap();
        let status = |outcome| AppStatus { outcome, ..AppStatus::new(name.clone()) };
        assert_eq!(status(Some(Outcome::Signal(9))).exit_code(), Some(137));
        assert_eq!(status(Some(Outcome::Code(7))).exit_code(), Some(7));
        assert_eq!(status(None).exit_code(), None);
    }
}

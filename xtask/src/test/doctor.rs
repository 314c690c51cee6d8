//! Asks hull itself whether VMs can run on this host.
use std::path::Path;
use std::process::{Command, Stdio};

use hull_errors::Doing;
use serde_json::Value;

use crate::error::{Error, Kind, Result};

/// What `hull doctor` found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Doctor {
    /// VM pods run here.
    Kvm,
    /// They do not; the failed checks say why.
    NoKvm(String),
}

/// Runs the doctor of the installation in `programs`.
pub(crate) fn doctor(programs: &Path) -> Result<Doctor> {
    let hull = programs.join("hull");
    let doing = || format!("run {} doctor --format=json", hull.display());
    let mut command = Command::new(&hull);
    command.args(["doctor", "--format=json"]).stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = command.output().doing(Kind::Failed, doing)?;
    let report: Value = serde_json::from_slice(&output.stdout).doing(Kind::Failed, doing)?;
    diagnosis(&report).ok_or_else(|| Error::new(Kind::Failed, format!("{}: no verdict in {report}", doing())))
}

fn diagnosis(report: &Value) -> Option<Doctor> {
    if report["usable"].as_array()?.iter().any(|flavour| flavour == "kvm") {
        return Some(Doctor::Kvm);
    }
    let failed = report["checks"].as_array()?.iter().filter(|check| check["verdict"] == "failed");
    let reasons =
        failed.map(|check| Some(format!("{}: {}", check["name"].as_str()?, check["found"].as_str()?)));
    Some(Doctor::NoKvm(reasons.collect::<Option<Vec<_>>>()?.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_diagnosis_names_what_failed() {
        let checks = json!([
            { "name": "kvm", "verdict": "failed", "found": "no /dev/kvm" },
            { "name": "root", "verdict": "ok", "found": "user id 0" },
        ]);
        let check = |report: Value, want: Option<Doctor>| assert_eq!(diagnosis(&report), want, "{report}");
        check(json!({ "usable": ["kvm"], "checks": checks }), Some(Doctor::Kvm));
        let want = Doctor::NoKvm("kvm: no /dev/kvm".into());
        check(json!({ "usable": ["nspawn"], "checks": checks }), Some(want));
        check(json!({ "checks": checks }), None);
        check(json!({ "usable": [], "checks": [{ "verdict": "failed" }] }), None);
    }
}

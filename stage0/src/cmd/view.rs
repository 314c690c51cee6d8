//! A pod as `list` and `status` show it; the JSON keys are rkt's.

use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use hull_network::{Attached, Configured, IpNet, Record};
use hull_pod::{Found, State};
use serde::Serialize;

#[derive(Debug, Serialize)]
pub(super) struct PodView {
    pub(super) name: String,
    pub(super) state: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) app_names: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) apps: Vec<AppView>,
    /// Seconds since the epoch, as rkt's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) created_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) started_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stage1: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pid: Option<i32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) networks: Vec<NetworkView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) failure: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) warnings: Vec<String>,
}

/// A network that a running pod is in; the keys are rkt's.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NetworkView {
    net_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    net_conf: Option<String>,
    if_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    args: String,
    /// Of IPv4.
    #[serde(skip_serializing_if = "Option::is_none")]
    ip: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mask: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip6: Option<IpAddr>,
}

fn arguments(network: &Configured) -> String {
    network.args.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(";")
}

impl NetworkView {
    fn of(found: &Found) -> Vec<Self> {
        let record = Record::read(found.path()).ok().flatten().filter(|_| found.state == State::Running);
        let network = |attached: &Attached| {
            let ip = attached.addresses.iter().find(|net| net.addr().is_ipv4());
            Self {
                net_name: attached.net_name.clone(),
                net_conf: attached.configured().map(|network| network.file.display().to_string()),
                if_name: attached.if_name.clone(),
                args: attached.configured().map(arguments).unwrap_or_default(),
                ip: ip.map(IpNet::addr),
                mask: ip.map(IpNet::netmask),
                ip6: attached.addresses.iter().map(IpNet::addr).find(IpAddr::is_ipv6),
            }
        };
        record.map(|record| record.networks.iter().map(network).collect()).unwrap_or_default()
    }

    /// `default:ip4=172.16.28.2,default:ip6=…`
    pub(super) fn text(networks: &[Self]) -> String {
        let words = networks.iter().flat_map(|network| {
            let word = |key: &str, ip: Option<IpAddr>| Some(format!("{}:{key}={}", network.net_name, ip?));
            [word("ip4", network.ip), word("ip6", network.ip6)].into_iter().flatten()
        });
        words.collect::<Vec<_>>().join(",")
    }
}

#[derive(Debug, Serialize)]
pub(super) struct AppView {
    pub(super) name: String,
    pub(super) state: &'static str,
    /// Nanoseconds since the epoch, as rkt's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) started_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) finished_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) exit_code: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) restarts: Option<u32>,
    pub(super) image_id: String,
    pub(super) image_name: String,
}

impl PodView {
    /// Reads what there is: a pod that is being prepared has no manifest yet, and one that is being
    /// deleted may have lost it.
    pub(super) fn of(found: &Found) -> Self {
        let apps = found.manifest().map(|manifest| manifest.apps).unwrap_or_default();
        let status = found.status().unwrap_or_default();
        let app_view = |(index, app): (usize, &hull_pod::manifest::RuntimeApp)| {
            let status = status.apps.get(index);
            let exit_code = status.and_then(|status| status.exit_code());
            AppView {
                name: app.name.to_string(),
                state: app_state(
                    found.state,
                    status.is_some_and(|s| s.started_at.is_some()),
                    exit_code.is_some(),
                ),
                started_at: status.and_then(|status| status.started_at),
                finished_at: status.and_then(|status| status.finished_at),
                exit_code,
                restarts: status.map(|status| status.restarts).filter(|count| *count > 0),
                image_id: app.image.id.clone(),
                image_name: app.image.name.clone(),
            }
        };
        Self {
            name: found.id.to_string(),
            state: found.state.as_str(),
            app_names: apps.iter().map(|app| app.name.to_string()).collect(),
            apps: apps.iter().enumerate().map(app_view).collect(),
            created_at: found.created().and_then(seconds),
            started_at: found.started().and_then(seconds),
            stage1: found.contract().ok().map(|contract| contract.flavour.as_str()),
            pid: found.pid(),
            networks: NetworkView::of(found),
            failure: status.failure,
            warnings: warnings(status.warnings, found.stage1_said()),
        }
    }
}

/// What stage1 has noted, and what else a detached one has said; each once.
fn warnings(noted: Vec<String>, said: Vec<String>) -> Vec<String> {
    let is_new = |line: &String| !noted.iter().any(|warning| line.ends_with(warning.as_str()));
    let said: Vec<_> = said.into_iter().filter(is_new).collect();
    noted.into_iter().chain(said).collect()
}

fn app_state(pod: State, started: bool, ended: bool) -> &'static str {
    match (pod, started) {
        _ if ended => "exited",
        (State::Running, true) => "running",
        (State::Exited | State::ExitedGarbage | State::ExitedDeleting, _) => "exited",
        (State::Running | State::Prepared | State::Preparing, _) => "created",
        _ => "unknown",
    }
}

fn seconds(time: SystemTime) -> Option<u64> {
    time.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs())
}

/// `2026-11-23T18:13:41Z`
pub(super) fn absolute_time(seconds: Option<u64>) -> String {
    seconds.map_or_else(String::new, |seconds| {
        humantime::format_rfc3339_seconds(UNIX_EPOCH + std::time::Duration::from_secs(seconds)).to_string()
    })
}

/// `now`, `2 minutes ago`
pub(super) fn relative_time(then: Option<u64>, now: u64) -> String {
    let Some(age) = then.map(|then| now.saturating_sub(then)) else { return String::new() };
    let (count, unit) = match age {
        0 => return "now".into(),
        1..60 => (age, "second"),
        60..3600 => (age / 60, "minute"),
        3600..86_400 => (age / 3600, "hour"),
        _ => (age / 86_400, "day"),
    };
    format!("{count} {unit}{} ago", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_read_like_speech() {
        let check = |age: u64, want: &str| assert_eq!(relative_time(Some(1_000_000 - age), 1_000_000), want);
        check(0, "now");
        check(1, "1 second ago");
        check(59, "59 seconds ago");
        check(60, "1 minute ago");
        check(7199, "1 hour ago");
        check(200_000, "2 days ago");
        assert_eq!(relative_time(None, 5), "");
    }
}

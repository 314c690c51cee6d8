//! appc's isolators (appc spec 0.8.11, `spec/ace.md`), and hull's own, become what the agent applies.
//!
//! A limit or a right that cannot be understood is an error: a pod that was told it is limited must not
//! run as if it were not. `lenient` makes it a warning, and the app runs without.

use std::collections::BTreeSet;
use std::str::FromStr;

use caps::Capability;
use hull_agent_protocol::{Limits, ResourceLimit};
use serde::Deserialize;
use serde_json::Value;

use crate::manifest::Isolator;
use crate::seccomp::{self, Denial, Filter};
use crate::{Error, Kind};

/// Most bytes of a value that a message repeats.
const VALUE_SHOWN_MAX: usize = 80;

/// What the isolators of an app come to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Isolated {
    pub(crate) limits: Limits,
    /// Absent: the default set.
    pub(crate) capabilities: Option<Capabilities>,
    pub(crate) seccomp: Seccomp,
    pub(crate) no_new_privileges: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Capabilities {
    /// These and no others.
    Retain(Vec<String>),
    /// The default set without these.
    Remove(Vec<String>),
}

#[derive(Clone, Debug, Default)]
pub(crate) enum Seccomp {
    #[default]
    Default,
    Off,
    Filter(Filter),
}

/// Where what cannot be applied goes to.
#[derive(Debug)]
pub(crate) struct Strictness {
    pub(crate) lenient: bool,
    pub(crate) warnings: Vec<String>,
}

impl Strictness {
    /// Warns, or fails.
    fn object(&mut self, whose: &str, isolator: &str, why: &str) -> Result<(), Error> {
        let text = format!("apply isolator {isolator:?} of {whose}: {why}");
        if !self.lenient {
            return Err(Error::new(Kind::BadFile, format!("{text} (--isolators=lenient runs it without)")));
        }
        self.warnings.push(format!("{text}; going on without it"));
        Ok(())
    }
}

/// Reads the isolators of app `name`.
///
/// # Errors
/// One that is unknown, malformed or contradicts another, unless that is only warned about.
pub(crate) fn of_app(
    name: &str,
    isolators: &[Isolator],
    strictness: &mut Strictness,
) -> Result<Isolated, Error> {
    let whose = format!("app {name}");
    let (mut isolated, mut seen) = (Isolated::default(), BTreeSet::new());
    for isolator in isolators {
        let result = match seen.insert(kind(&isolator.name)) {
            true => read(&mut isolated, isolator),
            false => Err("it contradicts or repeats another one of this app".into()),
        };
        for why in result.unwrap_or_else(|why| vec![why]) {
            strictness.object(&whose, &isolator.name, &why)?;
        }
    }
    Ok(isolated)
}

/// Reads the isolators of a pod as a whole: its sysctls.
///
/// # Errors
/// As [`of_app`].
pub(crate) fn of_pod(
    isolators: &[Isolator],
    strictness: &mut Strictness,
) -> Result<Vec<(String, String)>, Error> {
    let mut sysctls = vec![];
    for isolator in isolators {
        let result = match isolator.name.as_str() {
            "os/unix/sysctl" => read_sysctls(&isolator.value),
            _ => Err("a pod as a whole has only os/unix/sysctl; give it to the apps".into()),
        };
        match result {
            Ok(more) => sysctls.extend(more),
            Err(why) => strictness.object("the pod", &isolator.name, &why)?,
        }
    }
    Ok(sysctls)
}

/// Isolators of one kind exclude each other.
pub(crate) fn kind(name: &str) -> &str {
    name.strip_suffix("-retain-set").or_else(|| name.strip_suffix("-remove-set")).unwrap_or(name)
}

/// Gives what of it is unknown and can be left out.
fn read(isolated: &mut Isolated, isolator: &Isolator) -> Result<Vec<String>, String> {
    let (limits, value) = (&mut isolated.limits, &isolator.value);
    match isolator.name.as_str() {
        "resource/cpu" => {
            let millis = u32::try_from(limit(value)?).ok().filter(|millis| *millis > 0);
            limits.cpu_millis = Some(millis.ok_or("the limit is not above 0 and below 4294967 processors")?);
        }
        "resource/memory" => limits.memory_bytes = Some(whole_limit(value)?),
        "resource/block-bandwidth" => limits.block_bytes_per_second = Some(whole_limit(value)?),
        "resource/block-iops" => limits.block_requests_per_second = Some(whole_limit(value)?),
        "resource/network-bandwidth" => limits.network_bits_per_second = Some(whole_limit(value)?),
        "hull/pids" => {
            let pids = u32::try_from(whole_limit(value)?).map_err(|_| "the limit is above 4294967295")?;
            limits.pids = Some(pids);
        }
        "hull/rlimits" => limits.resources = read_resources(value)?,
        "os/linux/cpu-shares" => {
            let shares: u64 = parse(value)?;
            // The range of cpu.shares, kernel/sched/sched.h.
            let known = (2..=262_144).contains(&shares).then_some(shares);
            limits.cpu_shares = Some(known.ok_or("shares are 2 to 262144; 1024 is the usual one")?);
        }
        "os/linux/oom-score-adj" => {
            let score: i32 = parse(value)?;
            let known = (-1000..=1000).contains(&score).then_some(score);
            limits.oom_score_adj = Some(known.ok_or("a score is -1000 to 1000")?);
        }
        "os/linux/no-new-privileges" => isolated.no_new_privileges = parse(value)?,
        "os/linux/capabilities-retain-set" => {
            isolated.capabilities = Some(Capabilities::Retain(read_capabilities(value)?));
        }
        "os/linux/capabilities-remove-set" => {
            isolated.capabilities = Some(Capabilities::Remove(read_capabilities(value)?));
        }
        "os/linux/seccomp-retain-set" => return read_seccomp(&mut isolated.seccomp, value, Filter::retain),
        "os/linux/seccomp-remove-set" => return read_seccomp(&mut isolated.seccomp, value, Filter::remove),
        "os/linux/selinux-context" | "os/linux/apparmor-profile" => {
            return Err("hull's pods have no security module to give it to".into());
        }
        "os/unix/sysctl" => return Err("it is for the pod as a whole, not for an app".into()),
        _ => return Err("there is no such isolator".into()),
    }
    Ok(vec![])
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Resource {
    /// What the app should be given at least; nothing here shares out what it could.
    #[serde(default, rename = "request")]
    _request: Value,
    /// appc's mark for a limit that holds for every disk or interface; here it always does.
    #[serde(default, rename = "default")]
    _default: Value,
    limit: Value,
}

/// In thousandths.
fn limit(value: &Value) -> Result<u64, String> {
    match parse::<Resource>(value)?.limit {
        Value::String(text) => quantity(&text),
        other => quantity(&other.to_string()),
    }
}

fn whole_limit(value: &Value) -> Result<u64, String> {
    whole(limit(value)?)
}

fn whole(thousandths: u64) -> Result<u64, String> {
    match thousandths {
        0 => Err("a limit of 0 leaves nothing".into()),
        thousandths => Ok(thousandths.div_ceil(1000)),
    }
}

/// A number of bytes as limits have it: `16Mi`.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    whole(quantity(text)?)
}

/// A number with a suffix of the decimal or the binary kind, in thousandths rounded up (Kubernetes'
/// `resource.Quantity`, which appc took over).
fn quantity(text: &str) -> Result<u64, String> {
    let bad = || format!("{:?} is no quantity such as 500m, 2 or 16Mi", shown(text));
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let thousandths: u64 = match suffix {
        "m" => 1,
        "" => 1000,
        "k" | "K" => 1_000_000,
        "M" => 1_000_000_000,
        "G" => 1_000_000_000_000,
        "T" => 1_000_000_000_000_000,
        "Ki" => 1000 << 10,
        "Mi" => 1000 << 20,
        "Gi" => 1000 << 30,
        "Ti" => 1000 << 40,
        _ => return Err(bad()),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    // Nine digits are more than any unit needs.
    if whole.is_empty() || fraction.len() > 9 || fraction.contains('.') {
        return Err(bad());
    }
    let scale = 10u128.pow(u32::try_from(fraction.len()).expect("at most nine"));
    let digits: u64 = format!("{whole}{fraction}").parse().map_err(|_| bad())?;
    let total = u128::from(digits).checked_mul(thousandths.into()).ok_or_else(bad)?.div_ceil(scale);
    u64::try_from(total).map_err(|_| format!("{:?} is more than can be counted", shown(text)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Set {
    set: Vec<String>,
    errno: Option<String>,
}

fn read_capabilities(value: &Value) -> Result<Vec<String>, String> {
    let set: Set = parse(value)?;
    if set.errno.is_some() {
        return Err("capabilities have no errno".into());
    }
    match set.set.iter().find(|name| Capability::from_str(name).is_err()) {
        Some(name) => Err(format!("{:?} is no capability; see capabilities(7)", shown(name))),
        None => Ok(set.set),
    }
}

fn read_seccomp(
    seccomp: &mut Seccomp,
    value: &Value,
    make: impl Fn(&[String], Denial) -> seccomp::Read,
) -> Result<Vec<String>, String> {
    let set: Set = parse(value)?;
    let denial = match set.errno.as_deref() {
        None | Some("") => Denial::Kill,
        Some(name) => {
            let errno = seccomp::errno(name);
            Denial::Errno(errno.ok_or_else(|| format!("{:?} is no error; see errno(3)", shown(name)))?)
        }
    };
    let read = make(&set.set, denial);
    *seccomp = read.filter.map_or(Seccomp::Off, Seccomp::Filter);
    let name = |word: &String| format!("{:?} is no system call and no set of them", shown(word));
    Ok(read.unknown.iter().map(name).collect())
}

/// As the OCI runtime specification has `process.rlimits` (1.2, config.md).
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OciLimit {
    #[serde(rename = "type")]
    name: String,
    soft: u64,
    hard: u64,
}

/// setrlimit(2).
const RESOURCES: &str = "RLIMIT_AS RLIMIT_CORE RLIMIT_CPU RLIMIT_DATA RLIMIT_FSIZE RLIMIT_LOCKS RLIMIT_MEMLOCK \
                         RLIMIT_MSGQUEUE RLIMIT_NICE RLIMIT_NOFILE RLIMIT_NPROC RLIMIT_RSS RLIMIT_RTPRIO \
                         RLIMIT_RTTIME RLIMIT_SIGPENDING RLIMIT_STACK";

fn read_resources(value: &Value) -> Result<Vec<ResourceLimit>, String> {
    let mut seen = BTreeSet::new();
    let check = |limit: OciLimit| {
        let OciLimit { name, soft, hard } = limit;
        if !RESOURCES.split(' ').any(|known| known == name) {
            return Err(format!("{:?} is no resource; see setrlimit(2)", shown(&name)));
        }
        if soft > hard {
            return Err(format!("{name} has a soft limit above the hard one"));
        }
        match seen.insert(name.clone()) {
            true => Ok(ResourceLimit { name, soft, hard }),
            false => Err(format!("{name} is there twice")),
        }
    };
    parse::<Vec<OciLimit>>(value)?.into_iter().map(check).collect()
}

fn read_sysctls(value: &Value) -> Result<Vec<(String, String)>, String> {
    let one = |(name, value): (String, Value)| {
        let parts = name.split(['.', '/']);
        // Nothing but a path below /proc/sys may come of it.
        if parts.clone().count() < 2 || parts.clone().any(str::is_empty) || name.contains('\0') {
            return Err(format!("{:?} is no sysctl", shown(&name)));
        }
        match value {
            Value::String(text) => Ok((name, text)),
            Value::Number(number) => Ok((name, number.to_string())),
            other => Err(format!("{name} cannot be {}", shown(&other.to_string()))),
        }
    };
    parse::<serde_json::Map<String, Value>>(value)?.into_iter().map(one).collect()
}

fn parse<T: for<'de> Deserialize<'de>>(value: &Value) -> Result<T, String> {
    serde_json::from_value(value.clone())
        .map_err(|why| format!("its value {} is not understood: {why}", shown(&value.to_string())))
}

fn shown(text: &str) -> &str {
    &text[..text.floor_char_boundary(VALUE_SHOWN_MAX)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn isolators(all: Value) -> Vec<Isolator> {
        let all: serde_json::Map<String, Value> = serde_json::from_value(all).unwrap();
        all.into_iter().map(|(name, value)| Isolator { name, value }).collect()
    }

    fn strict() -> Strictness {
        Strictness { lenient: false, warnings: vec![] }
    }

    #[test]
    fn quantities_have_suffixes() {
        let check = |text: &str, want: Option<u64>| assert_eq!(quantity(text).ok(), want, "{text}");
        for (text, want) in
            [("500m", 500), ("2", 2000), ("1.5", 1500), ("0.0001", 1), ("16Mi", 16_777_216_000)]
        {
            check(text, Some(want));
        }
        for (text, want) in [("50M", 50_000_000_000), ("1G", 1_000_000_000_000), ("0.5Gi", 536_870_912_000)] {
            check(text, Some(want));
        }
        for text in
            ["", "m", "-1", ".5", "1e3", "1 M", "1Mb", "0x1", "1.1.1", "18446744073709552", "9999999999Ti"]
        {
            check(text, None);
        }
    }

    #[test]
    fn limits_are_read() {
        let all = isolators(json!({
            "resource/cpu": { "limit": "500m", "request": "100m" }, "resource/memory": { "limit": "16Mi" },
            "resource/block-bandwidth": { "limit": "1M" }, "resource/block-iops": { "limit": 100, "default": true },
            "resource/network-bandwidth": { "limit": "1G" }, "os/linux/cpu-shares": 512, "os/linux/oom-score-adj": -5,
            "os/linux/no-new-privileges": true, "hull/pids": { "limit": "32" },
            "hull/rlimits": [{ "type": "RLIMIT_NOFILE", "soft": 10, "hard": 20 }],
        }));
        let got = of_app("a", &all, &mut strict()).unwrap();
        let want = Limits {
            memory_bytes: Some(16 << 20),
            cpu_millis: Some(500),
            cpu_shares: Some(512),
            pids: Some(32),
            block_bytes_per_second: Some(1_000_000),
            block_requests_per_second: Some(100),
            network_bits_per_second: Some(1_000_000_000),
            oom_score_adj: Some(-5),
            resources: vec![ResourceLimit { name: "RLIMIT_NOFILE".into(), soft: 10, hard: 20 }],
        };
        assert_eq!((got.limits, got.no_new_privileges), (want, true));
    }

    #[test]
    fn what_cannot_be_applied_is_an_error_or_a_warning() {
        let check = |all: Value, words: &[&str]| {
            let isolators = isolators(all);
            let why = of_app("web", &isolators, &mut strict()).unwrap_err().to_string();
            let mut lenient = Strictness { lenient: true, warnings: vec![] };
            of_app("web", &isolators, &mut lenient).unwrap();
            assert_eq!(lenient.warnings.len(), 1, "{why}");
            for word in words.iter().chain(&["app web"]) {
                assert!(why.contains(word) && lenient.warnings[0].contains(word), "{word}: {why}");
            }
            assert!(why.contains("--isolators=lenient"), "{why}");
        };
        check(json!({ "os/linux/nope": 1 }), &["os/linux/nope", "no such isolator"]);
        check(json!({ "os/linux/selinux-context": {} }), &["selinux-context", "security module"]);
        check(json!({ "resource/memory": { "limit": "much" } }), &["resource/memory", "\"much\""]);
        check(json!({ "resource/memory": { "limit": "0" } }), &["leaves nothing"]);
        check(json!({ "resource/memory": { "request": "1" } }), &["limit"]);
        check(json!({ "resource/cpu": { "limit": "0" } }), &["above 0"]);
        check(json!({ "os/linux/oom-score-adj": 1001 }), &["-1000 to 1000"]);
        check(json!({ "os/linux/capabilities-retain-set": { "set": ["CAP_NOPE"] } }), &["CAP_NOPE"]);
        let none = json!({ "set": [] });
        let both =
            json!({ "os/linux/capabilities-retain-set": none, "os/linux/capabilities-remove-set": none });
        check(both, &["contradicts"]);
        check(json!({ "os/linux/seccomp-remove-set": { "set": ["raed"] } }), &["\"raed\" is no system call"]);
        check(
            json!({ "os/linux/seccomp-remove-set": { "set": [], "errno": "ENO" } }),
            &["\"ENO\" is no error"],
        );
        check(json!({ "hull/rlimits": [{ "type": "RLIMIT_X", "soft": 1, "hard": 1 }] }), &["RLIMIT_X"]);
        check(json!({ "hull/rlimits": [{ "type": "RLIMIT_AS", "soft": 2, "hard": 1 }] }), &["soft limit"]);
        check(json!({ "os/unix/sysctl": { "net.ipv4.ip_forward": "1" } }), &["pod as a whole"]);
    }

    #[test]
    fn sysctls_are_the_pods() {
        let all =
            isolators(json!({ "os/unix/sysctl": { "net.ipv4.ip_forward": "1", "kernel.msgmax": 9000 } }));
        let got = of_pod(&all, &mut strict()).unwrap();
        let want = [("kernel.msgmax", "9000"), ("net.ipv4.ip_forward", "1")];
        assert_eq!(got, want.map(|(name, value)| (name.to_owned(), value.to_owned())));
        for name in ["", "x", "..", "a..b", "/a", "kernel/../../x"] {
            let all = isolators(json!({ "os/unix/sysctl": { name: "1" } }));
            assert!(of_pod(&all, &mut strict()).is_err(), "{name}");
        }
        assert!(of_pod(&isolators(json!({ "resource/memory": { "limit": "1" } })), &mut strict()).is_err());
    }

    proptest! {
        #[test]
        fn no_quantity_is_too_strange(text in "\\PC{0,30}|[0-9.]{0,25}(m|Ki|Mi|Gi|Ti|T|)") {
            let _ = quantity(&text);
        }
    }
}

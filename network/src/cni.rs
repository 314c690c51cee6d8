//! Plugins of CNI: programs that are told what to do in their environment and on standard input (CNI 1.1,
//! "Execution protocol").

use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hull_errors::Doing;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::link::{in_pod, mac_text};
use crate::namespace::Namespace;
use crate::netlink::Netlink;
use crate::record::{Attached, Dns};
use crate::request::Configured;
use crate::{Error, Forward, Kind};

/// Longest answer of a plugin, in bytes.
const ANSWER_MAX: usize = 1 << 20;
/// How long a plugin may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Most name servers, domains and options that a result may have, each.
const DNS_MAX: usize = 32;

/// All that is needed to undo what plugins did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Call {
    network: Configured,
    container: String,
    if_name: String,
    /// Of the capability `portMappings`.
    port_mappings: Value,
    /// What the last plugin that ran has said.
    result: Option<Value>,
}

impl Configured {
    /// Whether one of its plugins leads ports of the host to the pod.
    pub fn maps_ports(&self) -> bool {
        self.plugins().any(|plugin| plugin["capabilities"]["portMappings"] == true)
    }

    fn plugins(&self) -> impl DoubleEndedIterator<Item = &Value> {
        self.list["plugins"].as_array().into_iter().flatten()
    }

    /// Finds every program that it needs.
    ///
    /// # Errors
    /// One is not there.
    pub fn check(&self) -> Result<(), Error> {
        for plugin in self.plugins() {
            let types = [&plugin["type"], &plugin["ipam"]["type"]];
            types.into_iter().filter_map(Value::as_str).try_for_each(|kind| self.find(kind).map(drop))?;
        }
        Ok(())
    }

    fn find(&self, kind: &str) -> Result<PathBuf, Error> {
        let file = self.path.iter().map(|folder| folder.join(kind)).find(|file| file.is_file());
        file.ok_or_else(|| {
            let places: Vec<String> = self.path.iter().map(|folder| folder.display().to_string()).collect();
            let text = format!(
                "use network {}: there is no plugin {kind:?} in {}; install it, as of containernetworking-plugins",
                self.name,
                places.join(", ")
            );
            Error::new(Kind::Request, text)
        })
    }
}

/// Has the plugins connect the namespace. `record` gets what there is to undo before each of them runs.
pub(crate) fn attach(
    network: &Configured,
    pod: (&str, usize),
    namespace: &Namespace,
    forwards: &[Forward],
    mut record: impl FnMut(&Attached) -> Result<(), Error>,
) -> Result<Attached, Error> {
    let if_name = in_pod(pod.1);
    let call = Call {
        network: network.clone(),
        container: pod.0.to_owned(),
        if_name: if_name.clone(),
        port_mappings: forwards.iter().flat_map(mappings).collect(),
        result: None,
    };
    let mut attached = Attached::new(&network.name, &if_name);
    attached.cni = Some(call.clone());
    record(&attached)?;
    let mut call = call;
    for plugin in network.plugins() {
        let answer = call.run("ADD", plugin, &namespace.path())?;
        let answer = serde_json::from_str(&answer).doing(Kind::Host, || {
            format!("understand what plugin {} of network {} says", plugin["type"], network.name)
        })?;
        call.result = Some(answer);
        attached.cni = Some(call.clone());
        record(&attached)?;
    }
    attached.dns = dns(call.result.as_ref().unwrap_or(&Value::Null));
    look(&mut attached, namespace)?;
    Ok(attached)
}

/// What the plugins have made of it is what counts, not what they say.
fn look(attached: &mut Attached, namespace: &Namespace) -> Result<(), Error> {
    let name = attached.if_name.clone();
    let (link, addresses, routes) = namespace.inside(|| {
        let mut netlink = Netlink::open()?;
        let link = netlink.link(&name)?;
        Ok::<_, Error>((link.clone(), netlink.addresses(link.index)?, netlink.routes(link.index)?))
    })??;
    attached.mac = mac_text(&link.mac);
    attached.mtu = Some(link.mtu);
    attached.addresses = addresses;
    attached.routes = routes;
    Ok(())
}

/// Has the plugins undo what they did, the last first. Where the namespace is gone, its interfaces are too, and only
/// who gave an address must take it back; where the first of them has failed there may be nothing to undo.
pub(crate) fn detach(call: &Call, namespace: Option<&Namespace>) -> Result<(), Error> {
    let path = namespace.map(Namespace::path).unwrap_or_default();
    let mut outcome = Ok(());
    for (index, plugin) in call.network.plugins().enumerate().collect::<Vec<_>>().into_iter().rev() {
        let undone = call.run("DEL", plugin, &path).map(drop);
        let counts = call.result.is_some() && (namespace.is_some() || index == 0);
        if outcome.is_ok() && counts {
            outcome = undone;
        }
    }
    outcome
}

/// One for each port, as plugins know no ranges.
fn mappings(forward: &Forward) -> Vec<Value> {
    let mapping = |offset: u16| {
        let mut mapping = json!({
            "hostPort": forward.host_port + offset,
            "containerPort": forward.pod_port + offset,
            "protocol": forward.protocol.as_str(),
        });
        if let Some(ip) = forward.host_ip {
            mapping["hostIP"] = ip.to_string().into();
        }
        mapping
    };
    (0..forward.count).map(mapping).collect()
}

fn dns(result: &Value) -> Dns {
    let dns = &result["dns"];
    let word = |value: &Value| value.as_str().filter(|text| is_word(text)).map(str::to_owned);
    let list = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(word).take(DNS_MAX).collect()
    };
    Dns {
        nameservers: list(&dns["nameservers"]).iter().filter_map(|ip| ip.parse::<IpAddr>().ok()).collect(),
        domain: word(&dns["domain"]),
        search: list(&dns["search"]),
        options: list(&dns["options"]),
    }
}

/// What does not break a line of resolv.conf(5).
fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic() && c != '#')
}

impl Call {
    pub(crate) fn network(&self) -> &Configured {
        &self.network
    }

    fn run(&self, verb: &str, plugin: &Value, namespace: &str) -> Result<String, Error> {
        let kind = plugin["type"].as_str().unwrap_or_default();
        let doing = || format!("have plugin {kind} of network {} do {verb}", self.network.name);
        let program = self.network.find(kind)?;
        let path: Vec<String> = self.network.path.iter().map(|folder| folder.display().to_string()).collect();
        // A plugin is told what is another's, too.
        let own = self.network.args.iter().map(|(key, value)| format!(";{key}={value}"));
        let args: String = ["IgnoreUnknown=1".to_owned()].into_iter().chain(own).collect();
        let mut command = Command::new(&program);
        command
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", &self.container)
            .env("CNI_NETNS", namespace)
            .env("CNI_IFNAME", &self.if_name)
            .env("CNI_ARGS", args)
            .env("CNI_PATH", path.join(":"));
        let (ended, said) =
            talk(&mut command, self.words(plugin).to_string().as_bytes()).doing(Kind::Host, doing)?;
        match ended {
            true => Ok(said),
            false => Err(Error::because(Kind::Host, doing(), complaint(&said))),
        }
    }

    /// The plugin's own configuration, and what every plugin is told.
    fn words(&self, plugin: &Value) -> Value {
        let mut words = plugin.clone();
        words["name"] = self.network.list["name"].clone();
        words["cniVersion"] = self.network.list["cniVersion"].clone();
        if let Some(result) = &self.result {
            words["prevResult"] = result.clone();
        }
        if plugin["capabilities"]["portMappings"] == true {
            words["runtimeConfig"] = json!({ "portMappings": self.port_mappings });
        }
        if let Some(words) = words.as_object_mut() {
            words.remove("capabilities");
        }
        words
    }
}

/// What a plugin says of why it failed: `msg` and `details`.
fn complaint(said: &str) -> String {
    let value: Value = serde_json::from_str(said).unwrap_or_default();
    let text = |key: &str| value[key].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let words: Vec<String> = [text("msg"), text("details")].into_iter().flatten().collect();
    match words.is_empty() {
        true => "it failed without a reason".into(),
        false => words.join(": ").chars().filter(|c| !c.is_control()).take(1000).collect(),
    }
}

/// Runs a program with `input`; whether it ended well, and what it wrote.
fn talk(command: &mut Command, input: &[u8]) -> io::Result<(bool, String)> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn()?;
    let said = converse(&mut child, input);
    if said.is_err() {
        let _ = child.kill(); // It may have ended.
    }
    let ended = child.wait()?;
    Ok((ended.success(), said?))
}

fn converse(child: &mut Child, input: &[u8]) -> io::Result<String> {
    let deadline = Instant::now() + PATIENCE;
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(input) {
            // Who does not read says why on its output.
            Err(why) if why.kind() == io::ErrorKind::BrokenPipe => (),
            other => other?,
        }
    }
    let Some(mut stdout) = child.stdout.take() else { return Ok(String::new()) };
    let (mut said, mut buffer) = (vec![], [0; 4096]);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut fds = [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::TimedOut, "it has not ended in a minute")),
            Err(nix::errno::Errno::EINTR) => continue,
            other => drop(other?),
        }
        let count = stdout.read(&mut buffer)?;
        said.extend(&buffer[..count]);
        if count == 0 {
            return String::from_utf8(said).map_err(|_| io::Error::other("it says what is no text"));
        }
        if said.len() > ANSWER_MAX {
            return Err(io::Error::other(format!("it says more than {ANSWER_MAX} bytes")));
        }
    }
}

impl Namespace {
    /// For a program that is told it by a path, while this process lives.
    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file().as_raw_fd())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::Protocol;

    /// A network of one plugin that is this script.
    fn network(dir: &Path, script: &str) -> Configured {
        let file = dir.join("plug");
        fs::write(&file, format!("#!/bin/sh\n{script}")).unwrap();
        fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let list = json!({
            "name": "x", "cniVersion": "1.0.0",
            "plugins": [{ "type": "plug", "capabilities": { "portMappings": true } }],
        });
        Configured {
            name: "x".into(),
            file: "x.conf".into(),
            list,
            path: vec!["/nowhere".into(), dir.to_owned()],
            args: vec![("IP".into(), "1.2.3.4".into())],
        }
    }

    fn run(script: &str, verb: &str) -> Result<String, String> {
        let dir = tempfile::tempdir().unwrap();
        let forward =
            Forward { protocol: Protocol::Udp, host_ip: None, host_port: 8000, pod_port: 80, count: 2 };
        let call = Call {
            network: network(dir.path(), script),
            container: "c".into(),
            if_name: "eth0".into(),
            port_mappings: mappings(&forward).into(),
            result: Some(json!({ "ips": [] })),
        };
        let plugin = call.network.list["plugins"][0].clone();
        call.run(verb, &plugin, "/ns").map_err(|why| hull_errors::chain(&why))
    }

    #[test]
    fn a_plugin_is_told_all_that_it_needs() {
        let said =
            run("echo $CNI_COMMAND $CNI_CONTAINERID $CNI_NETNS $CNI_IFNAME $CNI_ARGS $HOME; cat", "ADD")
                .unwrap();
        let (environment, words) = said.split_once('\n').unwrap();
        assert_eq!(environment, "ADD c /ns eth0 IgnoreUnknown=1;IP=1.2.3.4");
        let words: Value = serde_json::from_str(words).unwrap();
        assert_eq!((&words["name"], &words["prevResult"]), (&json!("x"), &json!({ "ips": [] })));
        let ports = &words["runtimeConfig"]["portMappings"];
        assert_eq!(ports[1], json!({ "hostPort": 8001, "containerPort": 81, "protocol": "udp" }));
    }

    #[test]
    fn why_a_plugin_failed_is_told() {
        let said = run(
            "cat >/dev/null; echo '{\"code\": 7, \"msg\": \"no\", \"details\": \"really\"}'; exit 1",
            "DEL",
        );
        assert_eq!(said.unwrap_err(), "have plugin plug of network x do DEL: no: really");
        assert!(run("exit 3", "ADD").unwrap_err().ends_with("without a reason"));
        let long = run("cat >/dev/null; yes", "ADD").unwrap_err();
        assert!(long.contains("more than"), "{long}");
    }

    #[test]
    fn a_plugin_that_is_not_there_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let mut network = network(dir.path(), "");
        network.check().unwrap();
        network.list["plugins"][0]["ipam"] = json!({ "type": "nope" });
        let why = network.check().unwrap_err().to_string();
        assert!(why.contains("\"nope\"") && why.contains("containernetworking-plugins"), "{why}");
    }

    #[test]
    fn names_of_a_result_are_words_or_nothing() {
        let result = json!({ "dns": {
            "nameservers": ["10.0.0.1", "x", "::1"], "domain": "a b", "search": ["ok", "no\nt"], "options": 3,
        } });
        let dns = dns(&result);
        assert_eq!(dns.nameservers.len(), 2);
        assert_eq!((dns.domain, dns.search, dns.options), (None, vec!["ok".to_owned()], vec![]));
    }
}

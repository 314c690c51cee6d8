//! From names of networks and ports to what a stage1 is told.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use hull_errors::Doing;
use hull_image::SettingsFolders;
use hull_network::{
    BuiltIn, Configured, DESTINATIONS_MAX, Egress, Forward, Network, Networking, Plan, Protocol,
};
use hull_pod::manifest::{ExposedPort, Port};
use hull_pod::{Flavour, Manifest, wire};

use crate::cli::net::{EgressWish, NetArgs, NetWish};
use crate::{Error, Kind};

/// Everything that a pod may be in.
struct Known(Vec<Network>);

impl Known {
    /// Built-in networks, and those of the settings, which take the place of built-in ones of their names.
    fn of(settings: &SettingsFolders) -> Result<Self, Error> {
        let folders = [Some(&settings.system), Some(&settings.local), settings.user.as_ref()];
        let folders: Vec<PathBuf> = folders.into_iter().flatten().cloned().collect();
        let configured =
            hull_network::configured(&folders).doing(Kind::User, || "look for networks".into())?;
        let is_free = |network: &BuiltIn| configured.iter().all(|other| other.name != network.name());
        let built_in = BuiltIn::ALL.into_iter().filter(is_free);
        let built_in: Vec<_> = built_in.map(|network| Network::BuiltIn { network, ip: None }).collect();
        Ok(Self(configured.into_iter().map(Network::Configured).chain(built_in).collect()))
    }

    fn find(&self, name: &str) -> Option<&Network> {
        self.0.iter().find(|network| network.name() == name)
    }
}

/// What surrounds a pod of this manifest.
pub(super) fn networking(
    args: &NetArgs,
    flavour: Flavour,
    manifest: &Manifest,
    settings: &SettingsFolders,
) -> Result<Networking, Error> {
    let wishes = args.net.as_slice();
    let is_twice = |(n, wish): &(usize, &NetWish)| wishes[..*n].iter().any(|other| other.name == wish.name);
    if let Some((_, wish)) = wishes.iter().enumerate().find(is_twice) {
        return refuse(format!("network {} is named twice", wish.name));
    }
    for alone in wishes.iter().filter(|wish| ["none", "host", "all"].contains(&wish.name.as_str())) {
        if wishes.len() > 1 || !alone.args.is_empty() {
            return refuse(format!("--net={} stands alone, without arguments or other networks", alone.name));
        }
    }
    let networking = match wishes {
        [] if flavour == Flavour::Fly => Networking::Host,
        [wish] if wish.name == "host" => match flavour {
            Flavour::Kvm => {
                let why = "a VM cannot share the host's network; use --net=default, or --stage1=nspawn";
                return refuse(format!("--net=host: {why}"));
            }
            Flavour::Nspawn | Flavour::Fly => Networking::Host,
        },
        // As rkt's default is: a port has to be somewhere.
        [] if !manifest.ports.is_empty() => {
            let network = Known::of(settings)?.find(BuiltIn::Default.name()).cloned();
            own(network.into_iter().collect())?
        }
        [] => Networking::default(),
        [wish] if wish.name == "none" => Networking::default(),
        [wish] if wish.name == "all" => own(Known::of(settings)?.0)?,
        wishes => own(named(wishes, &Known::of(settings)?)?)?,
    };
    let networking = with_egress(networking, egress(&args.egress)?)?;
    with_ports(with_rate(networking, manifest), manifest)
}

fn egress(wishes: &[EgressWish]) -> Result<Egress, Error> {
    let to = |wish: &EgressWish| match wish {
        EgressWish::To(destination) => Some(*destination),
        EgressWish::Open | EgressWish::None => None,
    };
    match wishes {
        [] | [EgressWish::Open] => Ok(Egress::Open),
        [EgressWish::None] => Ok(Egress::Only(vec![])),
        wishes if wishes.len() > DESTINATIONS_MAX => refuse(format!(
            "--egress: a pod has at most {DESTINATIONS_MAX} destinations, not {}",
            wishes.len()
        )),
        wishes => match wishes.iter().map(to).collect() {
            Some(destinations) => Ok(Egress::Only(destinations)),
            None => refuse("--egress=open and --egress=none stand alone".into()),
        },
    }
}

fn with_egress(networking: Networking, egress: Egress) -> Result<Networking, Error> {
    match networking {
        networking if egress == Egress::Open => Ok(networking),
        Networking::Host => {
            refuse("--egress: the pod has the host's network, where it may speak to all".into())
        }
        Networking::Own(plan) => match plan.networks.iter().find(|network| !is_built_in(network)) {
            Some(network) => refuse(format!(
                "--egress: network {} is made by plugins, and only built-in networks are guarded: default and \
                 default-restricted",
                network.name()
            )),
            None => Ok(Networking::Own(Plan { egress, ..plan })),
        },
    }
}

fn is_built_in(network: &Network) -> bool {
    matches!(network, Network::BuiltIn { .. })
}

/// The limits of all apps together, where there is a place for them; elsewhere the agent objects to each.
fn with_rate(networking: Networking, manifest: &Manifest) -> Networking {
    match networking {
        Networking::Own(plan) if !plan.networks.is_empty() && plan.networks.iter().all(is_built_in) => {
            Networking::Own(Plan { bits_per_second: wire::network_limit(manifest), ..plan })
        }
        networking => networking,
    }
}

/// Lets the networks say which name servers there are, or not.
pub(super) fn with_names(networking: Networking, names: bool) -> Networking {
    match networking {
        Networking::Host => Networking::Host,
        Networking::Own(plan) => Networking::Own(Plan { names, ..plan }),
    }
}

fn refuse<T>(text: String) -> Result<T, Error> {
    Err(Error::new(Kind::User, text))
}

fn own(networks: Vec<Network>) -> Result<Networking, Error> {
    if networks.len() > Plan::NETWORKS_MAX {
        return refuse(format!("a pod has at most {} networks, not {}", Plan::NETWORKS_MAX, networks.len()));
    }
    for network in &networks {
        if let Network::Configured(network) = network {
            network.check().doing(Kind::User, || "look for plugins".into())?;
        }
    }
    Ok(Networking::Own(Plan { networks, ..Plan::default() }))
}

fn named(wishes: &[NetWish], known: &Known) -> Result<Vec<Network>, Error> {
    let missing: Vec<&str> =
        wishes.iter().map(|wish| wish.name.as_str()).filter(|name| known.find(name).is_none()).collect();
    if !missing.is_empty() {
        return refuse(format!("networks not found: {}", missing.join(", ")));
    }
    let network = |wish: &NetWish| {
        let network = known.find(&wish.name).expect("what is not found has been refused").clone();
        Ok(match network {
            Network::BuiltIn { network, .. } => Network::BuiltIn { network, ip: address(wish)? },
            Network::Configured(network) => {
                Network::Configured(Configured { args: arguments(wish)?, ..network })
            }
        })
    };
    wishes.iter().map(network).collect()
}

/// As CNI has them in one variable of the environment, where `;` and `=` part them.
fn arguments(wish: &NetWish) -> Result<Vec<(String, String)>, Error> {
    let plain = |text: &str| text.chars().all(|c| c.is_ascii_graphic() && c != ';' && c != '=');
    match wish.args.iter().find(|(key, value)| !plain(key) || !plain(value)) {
        None => Ok(wish.args.clone()),
        Some((key, value)) => refuse(format!("network {} cannot be told {key:?}={value:?}", wish.name)),
    }
}

/// The only argument that a built-in network knows.
fn address(wish: &NetWish) -> Result<Option<Ipv4Addr>, Error> {
    let mut ip = None;
    for (key, value) in &wish.args {
        match key.as_str() {
            "IP" => {
                let parsed = value.parse();
                let doing = || format!("join network {} as {value:?}", wish.name);
                ip = Some(parsed.doing(Kind::User, doing)?);
            }
            _ => return refuse(format!("network {} knows no argument {key}: only IP", wish.name)),
        }
    }
    Ok(ip)
}

fn with_ports(networking: Networking, manifest: &Manifest) -> Result<Networking, Error> {
    let ports = &manifest.ports;
    match networking {
        networking if ports.is_empty() => Ok(networking),
        Networking::Own(plan) if plan.takes_ports().is_some() => {
            let forwards = ports.iter().map(|port| forward(port, manifest)).collect::<Result<Vec<_>, _>>()?;
            // Found out before anything is made; the stage1 holds them.
            hull_network::hold(&forwards).map(drop).doing(Kind::User, || "prepare the pod's ports".into())?;
            Ok(Networking::Own(Plan { forwards, ..plan }))
        }
        Networking::Host => {
            refuse("--port: the pod has the host's network, and its ports are the host's".into())
        }
        Networking::Own(plan) if plan.networks.is_empty() => {
            refuse("--port: the pod is in no network; name one with --net".into())
        }
        Networking::Own(_) => refuse(
            "--port: no plugin of the pod's networks leads ports to it; add {\"type\": \"portmap\", \"capabilities\": \
             {\"portMappings\": true}} to one's list, or name --net=default too"
                .into(),
        ),
    }
}

fn forward(exposed: &ExposedPort, manifest: &Manifest) -> Result<Forward, Error> {
    let named = |port: &&Port| port.name == exposed.name;
    let declared = manifest.apps.iter().flat_map(|app| &app.app.ports).find(named).cloned();
    let port = exposed.pod_port.clone().or(declared).or_else(|| spelled_out(&exposed.name));
    let Some(port) = port else {
        let all: Vec<&str> =
            manifest.apps.iter().flat_map(|app| &app.app.ports).map(|port| port.name.as_str()).collect();
        let known =
            if all.is_empty() { "its images name none".into() } else { format!("it has {}", all.join(", ")) };
        return refuse(format!(
            "publish port {:?}: the pod has no such port: {known}; NUMBER-tcp and NUMBER-udp always work",
            exposed.name
        ));
    };
    let protocol = match port.protocol.as_str() {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        other => return refuse(format!("publish port {:?}: {other} is neither tcp nor udp", exposed.name)),
    };
    Ok(Forward {
        protocol,
        host_ip: exposed.host_ip,
        host_port: exposed.host_port,
        pod_port: port.port,
        count: port.count.max(1),
    })
}

/// `80-tcp`, as the ports of OCI images are named.
fn spelled_out(name: &str) -> Option<Port> {
    let (number, protocol) = name.split_once('-')?;
    let port = number.parse().ok().filter(|port| *port != 0)?;
    let known = ["tcp", "udp"].contains(&protocol);
    known.then(|| Port {
        name: name.into(),
        protocol: protocol.into(),
        port,
        count: 1,
        socket_activated: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(words: &str, flavour: Flavour, ports: &[&str]) -> Result<Networking, String> {
        let net = words.split_whitespace().map(|word| word.parse().unwrap()).collect();
        let mut manifest = Manifest::new(vec![]);
        let port = |name: &&str| ExposedPort {
            name: (*name).into(),
            host_port: 1,
            host_ip: Some(Ipv4Addr::LOCALHOST.into()),
            pod_port: None,
        };
        manifest.ports = ports.iter().map(port).collect();
        let nowhere = || PathBuf::from("/nowhere");
        let settings = SettingsFolders { system: nowhere(), local: nowhere(), user: None };
        networking(&NetArgs { net, egress: vec![] }, flavour, &manifest, &settings)
            .map_err(|why| why.to_string())
    }

    #[test]
    fn a_flavour_has_the_networks_that_it_can() {
        assert_eq!(ask("", Flavour::Fly, &[]), Ok(Networking::Host));
        assert_eq!(ask("host", Flavour::Nspawn, &[]), Ok(Networking::Host));
        let published = ask("", Flavour::Nspawn, &["1-udp"]);
        assert!(
            matches!(&published, Ok(Networking::Own(plan)) if plan.networks[0].name() == "default"),
            "{published:?}"
        );
        assert_eq!(ask("none", Flavour::Kvm, &[]), Ok(Networking::default()));
        let why = ask("host", Flavour::Kvm, &[]).unwrap_err();
        assert!(why.contains("--net=default") && why.contains("nspawn"), "{why}");
        let Ok(Networking::Own(plan)) =
            ask("default-restricted default:IP=172.16.28.7", Flavour::Nspawn, &[])
        else {
            panic!("these are networks");
        };
        let names: Vec<_> = plan
            .networks
            .iter()
            .map(|network| match network {
                Network::BuiltIn { network, ip } => (network.name(), ip.map(|ip| ip.to_string())),
                Network::Configured(_) => panic!("these are built in"),
            })
            .collect();
        assert_eq!(names, [("default-restricted", None), ("default", Some("172.16.28.7".into()))]);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (words, ports, said) in [
            ("none default", &[][..], "alone"),
            ("host:IP=1.1.1.1", &[], "alone"),
            ("default default", &[], "twice"),
            ("default nope", &[], "networks not found: nope"),
            ("default:IP=x", &[], "default"),
            ("default:MAC=x", &[], "MAC"),
            ("none", &["80-tcp"], "--net"),
            ("host", &["80-tcp"], "host's"),
            ("default", &["http"], "NUMBER-tcp"),
        ] {
            let why = ask(words, Flavour::Nspawn, ports).unwrap_err();
            assert!(why.contains(said), "{words}: {why}");
        }
    }

    #[test]
    fn words_about_egress_stand_alone_or_together() {
        let ask = |words: &str| {
            let wishes: Vec<EgressWish> =
                words.split_whitespace().map(|word| word.parse().unwrap()).collect();
            egress(&wishes).map_err(|why| why.to_string())
        };
        assert_eq!(ask(""), Ok(Egress::Open));
        assert_eq!(ask("open"), Ok(Egress::Open));
        assert_eq!(ask("none"), Ok(Egress::Only(vec![])));
        assert!(matches!(ask("public 10.0.0.0/8"), Ok(Egress::Only(list)) if list.len() == 2));
        assert!(ask("open public").is_err() && ask("none public").is_err());
        let guarded = |networking| with_egress(networking, Egress::Only(vec![]));
        assert!(guarded(Networking::Host).is_err());
        assert!(guarded(Networking::default()).is_ok());
    }
}

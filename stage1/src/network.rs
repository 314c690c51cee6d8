//! The pod's networks, before its machine and after it.

use hull_agent_protocol::{InterfaceSpec, NetSpec, RouteSpec};
use hull_errors::{Doing, chain};
use hull_network::{Attached, Connected, IpNet, Networking};

use crate::{Error, Kind, Pod};

/// A pod's networks while it lives. Dropping it takes the pod off them.
#[derive(Debug)]
pub struct Networks(Option<Connected>, bool);

impl Networks {
    /// The namespace that the pod's processes are to enter; `None`: they stay in the host's.
    pub fn namespace(&self) -> Option<&hull_network::Namespace> {
        self.0.as_ref().map(Connected::namespace)
    }
}

impl Networks {
    /// What is connected, for a stage1 that has more to connect.
    pub fn connected(&self) -> Option<&Connected> {
        self.0.as_ref()
    }

    /// The text of `/etc/resolv.conf`, if a network has something to say and the user has not.
    pub fn resolver(&self) -> Option<String> {
        let networks = self.0.as_ref().map(Connected::networks).filter(|_| self.1).unwrap_or_default();
        let mut text = String::new();
        let mut line = |word: &str, rest: &str| text.extend([word, " ", rest, "\n"]);
        for dns in networks.iter().map(|network| &network.dns) {
            dns.nameservers.iter().for_each(|ip| line("nameserver", &ip.to_string()));
            dns.domain.iter().for_each(|domain| line("domain", domain));
            for (word, list) in [("search", &dns.search), ("options", &dns.options)] {
                if !list.is_empty() {
                    line(word, &list.join(" "));
                }
            }
        }
        Some(text).filter(|text| !text.is_empty())
    }

    /// What the agent of a machine with interfaces of its own is told about them.
    pub fn interfaces(&self) -> Vec<InterfaceSpec> {
        let networks = self.0.as_ref().map(Connected::networks).unwrap_or_default();
        let interface = |attached: &Attached| InterfaceSpec {
            mac: attached.mac.clone(),
            mtu: attached.mtu,
            addresses: attached.addresses.iter().map(net).collect(),
            routes: attached
                .routes
                .iter()
                .map(|route| RouteSpec { destination: net(&route.destination), gateway: route.gateway })
                .collect(),
        };
        networks.iter().map(interface).collect()
    }
}

fn net(net: &IpNet) -> NetSpec {
    NetSpec { address: net.addr(), prefix: net.prefix_len() }
}

impl Drop for Networks {
    fn drop(&mut self) {
        if let Some(Err(why)) = self.0.take().map(Connected::disconnect) {
            eprintln!("{}; hull gc tries again", chain(&why));
        }
    }
}

/// Connects the pod as its contract says.
///
/// # Errors
/// A network cannot be had.
pub fn connect(pod: &Pod) -> Result<Networks, Error> {
    let Networking::Own(plan) = &pod.contract.network else { return Ok(Networks(None, false)) };
    let connected = hull_network::connect(&pod.path, pod.contract.pod.as_str(), plan);
    let connected = connected.doing(Kind::Host, || "connect the pod".into())?;
    Ok(Networks(Some(connected), plan.names))
}

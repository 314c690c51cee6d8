//! What a pod asks for: plain data in the contract of stage0 and stage1, every name already looked up.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Egress;

/// What surrounds a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Networking {
    /// The host's own network.
    Host,
    /// A network namespace of the pod's own.
    Own(Plan),
}

impl Default for Networking {
    fn default() -> Self {
        Self::Own(Plan::default())
    }
}

/// What is in a pod's namespace beside the loopback.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// In the order of the interfaces: `eth0`, `eth1`; at most [`Plan::NETWORKS_MAX`].
    pub networks: Vec<Network>,
    /// Ports of the host that lead to the pod.
    pub forwards: Vec<Forward>,
    /// Whom the pod may speak to; other than open only where all networks are built in.
    #[serde(default)]
    pub egress: Egress,
    /// What the pod may send in a second, over all its networks, which are built in.
    #[serde(default)]
    pub bits_per_second: Option<u64>,
    /// What the networks say about name servers is for the pod's apps.
    #[serde(default)]
    pub names: bool,
}

impl Plan {
    /// Most networks of one pod: the number is the last digit of an interface's name.
    pub const NETWORKS_MAX: usize = 10;

    /// The network that ports of the host lead to: as in rkt the first that leads out, else the last, of those that
    /// can.
    pub fn takes_ports(&self) -> Option<usize> {
        let can = |(_, network): &(usize, &Network)| network.takes_ports();
        let out = self.networks.iter().enumerate().filter(can).find(|(_, network)| network.leads_out());
        out.or_else(|| self.networks.iter().enumerate().rfind(can)).map(|(index, _)| index)
    }
}

/// One network, and what was said for this pod in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Network {
    BuiltIn {
        network: BuiltIn,
        /// The pod's address; absent: any that is free.
        ip: Option<Ipv4Addr>,
    },
    Configured(Configured),
}

impl Network {
    /// As `--net=` spells it.
    pub fn name(&self) -> &str {
        match self {
            Self::BuiltIn { network, .. } => network.name(),
            Self::Configured(network) => &network.name,
        }
    }

    /// Whether ports of the host can lead to a pod in it.
    pub fn takes_ports(&self) -> bool {
        match self {
            Self::BuiltIn { .. } => true,
            Self::Configured(network) => network.maps_ports(),
        }
    }

    /// Whether it leads beyond the host; of a configured one that is the plugins' business.
    fn leads_out(&self) -> bool {
        match self {
            Self::BuiltIn { network, .. } => network.leads_out(),
            Self::Configured(_) => true,
        }
    }
}

/// A network of `net.d`, for plugins of CNI to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Configured {
    pub name: String,
    /// Where it is from, for people.
    pub file: PathBuf,
    /// As a list of CNI: `cniVersion`, `name`, `plugins`.
    pub list: Value,
    /// Where plugins are looked for.
    pub path: Vec<PathBuf>,
    /// What the user said for this pod.
    pub args: Vec<(String, String)>,
}

/// A network that needs no configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BuiltIn {
    /// Leads everywhere, behind the host's address.
    Default,
    /// Leads to the host and to other pods only.
    DefaultRestricted,
}

impl BuiltIn {
    /// Every one of them.
    pub const ALL: [Self; 2] = [Self::Default, Self::DefaultRestricted];

    /// As `--net=` spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::DefaultRestricted => "default-restricted",
        }
    }

    /// rkt's; the first address is the host's.
    pub(crate) fn ipv4(self) -> Ipv4Net {
        match self {
            Self::Default => Ipv4Net::new_assert([172, 16, 28, 0].into(), 24),
            Self::DefaultRestricted => Ipv4Net::new_assert([172, 31, 0, 0].into(), 16),
        }
    }

    /// A unique local prefix (RFC 4193) of hull's; pods have the same last number as in [`Self::ipv4`].
    pub(crate) fn ipv6(self) -> Ipv6Net {
        let subnet = match self {
            Self::Default => 1,
            Self::DefaultRestricted => 2,
        };
        Ipv6Net::new_assert([0xfd68, 0x756c, 0x6c70, subnet, 0, 0, 0, 0].into(), 64)
    }

    /// Whether it leads beyond the host.
    pub(crate) fn leads_out(self) -> bool {
        self == Self::Default
    }
}

/// Ports of the host that lead to the pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Forward {
    pub protocol: Protocol,
    /// Absent: every address of the host's.
    pub host_ip: Option<IpAddr>,
    pub host_port: u16,
    pub pod_port: u16,
    /// How many ports, from these on.
    pub count: u16,
}

/// What a port is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    /// As images and nft(8) spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

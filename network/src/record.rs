//! `net-info.json` in the pod's directory: what the host has of a pod's networks, written before it is made.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::net::IpAddr;
use std::path::Path;

use hull_errors::Doing;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::cni::{self, Call};
use crate::namespace::Namespace;
use crate::netlink::Netlink;
use crate::request::Configured;
use crate::{Error, Kind, nft};

const FILE: &str = "net-info.json";

/// What the host has of a pod's networks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Record {
    /// The pod's table of rules.
    pub table: Option<String>,
    pub networks: Vec<Attached>,
}

/// A network that the pod is in; the keys are rkt's, and some more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Attached {
    pub net_name: String,
    /// The interface in the pod.
    pub if_name: String,
    /// The host's end of it, to be removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_if_name: Option<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mac: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The pod's addresses; empty before they are known.
    #[serde(default)]
    pub addresses: Vec<IpNet>,
    #[serde(default)]
    pub routes: Vec<Route>,
    #[serde(default)]
    pub dns: Dns,
    /// What plugins are told to undo it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cni: Option<Call>,
}

impl Attached {
    /// One of which nothing is known yet but its names.
    pub(crate) fn new(network: &str, interface: &str) -> Self {
        Self {
            net_name: network.to_owned(),
            if_name: interface.to_owned(),
            host_if_name: None,
            mac: String::new(),
            mtu: None,
            addresses: vec![],
            routes: vec![],
            dns: Dns::default(),
            cni: None,
        }
    }

    /// The network of `net.d` that it is, if it is one.
    pub fn configured(&self) -> Option<&Configured> {
        self.cni.as_ref().map(Call::network)
    }

    /// The hardware address, once the interface is there.
    pub fn mac_octets(&self) -> Option<[u8; 6]> {
        let mut octets = self.mac.split(':').map(|octet| u8::from_str_radix(octet, 16).ok());
        let mut mac = [0; 6];
        for octet in &mut mac {
            *octet = octets.next()??;
        }
        octets.next().is_none().then_some(mac)
    }
}

/// A route of the pod's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    pub destination: IpNet,
    /// Absent: whoever is at the other end of the interface.
    pub gateway: Option<IpAddr>,
}

/// What a network says about names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dns {
    pub nameservers: Vec<IpAddr>,
    pub domain: Option<String>,
    pub search: Vec<String>,
    pub options: Vec<String>,
}

impl Record {
    /// Reads the record of the pod in `dir`; absent: it is in no network.
    ///
    /// # Errors
    /// The host's, or the file says something else.
    pub fn read(dir: &Path) -> Result<Option<Self>, Error> {
        let path = dir.join(FILE);
        let doing = || format!("read {}", path.display());
        match fs::read(&path) {
            Err(why) if why.kind() == ErrorKind::NotFound => Ok(None),
            Err(why) => Err(Error::because(Kind::Host, doing(), why)),
            Ok(bytes) => serde_json::from_slice(&bytes).doing(Kind::Host, doing).map(Some),
        }
    }

    /// Writes it, whole or not at all.
    pub(crate) fn write(&self, dir: &Path) -> Result<(), Error> {
        let (part, whole) = (dir.join(format!("{FILE}.part")), dir.join(FILE));
        let write = || -> std::io::Result<()> {
            File::create(&part)?.write_all(&serde_json::to_vec_pretty(self)?)?;
            fs::rename(&part, &whole)
        };
        write().doing(Kind::Host, || format!("write {}", whole.display()))
    }
}

/// Undoes what the record of the pod in `dir` says, and then has no record. Nobody else may be at it: hold the
/// pod's lock. Half of it may have been undone before, or never done.
///
/// # Errors
/// The host's; the record is still there then.
pub fn disconnect(dir: &Path) -> Result<(), Error> {
    undo(dir, None)
}

/// As [`disconnect`], where the pod's namespace is still there.
pub(crate) fn undo(dir: &Path, namespace: Option<&Namespace>) -> Result<(), Error> {
    let Some(record) = Record::read(dir)? else { return Ok(()) };
    // What cannot be undone keeps nothing else.
    let mut outcome = record.table.as_deref().map_or(Ok(()), nft::remove);
    for network in record.networks.iter().rev() {
        let plugins = network.cni.as_ref().map_or(Ok(()), |call| cni::detach(call, namespace));
        let link = network.host_if_name.as_deref().map_or(Ok(()), remove_link);
        outcome = outcome.and(plugins).and(link);
    }
    outcome?;
    fs::remove_file(dir.join(FILE)).doing(Kind::Host, || format!("remove {FILE} of {}", dir.display()))
}

fn remove_link(name: &str) -> Result<(), Error> {
    Netlink::open()?.remove_link(name)
}

//! From a plan to a namespace that is connected.

use std::path::{Path, PathBuf};

use crate::namespace::Namespace;
use crate::netlink::Netlink;
use crate::nft::{self, Rules};
use crate::record::{Attached, Record, undo};
use crate::splice::splice;
use crate::{Egress, Error, Held, Kind, Network, Plan, builtin, cni, hold};

/// A pod's namespace, connected as planned.
#[derive(Debug)]
pub struct Connected {
    dir: PathBuf,
    namespace: Namespace,
    networks: Vec<Attached>,
    _ports: Held,
}

impl Connected {
    /// The namespace, for the pod's processes to enter.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The networks, in the order of the plan.
    pub fn networks(&self) -> &[Attached] {
        &self.networks
    }

    /// Joins the tap of this name in the namespace to the interface of network number `index`: what comes from
    /// one leaves by the other.
    ///
    /// # Errors
    /// The host's.
    pub fn join_tap(&self, index: usize, tap: &str) -> Result<(), Error> {
        let attached = &self.networks[index];
        self.namespace.inside(|| splice(attached, tap))?
    }

    /// Undoes it all. No process of the pod should be left.
    ///
    /// # Errors
    /// As [`disconnect`], which may be tried again.
    pub fn disconnect(self) -> Result<(), Error> {
        undo(&self.dir, Some(&self.namespace))
    }
}

/// Makes a namespace and connects it. `dir` is the directory of the pod, where the record goes, and `id` its id;
/// call it once in a pod's life, and hold the pod's lock.
///
/// # Errors
/// A wish that cannot be, or the host's. Nothing is left then, or the record says what.
pub fn connect(dir: &Path, id: &str, plan: &Plan) -> Result<Connected, Error> {
    if plan.networks.len() > Plan::NETWORKS_MAX {
        let text = format!("a pod has at most {} networks, not {}", Plan::NETWORKS_MAX, plan.networks.len());
        return Err(Error::new(Kind::Request, text));
    }
    let ports = hold(&plan.forwards)?;
    let namespace = Namespace::make()?;
    match attach_all(dir, id, plan, &namespace) {
        Ok(networks) => Ok(Connected { dir: dir.to_owned(), namespace, networks, _ports: ports }),
        Err(why) => {
            // What cannot be undone now is undone by who removes the pod; the first error says more.
            let _ = undo(dir, Some(&namespace));
            Err(why)
        }
    }
}

fn attach_all(dir: &Path, id: &str, plan: &Plan, namespace: &Namespace) -> Result<Vec<Attached>, Error> {
    namespace.inside(|| {
        let mut netlink = Netlink::open()?;
        let loopback = netlink.link("lo")?;
        netlink.bring_up(loopback.index)
    })??;
    check(plan)?;
    let target = plan.takes_ports();
    let forwards = |index| if target == Some(index) { plan.forwards.as_slice() } else { &[] };
    let mut record = Record::default();
    let (mut links, mut forwards_to) = (vec![], None);
    for (index, network) in plan.networks.iter().enumerate() {
        let begun = record.networks.clone();
        let write = |attached: &Attached| {
            let networks = begun.iter().cloned().chain([attached.clone()]).collect();
            Record { networks, table: None }.write(dir)
        };
        match network {
            Network::BuiltIn { network, ip } => {
                let (attached, link) = builtin::attach((*network, *ip), (id, index), namespace, write)?;
                if target == Some(index) {
                    forwards_to = Some(links.len());
                }
                record.networks.push(attached);
                links.push(link);
            }
            Network::Configured(network) => {
                let attached = cni::attach(network, (id, index), namespace, forwards(index), write)?;
                record.networks.push(attached);
            }
        }
    }
    if !links.is_empty() {
        record.table = Some(nft::table(id));
    }
    if !record.networks.is_empty() {
        record.write(dir)?;
    }
    if let Some(table) = &record.table {
        let (forwards, egress) = (plan.forwards.as_slice(), &plan.egress);
        let rate = plan.bits_per_second;
        nft::install(&Rules { table, links: &links, forwards, forwards_to, egress, rate })?;
    }
    Ok(record.networks)
}

/// What cannot be enforced is refused.
fn check(plan: &Plan) -> Result<(), Error> {
    let limited = plan.egress != Egress::Open || plan.bits_per_second.is_some();
    let plugins = plan.networks.iter().find(|network| matches!(network, Network::Configured(_)));
    match plugins {
        Some(network) if limited => {
            let text = format!(
                "limit what the pod sends: network {} is made by plugins, and only built-in networks can be limited",
                network.name()
            );
            Err(Error::new(Kind::Request, text))
        }
        _ => Ok(()),
    }
}

//! From a plan to a namespace that is connected.

use std::path::{Path, PathBuf};

use crate::namespace::Namespace;
use crate::netlink::Netlink;
use crate::nft::{self, PodLink, Rules};
use crate::record::{Attached, Record, disconnect};
use crate::splice::splice;
use crate::{Error, Held, Kind, Plan, builtin, hold};

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
        disconnect(&self.dir)
    }
}

/// Makes a namespace and connects it. `dir` is the directory of the pod, where the record goes, and `id` its id;
/// call it once in a pod's life, and hold the pod's lock.
///
/// # Errors
/// A wish that cannot be, or the host's. Nothing is left then, or the record says what.
pub fn connect(dir: &Path, id: &str, plan: &Plan) -> Result<Connected, Error> {
    match attach_all(dir, id, plan) {
        Ok(connected) => Ok(connected),
        Err(why) => {
            // What cannot be undone now is undone by who removes the pod; the first error says more.
            let _ = disconnect(dir);
            Err(why)
        }
    }
}

fn attach_all(dir: &Path, id: &str, plan: &Plan) -> Result<Connected, Error> {
    if plan.networks.len() > Plan::NETWORKS_MAX {
        let text = format!("a pod has at most {} networks, not {}", Plan::NETWORKS_MAX, plan.networks.len());
        return Err(Error::new(Kind::Request, text));
    }
    let ports = hold(&plan.forwards)?;
    let namespace = Namespace::make()?;
    namespace.inside(|| {
        let mut netlink = Netlink::open()?;
        let loopback = netlink.link("lo")?;
        netlink.bring_up(loopback.index)
    })??;
    let mut record = Record::default();
    let mut links: Vec<PodLink> = vec![];
    for (index, network) in plan.networks.iter().enumerate() {
        let begun = record.networks.clone();
        let write = |attached: &Attached| {
            let networks = begun.iter().cloned().chain([attached.clone()]).collect();
            Record { networks, table: None }.write(dir)
        };
        let (attached, link) =
            builtin::attach((network.network, network.ip), (id, index), &namespace, write)?;
        record.networks.push(attached);
        links.push(link);
    }
    if !links.is_empty() {
        let table = nft::table(id);
        record.table = Some(table.clone());
        record.write(dir)?;
        let out = plan.networks.iter().position(|network| network.network.leads_out());
        nft::install(&Rules {
            table: &table,
            links: &links,
            forwards: &plan.forwards,
            forwards_to: out.or(links.len().checked_sub(1)),
        })?;
    }
    Ok(Connected { dir: dir.to_owned(), namespace, networks: record.networks, _ports: ports })
}

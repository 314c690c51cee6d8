//! The networks that need no configuration: a pair of interfaces for each pod, and the host between them all.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use hull_errors::Doing;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use nix::fcntl::{Flock, FlockArg};

use crate::link::{in_pod, mac_text, on_host};
use crate::namespace::Namespace;
use crate::netlink::Netlink;
use crate::nft::PodLink;
use crate::record::{Attached, Route};
use crate::{BuiltIn, Error, Kind, forwarding};

/// Held between the look for a free address and the route that takes it.
const LOCK: &str = "/run/hull/network.lock";

/// A pod's place in a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    network: BuiltIn,
    ipv4: Ipv4Addr,
    /// Absent where the host has none.
    ipv6: Option<Ipv6Addr>,
}

impl Place {
    fn new(network: BuiltIn, ipv4: Ipv4Addr, ipv6: bool) -> Self {
        let number = u32::from(ipv4) - u32::from(network.ipv4().network());
        Self { network, ipv4, ipv6: ipv6.then(|| nth6(network.ipv6(), number)) }
    }

    fn addresses(&self) -> Vec<IpAddr> {
        [Some(self.ipv4.into()), self.ipv6.map(Into::into)].into_iter().flatten().collect()
    }

    fn gateways(&self) -> Vec<IpAddr> {
        let six = self.ipv6.map(|_| nth6(self.network.ipv6(), 1).into());
        [Some(nth4(self.network.ipv4(), 1).into()), six].into_iter().flatten().collect()
    }

    /// The gateway is at the other end of the interface, everything else behind it.
    fn routes(&self) -> Vec<Route> {
        let mut routes = vec![];
        for gateway in self.gateways() {
            routes.push(Route { destination: gateway.into(), gateway: None });
            let all = match (gateway, self.network.leads_out()) {
                (IpAddr::V4(_), true) => IpNet::V4(Ipv4Net::default()),
                (IpAddr::V6(_), true) => IpNet::V6(Ipv6Net::default()),
                (IpAddr::V4(_), false) => self.network.ipv4().into(),
                (IpAddr::V6(_), false) => self.network.ipv6().into(),
            };
            routes.push(Route { destination: all, gateway: Some(gateway) });
        }
        routes
    }
}

/// Connects the namespace. `record` gets what there will be before anything is made.
pub(crate) fn attach(
    wish: (BuiltIn, Option<Ipv4Addr>),
    pod: (&str, usize),
    namespace: &Namespace,
    mut record: impl FnMut(&Attached) -> Result<(), Error>,
) -> Result<(Attached, PodLink), Error> {
    let ((network, ip), (id, index)) = (wish, pod);
    let ipv6 = forwarding::has_ipv6();
    forwarding::switch_on(ipv6)?;
    let (host, inside) = (on_host(id, index), in_pod(index));
    let mut netlink = Netlink::open()?;
    let lock = lock()?;
    let taken = netlink.destinations(false)?;
    let place = Place::new(network, choose(network, ip, &taken, seed(id))?, ipv6);
    let mut attached = Attached::new(network.name(), &inside);
    attached.host_if_name = Some(host.clone());
    attached.addresses = place.addresses().into_iter().map(IpNet::from).collect();
    attached.routes = place.routes();
    record(&attached)?;
    netlink.add_pair(&host, &inside, namespace)?;
    forwarding::guard(&host, ipv6)?;
    let link = netlink.link(&host)?;
    for gateway in place.gateways() {
        netlink.add_address(link.index, gateway.into())?;
    }
    netlink.bring_up(link.index)?;
    for address in place.addresses() {
        netlink.add_route(link.index, &Route { destination: address.into(), gateway: None })?;
    }
    drop(lock);
    let link = namespace.inside(|| {
        let mut netlink = Netlink::open()?;
        let link = netlink.link(&inside)?;
        if ipv6 {
            forwarding::trust_own_addresses(&inside)?;
        }
        for address in &attached.addresses {
            netlink.add_address(link.index, *address)?;
        }
        netlink.bring_up(link.index)?;
        for route in &attached.routes {
            netlink.add_route(link.index, route)?;
        }
        Ok::<_, Error>(link)
    })??;
    attached.mac = mac_text(&link.mac);
    attached.mtu = Some(link.mtu);
    let own = [IpNet::V4(network.ipv4()), IpNet::V6(network.ipv6())];
    let rules = PodLink {
        host_if_name: host,
        mac: attached.mac.clone(),
        addresses: place.addresses(),
        inside: network.leads_out().then(|| own.to_vec()),
    };
    Ok((attached, rules))
}

fn lock() -> Result<Flock<File>, Error> {
    let doing = || format!("lock {LOCK}");
    let open = || -> std::io::Result<File> {
        fs::create_dir_all(Path::new(LOCK).parent().unwrap_or(Path::new("/")))?;
        File::options().write(true).create(true).truncate(false).open(LOCK)
    };
    let file = open().doing(Kind::Host, doing)?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, why)| Error::because(Kind::Host, doing(), why))
}

/// Where the search for a free address begins: pods that follow each other shall not be taken for each other.
fn seed(id: &str) -> u32 {
    id.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok()).unwrap_or_default()
}

/// An address that no route of the host's leads to yet. The first is the gateway's, the last for all.
fn choose(network: BuiltIn, wish: Option<Ipv4Addr>, taken: &[IpNet], seed: u32) -> Result<Ipv4Addr, Error> {
    let subnet = network.ipv4();
    let name = network.name();
    let host = |net: &&IpNet| net.prefix_len() == 32;
    let own = IpNet::V4(subnet);
    let within = |net: &IpNet| own.contains(net) || net.contains(&own);
    if let Some(other) = taken.iter().find(|net| !host(net) && within(net)) {
        let why = format!(
            "network {name} has the addresses {subnet}, which on this host are {other}; configure a network of the \
             same name with others"
        );
        return Err(Error::new(Kind::Request, why));
    }
    let taken: Vec<u32> = taken
        .iter()
        .filter(host)
        .filter_map(|net| match net.addr() {
            IpAddr::V4(ip) if subnet.contains(&ip) => Some(u32::from(ip) - u32::from(subnet.network())),
            _ => None,
        })
        .collect();
    let end = 1u32 << (32 - subnet.prefix_len());
    let range = 2..end - 1;
    if let Some(ip) = wish {
        let number = subnet.contains(&ip).then(|| u32::from(ip) - u32::from(subnet.network()));
        let refuse =
            |why: &str| Err(Error::new(Kind::Request, format!("join network {name} as {ip}: {why}")));
        return match number {
            Some(number) if !range.contains(&number) => refuse("this address is no pod's"),
            Some(number) if taken.contains(&number) => refuse("another pod has this address"),
            Some(_) => Ok(ip),
            None => refuse(&format!("its addresses are {subnet}")),
        };
    }
    let count = range.end - range.start;
    let free = (0..count).map(|n| range.start + (seed % count + n) % count).find(|n| !taken.contains(n));
    let free = free.ok_or_else(|| {
        Error::new(Kind::Host, format!("join network {name}: all {count} addresses of {subnet} are taken"))
    })?;
    Ok(nth4(subnet, free))
}

fn nth4(net: Ipv4Net, number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(net.network()) | number)
}

fn nth6(net: Ipv6Net, number: u32) -> Ipv6Addr {
    Ipv6Addr::from(u128::from(net.network()) | u128::from(number))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::*;

    fn nets(text: &str) -> Vec<IpNet> {
        text.split_whitespace().map(|net| net.parse().unwrap()).collect()
    }

    #[test]
    fn a_free_address_is_chosen() {
        let check = |taken: &str, seed, want: &str| {
            let chosen = choose(BuiltIn::Default, None, &nets(taken), seed).unwrap();
            assert_eq!(chosen.to_string(), want);
        };
        check("", 0, "172.16.28.2");
        check("172.16.28.1/32 172.16.28.2/32", 0, "172.16.28.3");
        check("172.16.28.254/32", 252, "172.16.28.2");
        check("10.0.0.0/8 127.0.0.0/8 192.168.0.2/32", 251, "172.16.28.253");
    }

    #[test]
    fn an_address_that_is_wished_for_is_had_or_refused() {
        let ask = |ip: &str| choose(BuiltIn::Default, Some(ip.parse().unwrap()), &nets("172.16.28.9/32"), 0);
        assert_eq!(ask("172.16.28.8").unwrap().to_string(), "172.16.28.8");
        for (ip, word) in [
            ("172.16.28.9", "another pod"),
            ("172.16.28.1", "no pod's"),
            ("172.16.28.255", "no pod's"),
            ("10.0.0.1", "172.16.28.0/24"),
        ] {
            let why = ask(ip).unwrap_err().to_string();
            assert!(why.contains(word) && why.contains(ip), "{why}");
        }
    }

    #[test]
    fn addresses_that_are_somebody_elses_are_left_alone() {
        for other in ["172.16.0.0/12", "172.16.28.128/25", "172.16.28.0/24"] {
            let why = choose(BuiltIn::Default, None, &nets(other), 0).unwrap_err().to_string();
            assert!(why.contains(other), "{why}");
        }
    }

    #[test]
    fn a_full_network_says_so() {
        let all: Vec<IpNet> = (0..=255).map(|n| IpNet::from(IpAddr::from([172, 16, 28, n]))).collect();
        let why = choose(BuiltIn::Default, None, &all, 7).unwrap_err().to_string();
        assert!(why.contains("taken"), "{why}");
    }

    proptest! {
        #[test]
        fn no_address_is_given_twice(seeds in proptest::collection::vec(any::<u32>(), 1..200)) {
            let mut taken: Vec<IpNet> = vec![];
            for seed in seeds {
                let ip = choose(BuiltIn::DefaultRestricted, None, &taken, seed).unwrap();
                let place = Place::new(BuiltIn::DefaultRestricted, ip, true);
                assert!(BuiltIn::DefaultRestricted.ipv6().contains(&place.ipv6.unwrap()));
                assert!(!taken.contains(&IpNet::from(IpAddr::V4(ip))));
                taken.push(IpNet::from(IpAddr::V4(ip)));
            }
        }
    }
}

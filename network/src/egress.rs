//! Whom a pod may speak to: what `--egress` says, as data and as rules of the host's.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::Protocol;

/// Most destinations of one pod.
pub const DESTINATIONS_MAX: usize = 1024;

/// What no profile but `open` lets a pod reach without naming it: this network, private use, shared address space,
/// loopback, link-local (where clouds keep their metadata), protocol assignments, documentation, benchmarks,
/// multicast and what is reserved (IANA's special-purpose registry, RFC 6890).
const PRIVATE4: &str = "0.0.0.0/8, 10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 169.254.0.0/16, 172.16.0.0/12, 192.0.0.0/24, \
     192.0.2.0/24, 192.88.99.0/24, 192.168.0.0/16, 198.18.0.0/15, 198.51.100.0/24, 203.0.113.0/24, 224.0.0.0/4, \
     240.0.0.0/4";
/// Likewise, and addresses that stand for one of IPv4, which might be one of those: mapped, translated, 6to4,
/// Teredo. Only 2000::/3 is given to anybody; the rest of these are in it.
const PRIVATE6: &str = "::/3, 2001::/23, 2001:db8::/32, 2002::/16, 3fff::/20, 4000::/2, 8000::/1";

/// Whom a pod may speak to first; answers always pass.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Egress {
    /// Whomever its networks lead to.
    #[default]
    Open,
    /// Only these.
    Only(Vec<Destination>),
}

/// One that a pod may speak to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Destination {
    /// Every address that is anybody's in the world, but the host's own.
    Public,
    Addresses {
        net: IpNet,
        /// First and last; absent: all, of any protocol.
        ports: Option<(u16, u16)>,
        /// Absent: TCP and UDP, and all others where there are no ports.
        protocol: Option<Protocol>,
    },
}

impl FromStr for Destination {
    type Err = String;

    /// `public`, or an address or network, `:PORT` or `:FIRST-LAST` behind it, and `/tcp` or `/udp` behind that. What
    /// has a port and is of IPv6 is in brackets.
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "public" {
            return Ok(Self::Public);
        }
        let (front, protocol) = match text.rsplit_once('/') {
            Some((front, "tcp")) => (front, Some(Protocol::Tcp)),
            Some((front, "udp")) => (front, Some(Protocol::Udp)),
            _ => (text, None),
        };
        let (net, ports) = match front.strip_prefix('[') {
            Some(rest) => {
                let (net, ports) = rest.split_once(']').ok_or_else(|| format!("{text:?} lacks a ]"))?;
                (net, ports.strip_prefix(':').or(if ports.is_empty() { None } else { Some("") }))
            }
            None if front.matches(':').count() == 1 => {
                front.split_once(':').map_or((front, None), |(net, ports)| (net, Some(ports)))
            }
            None => (front, None),
        };
        let parsed = net.parse::<IpNet>().ok().or_else(|| net.parse::<IpAddr>().ok().map(IpNet::from));
        let parsed = parsed.ok_or_else(|| {
            format!("{net:?} is no address and no network such as 192.0.2.0/24; names of hosts cannot be let through")
        })?;
        let ports =
            ports.map(|ports| range(ports).ok_or_else(|| format!("{ports:?} is no port and no range")));
        Ok(Self::Addresses { net: parsed.trunc(), ports: ports.transpose()?, protocol })
    }
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first > 0 && first <= last).then_some((first, last))
}

/// Chains of the pod's table that let nothing else come from these interfaces of the host's.
pub(crate) fn chains(egress: &Egress, interfaces: &[&str]) -> Vec<String> {
    let Egress::Only(destinations) = egress else { return vec![] };
    let from: Vec<String> = interfaces.iter().map(|name| format!("\"{name}\"")).collect();
    let from = format!("iifname {{ {} }}", from.join(", "));
    let mut lines = vec!["chain egress {".to_owned(), "ct state established,related accept".to_owned()];
    // Fragments were put together before they came here; one that was not has no port to look at.
    lines.push("ip frag-off & 0x1fff != 0 drop".to_owned());
    lines.extend(destinations.iter().flat_map(allow));
    if destinations.contains(&Destination::Public) {
        // The host has addresses in the world, too, and services that only its neighbours should see.
        lines.push("fib daddr type local goto refused".to_owned());
        lines.push(format!("ip daddr {{ {PRIVATE4} }} goto refused"));
        lines.push(format!("ip6 daddr {{ {PRIVATE6} }} goto refused"));
        lines.push("accept".to_owned());
    }
    lines.push("goto refused".to_owned());
    lines.push("}".to_owned());
    for (name, more) in
        [("forward", ""), ("input", "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept")]
    {
        lines.push(format!("chain egress-{name} {{"));
        lines.push(format!("type filter hook {name} priority filter; policy accept;"));
        if !more.is_empty() {
            lines.push(format!("{from} {more}"));
        }
        lines.push(format!("{from} goto egress"));
        lines.push("}".to_owned());
    }
    // Named by the chain above, so it comes before it.
    let refused = [
        "chain refused {",
        "meta l4proto tcp reject with tcp reset",
        "reject with icmpx type admin-prohibited",
        "}",
    ];
    refused.into_iter().map(str::to_owned).chain(lines).collect()
}

fn allow(destination: &Destination) -> Vec<String> {
    let Destination::Addresses { net, ports, protocol } = destination else { return vec![] };
    let family = if net.addr().is_ipv4() { "ip" } else { "ip6" };
    let to = if net.prefix_len() == 0 {
        format!("meta nfproto {}", if net.addr().is_ipv4() { "ipv4" } else { "ipv6" })
    } else {
        format!("{family} daddr {net}")
    };
    let protocols = match protocol {
        Some(protocol) => vec![protocol.as_str()],
        None => vec!["tcp", "udp"],
    };
    match (ports, protocol) {
        (None, None) => vec![format!("{to} accept")],
        (None, Some(protocol)) => vec![format!("{to} meta l4proto {} accept", protocol.as_str())],
        (Some((first, last)), _) => {
            let rule = |protocol| format!("{to} {protocol} dport {first}-{last} accept");
            protocols.into_iter().map(rule).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::proptest;

    use super::*;

    #[test]
    fn destinations_are_read() {
        let check = |text: &str, want: &[&str]| {
            assert_eq!(allow(&text.parse().unwrap()), want, "{text}");
        };
        check("10.0.0.0/8", &["ip daddr 10.0.0.0/8 accept"]);
        check("10.1.2.3/8", &["ip daddr 10.0.0.0/8 accept"]);
        check(
            "192.0.2.1:443",
            &[
                "ip daddr 192.0.2.1/32 tcp dport 443-443 accept",
                "ip daddr 192.0.2.1/32 udp dport 443-443 accept",
            ],
        );
        check("192.0.2.0/24:80-90/tcp", &["ip daddr 192.0.2.0/24 tcp dport 80-90 accept"]);
        check("192.0.2.1/udp", &["ip daddr 192.0.2.1/32 meta l4proto udp accept"]);
        check("fd00::/8", &["ip6 daddr fd00::/8 accept"]);
        check("[fd00::/8]:53/udp", &["ip6 daddr fd00::/8 udp dport 53-53 accept"]);
        check("::/0", &["meta nfproto ipv6 accept"]);
        check("public", &[]);
        for wrong in [
            "",
            "x",
            "example.com:443",
            "10.0.0.0/33",
            "1.2.3.4:",
            "1.2.3.4:0",
            "1.2.3.4:9-8",
            "[::1",
            "[::1]80",
            "1.2.3.4:80/sctp",
        ] {
            assert!(wrong.parse::<Destination>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_open_pod_has_no_chains() {
        assert_eq!(chains(&Egress::Open, &["a"]), Vec::<String>::new());
        let none = chains(&Egress::Only(vec![]), &["a", "b"]);
        assert!(none.contains(&"iifname { \"a\", \"b\" } goto egress".to_owned()), "{none:?}");
        assert!(!none.contains(&"accept".to_owned()), "{none:?}");
    }

    #[test]
    fn what_is_private_is_no_network_twice() {
        for list in [PRIVATE4, PRIVATE6] {
            let nets: Vec<IpNet> = list.split(", ").map(|net| net.trim().parse().unwrap()).collect();
            for (index, net) in nets.iter().enumerate() {
                assert_eq!(net.trunc(), *net);
                assert!(
                    nets[..index].iter().all(|other| !other.contains(net) && !net.contains(other)),
                    "{net}"
                );
            }
            let covers = |ip: &str| nets.iter().any(|net| net.contains(&ip.parse::<IpAddr>().unwrap()));
            let (private, public): (&[&str], &[&str]) = if list == PRIVATE4 {
                (
                    &["169.254.169.254", "10.0.0.1", "172.31.0.1", "127.0.0.1", "100.64.0.1"],
                    &["1.1.1.1", "93.184.216.34", "172.32.0.1"],
                )
            } else {
                (
                    &[
                        "::ffff:10.0.0.1",
                        "64:ff9b::a00:1",
                        "fd00:ec2::254",
                        "fe80::1",
                        "::1",
                        "ff02::1",
                        "2002:a00:1::",
                        "fc00::1",
                        "2001:0:1::",
                    ],
                    &["2606:2800:220:1::34", "2a00::1", "2001:4860::1"],
                )
            };
            assert!(private.iter().all(|ip| covers(ip)) && !public.iter().any(|ip| covers(ip)), "{list}");
        }
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(text in ".{0,80}") {
            let _ = text.parse::<Destination>(); // That it comes back is all.
        }
    }
}

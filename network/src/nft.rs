//! A pod's rules: one table of nftables, which comes and goes in one transaction of nft(8).

use std::fmt::Write;
use std::io;
use std::net::IpAddr;
use std::process::{Command, Stdio};

use hull_errors::Doing;
use ipnet::IpNet;

use crate::{Egress, Error, Forward, Kind, egress};

const PROGRAM: &str = "nft";

/// Where programs of the administrator's are, for who starts hull without them in `PATH`.
const MORE_PATH: &str = "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin";

/// The name of a pod's table.
pub(crate) fn table(id: &str) -> String {
    format!("hull-{id}")
}

/// An interface of the host's that a pod is at the other end of.
#[derive(Clone, Debug)]
pub(crate) struct PodLink {
    pub(crate) host_if_name: String,
    /// The pod's.
    pub(crate) mac: String,
    /// The pod's, one of a family.
    pub(crate) addresses: Vec<IpAddr>,
    /// Packets to these keep the pod's address, all others get the host's; `None`: all keep it.
    pub(crate) inside: Option<Vec<IpNet>>,
}

/// All rules of a pod.
#[derive(Clone, Debug)]
pub(crate) struct Rules<'a> {
    pub(crate) table: &'a str,
    pub(crate) links: &'a [PodLink],
    pub(crate) forwards: &'a [Forward],
    /// The one of `links` that forwarded ports lead to.
    pub(crate) forwards_to: Option<usize>,
    pub(crate) egress: &'a Egress,
    /// Bits that the pod may send in a second.
    pub(crate) rate: Option<u64>,
}

/// What may be sent at once beside a second's worth, in bytes: a packet that the kernel hands over in one piece, before
/// it is split, must not be stopped for ever.
const BURST: u32 = 256 << 10;

/// Puts the rules in place of those that the table may have.
pub(crate) fn install(rules: &Rules<'_>) -> Result<(), Error> {
    run(&text(rules)).map(drop).doing(Kind::Host, || format!("set up table {} of nftables", rules.table))
}

/// Removes the table, if there is one.
pub(crate) fn remove(table: &str) -> Result<(), Error> {
    run(&fresh(table)).map(drop).doing(Kind::Host, || format!("remove table {table} of nftables"))
}

/// Finds out whether rules can be set up at all, and says what nft calls itself.
///
/// # Errors
/// nft is not there, or the kernel lets it do nothing.
pub fn probe() -> Result<String, Error> {
    let version = run_with(&["--version"], "").doing(Kind::Host, || "look for nft".into())?;
    let table = format!("hull-probe-{}", std::process::id());
    // An interface that is always there: a chain on it needs all that a pod's needs.
    let chain = format!(
        "table inet {table} {{\nchain a {{\ntype filter hook ingress device lo priority 0;\n}}\n\
         chain b {{\ntype nat hook postrouting priority srcnat;\n}}\n}}\n"
    );
    let tried = run(&chain);
    remove(&table)?;
    tried.doing(Kind::Host, || "try a table of nftables".into())?;
    Ok(version.trim().to_owned())
}

/// A table that was there goes; it is named first, as what is not there cannot be deleted.
fn fresh(table: &str) -> String {
    format!("table inet {table}\ndelete table inet {table}\n")
}

fn text(rules: &Rules<'_>) -> String {
    let mut text = fresh(rules.table);
    let mut line = |words: &str| {
        text.push_str(words);
        text.push('\n');
    };
    line(&format!("table inet {} {{", rules.table));
    if let Some(bits) = rules.rate {
        let bytes = (bits / 8).max(1);
        line(&format!("limit bandwidth {{ rate over {bytes} bytes/second burst {BURST} bytes }}"));
    }
    for (index, link) in rules.links.iter().enumerate() {
        line(&format!("chain from-pod-{index} {{"));
        let device = &link.host_if_name;
        line(&format!("type filter hook ingress device \"{device}\" priority filter; policy drop;"));
        if rules.rate.is_some() {
            line("limit name \"bandwidth\" drop");
        }
        honest(link).iter().for_each(|rule| line(rule));
        line("}");
    }
    let interfaces: Vec<&str> = rules.links.iter().map(|link| link.host_if_name.as_str()).collect();
    egress::chains(rules.egress, &interfaces).iter().for_each(|rule| line(rule));
    let target = rules.forwards_to.and_then(|index| rules.links.get(index));
    for (name, hook) in [("prerouting", "prerouting priority dstnat"), ("output", "output priority -100")] {
        line(&format!("chain {name} {{"));
        line(&format!("type nat hook {hook}; policy accept;"));
        for (forward, link) in target.iter().flat_map(|link| rules.forwards.iter().map(move |f| (f, link))) {
            destinations(forward, link).iter().for_each(|rule| line(rule));
        }
        line("}");
    }
    line("chain postrouting {");
    line("type nat hook postrouting priority srcnat; policy accept;");
    rules.links.iter().flat_map(sources).for_each(|rule| line(&rule));
    line("}\n}");
    text
}

/// What may come from a pod: packets in its own name.
fn honest(link: &PodLink) -> Vec<String> {
    let mut rules = vec![
        format!("ether saddr != {} drop", link.mac),
        // The host's loopback is open to the interface, for published ports; not to the pod.
        "ip daddr 127.0.0.0/8 drop".to_owned(),
    ];
    for address in &link.addresses {
        rules.push(format!("{} saddr {address} accept", family(*address)));
    }
    if link.addresses.iter().any(IpAddr::is_ipv6) {
        // Neighbours are asked for, and duplicates looked for, from other addresses: RFC 4861, RFC 4862.
        rules.push("ip6 saddr fe80::/10 ip6 daddr { fe80::/10, ff02::/16 } icmpv6 type != { nd-router-advert, nd-redirect } accept".to_owned());
        rules.push("ip6 saddr :: ip6 daddr ff02::/16 icmpv6 type nd-neighbor-solicit accept".to_owned());
    }
    rules
}

/// Rules that lead one forwarded port, or a range, to the pod.
fn destinations(forward: &Forward, link: &PodLink) -> Vec<String> {
    let protocol = forward.protocol.as_str();
    let mut rules = vec![];
    for address in &link.addresses {
        let family = family(*address);
        let to = match forward.host_ip {
            None => "fib daddr type local".to_owned(),
            Some(ip) if ip.is_ipv4() == address.is_ipv4() => format!("{family} daddr {ip}"),
            Some(_) => continue,
        };
        for offset in 0..forward.count {
            let (host, pod) = (forward.host_port + offset, forward.pod_port + offset);
            let pod =
                if address.is_ipv6() { format!("[{address}]:{pod}") } else { format!("{address}:{pod}") };
            rules.push(format!(
                "meta nfproto {} {to} {protocol} dport {host} dnat {family} to {pod}",
                nfproto(*address)
            ));
        }
    }
    rules
}

/// Whose address a packet leaves with.
fn sources(link: &PodLink) -> Vec<String> {
    let device = &link.host_if_name;
    let mut rules = vec![];
    for address in &link.addresses {
        let family = family(*address);
        // A published port, asked for by the host's loopback or by the pod itself: the answer has to come by here.
        let own = if address.is_ipv4() { "127.0.0.0/8" } else { "::1" };
        rules.push(format!("oifname \"{device}\" {family} saddr {{ {own}, {address} }} masquerade"));
        let Some(inside) = &link.inside else { continue };
        let inside = inside.iter().filter(|net| net.addr().is_ipv4() == address.is_ipv4());
        let mut kept = String::new();
        for net in inside {
            let _ = write!(kept, "{net}, "); // Text grows without end.
        }
        let many = if address.is_ipv4() { "224.0.0.0/4" } else { "ff00::/8" };
        rules.push(format!("{family} saddr {address} {family} daddr != {{ {kept}{many} }} masquerade"));
    }
    rules
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "ip" } else { "ip6" }
}

fn nfproto(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "ipv4" } else { "ipv6" }
}

fn run(script: &str) -> io::Result<String> {
    run_with(&["-f", "-"], script)
}

fn run_with(words: &[&str], script: &str) -> io::Result<String> {
    use std::io::Write;
    let path = std::env::var("PATH").unwrap_or_default();
    let mut child = Command::new(PROGRAM)
        .args(words)
        .env("PATH", format!("{path}:{MORE_PATH}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|why| match why.kind() {
            io::ErrorKind::NotFound => io::Error::new(
                io::ErrorKind::NotFound,
                "there is no program nft: install nftables, or do without networks with --net=none",
            ),
            _ => why,
        })?;
    // nft reads all of it before it says a word; one that ends early tells why below.
    let written = child.stdin.take().map(|mut stdin| stdin.write_all(script.as_bytes()));
    let output = child.wait_with_output()?;
    match output.status.success() {
        true => {
            written.transpose()?;
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        }
        false => {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said.lines().next().unwrap_or("it gave no reason").to_owned();
            Err(io::Error::other(format!("nft: {said}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Protocol;

    fn link() -> PodLink {
        PodLink {
            host_if_name: "hull0-0".into(),
            mac: "02:00:00:00:00:01".into(),
            addresses: vec!["172.16.28.2".parse().unwrap(), "fd00::2".parse().unwrap()],
            inside: Some(vec!["172.16.28.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()]),
        }
    }

    fn forward(host_ip: Option<&str>, count: u16) -> Forward {
        let host_ip = host_ip.map(|ip| ip.parse().unwrap());
        Forward { protocol: Protocol::Tcp, host_ip, host_port: 8080, pod_port: 80, count }
    }

    #[test]
    fn a_port_leads_to_every_address_that_it_can() {
        let check = |host_ip, count, want: usize| {
            assert_eq!(destinations(&forward(host_ip, count), &link()).len(), want);
        };
        check(None, 1, 2);
        check(None, 3, 6);
        check(Some("127.0.0.1"), 1, 1);
        check(Some("::"), 2, 2);
        let last = destinations(&forward(None, 2), &link()).pop().unwrap();
        assert_eq!(last, "meta nfproto ipv6 fib daddr type local tcp dport 8081 dnat ip6 to [fd00::2]:81");
    }

    #[test]
    fn a_table_names_the_pods_address_and_drops_all_else() {
        let link = [link()];
        let forwards = [forward(None, 1)];
        let text = text(&Rules {
            table: "hull-x",
            links: &link,
            forwards: &forwards,
            forwards_to: Some(0),
            egress: &Egress::Only(vec![crate::Destination::Public]),
            rate: Some(8_000_000),
        });
        for words in [
            "delete table inet hull-x",
            "policy drop;",
            "rate over 1000000 bytes/second burst 262144 bytes",
            "iifname { \"hull0-0\" } goto egress",
            "ether saddr != 02:00:00:00:00:01 drop",
            "ip saddr 172.16.28.2 ip daddr != { 172.16.28.0/24, 224.0.0.0/4 } masquerade",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
        assert_eq!(text.matches('{').count(), text.matches('}').count(), "{text}");
    }
}

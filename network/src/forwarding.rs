//! What the host's kernel is told about passing packets on, in `/proc/sys/net`
//! (kernel `Documentation/networking/ip-sysctl.rst`).

use std::fs;
use std::io;
use std::path::Path;

use hull_errors::Doing;

use crate::{Error, Kind};

const IPV4: &str = "/proc/sys/net/ipv4/ip_forward";
const IPV6: &str = "/proc/sys/net/ipv6/conf/all/forwarding";
const IPV6_INTERFACES: &str = "/proc/sys/net/ipv6/conf";

/// Whether this host speaks IPv6 at all.
pub fn has_ipv6() -> bool {
    let disabled = fs::read_to_string("/proc/sys/net/ipv6/conf/all/disable_ipv6");
    disabled.is_ok_and(|text| text.trim() == "0")
}

/// Whether packets are passed on already, of IPv4 and of IPv6.
pub fn is_on() -> (bool, bool) {
    (reads(Path::new(IPV4), "1"), reads(Path::new(IPV6), "1"))
}

/// Lets the host pass packets on. It stays so: other pods, and others, may need it.
pub(crate) fn switch_on(ipv6: bool) -> Result<(), Error> {
    let (four, six) = is_on();
    if !four {
        set(Path::new(IPV4), "1")?;
    }
    if ipv6 && !six {
        keep_router_advertisements().doing(Kind::Host, || format!("look into {IPV6_INTERFACES}"))?;
        set(Path::new(IPV6), "1")?;
    }
    Ok(())
}

/// A host that forwards stops listening to routers, unless told otherwise: it would lose its own address.
fn keep_router_advertisements() -> io::Result<()> {
    for entry in fs::read_dir(IPV6_INTERFACES)? {
        let path = entry?.path().join("accept_ra");
        if reads(&path, "1") {
            // An interface that has just gone needs none.
            let _ = fs::write(&path, "2");
        }
    }
    Ok(())
}

/// What holds for the host's end of a pod's interface: nobody at the other end is to be believed.
pub(crate) fn guard(interface: &str, ipv6: bool) -> Result<(), Error> {
    let four = Path::new("/proc/sys/net/ipv4/conf").join(interface);
    for (name, value) in [
        ("accept_redirects", "0"),
        ("send_redirects", "0"),
        // Asked for other addresses of the host, it does not say where they are.
        ("arp_ignore", "1"),
        ("accept_source_route", "0"),
        ("forwarding", "1"),
        // The host's loopback reaches published ports; what comes from the pod to it is dropped by the pod's rules.
        ("route_localnet", "1"),
    ] {
        set(&four.join(name), value)?;
    }
    if ipv6 {
        let six = Path::new(IPV6_INTERFACES).join(interface);
        for (name, value) in [("accept_ra", "0"), ("autoconf", "0"), ("accept_redirects", "0")] {
            set(&six.join(name), value)?;
        }
        trust_own_addresses(interface)?;
    }
    Ok(())
}

/// There are two on the link, and both have what they were given: nobody needs to be asked for a second before an
/// address may be used.
pub(crate) fn trust_own_addresses(interface: &str) -> Result<(), Error> {
    set(&Path::new(IPV6_INTERFACES).join(interface).join("accept_dad"), "0")
}

fn reads(path: &Path, want: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text.trim() == want)
}

fn set(path: &Path, value: &str) -> Result<(), Error> {
    fs::write(path, value).doing(Kind::Host, || format!("write {value} to {}", path.display()))
}

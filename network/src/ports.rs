//! Ports of the host, held for a pod: nobody else can have them, and who has them already is found out first.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use hull_errors::Doing;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt,
};

use crate::{Error, Forward, Kind, Protocol, forwarding};

/// Most ports of one pod; each is a socket and some rules.
const PORTS_MAX: usize = 1024;

/// Sockets that take nothing: the pod's rules take it all before them. Others cannot bind their ports.
#[derive(Debug, Default)]
pub struct Held(#[expect(dead_code, reason = "held, never read")] Vec<OwnedFd>);

/// Takes the ports.
///
/// # Errors
/// Somebody has one of them, or the host has no such address.
pub fn hold(forwards: &[Forward]) -> Result<Held, Error> {
    let count: usize = forwards.iter().map(|forward| usize::from(forward.count)).sum();
    if count > PORTS_MAX {
        let text = format!("publish {count} ports: a pod has at most {PORTS_MAX}");
        return Err(Error::new(Kind::Request, text));
    }
    let mut held = vec![];
    for forward in forwards {
        for offset in 0..forward.count {
            let port = forward.host_port.checked_add(offset).filter(|port| *port != 0);
            let inside = forward.pod_port.checked_add(offset);
            let (Some(port), Some(_)) = (port, inside) else {
                let (count, first) = (forward.count, forward.host_port);
                let text = format!("publish {count} ports from {first} on: ports are 1 to 65535");
                return Err(Error::new(Kind::Request, text));
            };
            for ip in addresses(forward.host_ip) {
                held.push(take(forward.protocol, SocketAddr::new(ip, port))?);
            }
        }
    }
    Ok(Held(held))
}

fn addresses(ip: Option<IpAddr>) -> Vec<IpAddr> {
    let six = forwarding::has_ipv6().then_some(Ipv6Addr::UNSPECIFIED.into());
    let all = || [Some(Ipv4Addr::UNSPECIFIED.into()), six].into_iter().flatten().collect();
    ip.map_or_else(all, |ip| vec![ip])
}

fn take(protocol: Protocol, address: SocketAddr) -> Result<OwnedFd, Error> {
    let doing = || format!("publish {} port {}", protocol.as_str(), address);
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let kind = match protocol {
        Protocol::Tcp => SockType::Stream,
        Protocol::Udp => SockType::Datagram,
    };
    let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC, None).doing(Kind::Host, doing)?;
    if address.is_ipv6() {
        setsockopt(&socket, sockopt::Ipv6V6Only, &true).doing(Kind::Host, doing)?;
    }
    match bind(socket.as_raw_fd(), &SockaddrStorage::from(address)) {
        Ok(()) => Ok(socket),
        Err(Errno::EADDRINUSE) => {
            let text =
                format!("{}: another program or pod of this host has it; choose another port", doing());
            Err(Error::new(Kind::Request, text))
        }
        Err(Errno::EADDRNOTAVAIL) => {
            let text = format!("{}: this host has no such address", doing());
            Err(Error::new(Kind::Request, text))
        }
        Err(why) => Err(Error::because(Kind::Host, doing(), why)),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    fn forward(protocol: Protocol, host_port: u16, count: u16) -> Forward {
        Forward { protocol, host_ip: Some(Ipv4Addr::LOCALHOST.into()), host_port, pod_port: 1, count }
    }

    #[test]
    fn a_port_is_had_once() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let why = hold(&[forward(Protocol::Tcp, port, 1)]).unwrap_err().to_string();
        assert!(why.contains(&format!("tcp port 127.0.0.1:{port}")) && why.contains("another"), "{why}");
        let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let held = hold(&[forward(Protocol::Udp, free, 1)]).unwrap();
        assert!(hold(&[forward(Protocol::Udp, free, 1)]).is_err());
        drop(held);
        hold(&[forward(Protocol::Udp, free, 1)]).unwrap();
    }

    #[test]
    fn what_is_no_port_is_refused() {
        for (port, count) in [(65535, 2), (0, 1), (1, 2000)] {
            assert!(hold(&[forward(Protocol::Tcp, port, count)]).is_err(), "{port} {count}");
        }
    }
}

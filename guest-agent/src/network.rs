//! The interfaces of a machine that has its own: addresses and routes as stage1 says, by rtnetlink(7).

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use hull_agent_protocol::message::AgentFault;
use hull_agent_protocol::{InterfaceSpec, NetSpec, RouteSpec};
use hull_errors::Doing;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

use crate::Error;

/// Flags of linux/netlink.h: a request, to be acknowledged, that makes what is not there yet.
const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const EXCLUSIVE: u16 = 0x200;
const CREATE: u16 = 0x400;

/// `NLMSG_ERROR`, which says that all went well, too.
const NLMSG_ERROR: u16 = 2;

/// Attributes of linux/if_link.h, linux/if_addr.h and linux/rtnetlink.h.
const IFLA_MTU: u16 = 4;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;

/// Nobody is asked whether an address is another's, and no route comes with it: stage1 has named them all.
const IFA_F_NODAD: u32 = 0x02;
const IFA_F_NOPREFIXROUTE: u32 = 0x200;

/// Connects the machine.
pub(crate) fn connect(interfaces: &[InterfaceSpec]) -> Result<(), Error> {
    for interface in interfaces {
        bring_up(interface).doing(AgentFault::Machine, || format!("connect interface {}", interface.mac))?;
    }
    Ok(())
}

fn bring_up(interface: &InterfaceSpec) -> io::Result<()> {
    let (name, index) = find(&interface.mac)?;
    let mut kernel = Kernel::open()?;
    // Without IPv6 in this kernel there is nothing to be asked about.
    let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{name}/accept_dad"), "0");
    kernel.ask(&link(index, interface.mtu))?;
    for address in &interface.addresses {
        kernel.ask(&address_message(index, *address))?;
    }
    interface.routes.iter().try_for_each(|route| kernel.ask(&route_message(index, *route)))
}

/// The interface with this hardware address.
fn find(mac: &str) -> io::Result<(String, u32)> {
    for entry in fs::read_dir("/sys/class/net")? {
        let entry = entry?;
        let read = |name: &str| fs::read_to_string(entry.path().join(name)).unwrap_or_default();
        if read("address").trim() == mac {
            let index = read("ifindex").trim().parse().map_err(io::Error::other)?;
            return Ok((entry.file_name().to_string_lossy().into_owned(), index));
        }
    }
    Err(io::Error::new(io::ErrorKind::NotFound, "the machine has no such interface"))
}

/// The kernel's end of a socket for one request after the other.
struct Kernel(OwnedFd);

impl Kernel {
    fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        Ok(Self(socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?))
    }

    fn ask(&mut self, request: &Message) -> io::Result<()> {
        sendto(self.0.as_raw_fd(), &request.bytes(), &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        let mut answer = [0; 256];
        let count = recv(self.0.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        verdict(&answer[..count])
    }
}

/// What an answer says: length, type, flags, number and sender, then the error as a negative number.
fn verdict(answer: &[u8]) -> io::Result<()> {
    let kind = answer.get(4..6).and_then(|bytes| Some(u16::from_ne_bytes(bytes.try_into().ok()?)));
    let error = answer.get(16..20).and_then(|bytes| Some(i32::from_ne_bytes(bytes.try_into().ok()?)));
    match (kind, error) {
        (Some(NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(NLMSG_ERROR), Some(error)) => Err(io::Error::from_raw_os_error(error.saturating_neg())),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "an answer of another kind")),
    }
}

/// A request in the making.
struct Message {
    kind: u16,
    flags: u16,
    body: Vec<u8>,
}

impl Message {
    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(4 + value.len()).expect("values here are numbers and addresses");
        self.body.extend(length.to_ne_bytes());
        self.body.extend(kind.to_ne_bytes());
        self.body.extend(value);
        self.body.resize(self.body.len().next_multiple_of(4), 0);
    }

    fn bytes(&self) -> Vec<u8> {
        let length = u32::try_from(16 + self.body.len()).expect("a request has a few attributes");
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(self.kind.to_ne_bytes());
        bytes.extend((REQUEST | ACKNOWLEDGE | self.flags).to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(&self.body);
        bytes
    }
}

/// `struct ifinfomsg`: family and type any, then the index, the flags and which of them are meant.
fn link(index: u32, mtu: Option<u32>) -> Message {
    let up = (libc::IFF_UP as u32).to_ne_bytes();
    let body = [&[0; 4][..], &index.to_ne_bytes(), &up, &up].concat();
    let mut message = Message { kind: libc::RTM_NEWLINK, flags: 0, body };
    if let Some(mtu) = mtu {
        message.attribute(IFLA_MTU, &mtu.to_ne_bytes());
    }
    message
}

/// `struct ifaddrmsg`: family, length of the prefix, flags, scope, index.
fn address_message(index: u32, net: NetSpec) -> Message {
    let (family, octets) = parts(net.address);
    let body = [&[family, net.prefix, 0, 0][..], &index.to_ne_bytes()].concat();
    let mut message = Message { kind: libc::RTM_NEWADDR, flags: CREATE | EXCLUSIVE, body };
    message.attribute(IFA_LOCAL, &octets);
    message.attribute(IFA_ADDRESS, &octets);
    message.attribute(IFA_FLAGS, &(IFA_F_NODAD | IFA_F_NOPREFIXROUTE).to_ne_bytes());
    message
}

/// `struct rtmsg`: family, lengths of destination and source, type of service, table, who made it, scope, type,
/// flags.
fn route_message(index: u32, route: RouteSpec) -> Message {
    let (family, destination) = parts(route.destination.address);
    let scope = match route.gateway {
        None if route.destination.address.is_ipv4() => libc::RT_SCOPE_LINK,
        _ => libc::RT_SCOPE_UNIVERSE,
    };
    let (table, maker, kind) = (libc::RT_TABLE_MAIN, libc::RTPROT_STATIC, libc::RTN_UNICAST);
    let body = vec![family, route.destination.prefix, 0, 0, table, maker, scope, kind, 0, 0, 0, 0];
    let mut message = Message { kind: libc::RTM_NEWROUTE, flags: CREATE | EXCLUSIVE, body };
    message.attribute(RTA_DST, &destination);
    message.attribute(RTA_OIF, &index.to_ne_bytes());
    if let Some(gateway) = route.gateway {
        message.attribute(RTA_GATEWAY, &parts(gateway).1);
    }
    message
}

fn parts(address: IpAddr) -> (u8, Vec<u8>) {
    match address {
        IpAddr::V4(ip) => (libc::AF_INET as u8, ip.octets().to_vec()),
        IpAddr::V6(ip) => (libc::AF_INET6 as u8, ip.octets().to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_as_the_kernel_reads_them() {
        let net = NetSpec { address: "172.16.28.2".parse().unwrap(), prefix: 24 };
        let bytes = address_message(7, net).bytes();
        assert_eq!(bytes.len(), 16 + 8 + 3 * 8);
        assert_eq!(bytes[..4], 48u32.to_ne_bytes());
        assert_eq!(bytes[16..24], [2, 24, 0, 0, 7, 0, 0, 0]);
        assert_eq!(bytes[24..32], [8, 0, 2, 0, 172, 16, 28, 2]);
        let route =
            RouteSpec { destination: NetSpec { address: "::".parse().unwrap(), prefix: 0 }, gateway: None };
        assert_eq!(route_message(1, route).bytes().len(), 16 + 12 + 20 + 8);
    }

    #[test]
    fn answers_are_checked() {
        let answer = |kind: u16, error: i32| {
            [&[0; 4][..], &kind.to_ne_bytes(), &[0; 10], &error.to_ne_bytes()].concat()
        };
        assert!(verdict(&answer(NLMSG_ERROR, 0)).is_ok());
        assert_eq!(verdict(&answer(NLMSG_ERROR, -17)).unwrap_err().raw_os_error(), Some(17));
        for wrong in [answer(3, 0), vec![], vec![0; 17]] {
            assert!(verdict(&wrong).is_err());
        }
    }
}

//! One request at a time to the kernel's routing socket (rtnetlink(7)), each with its answer.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;

use hull_errors::Doing;
use ipnet::IpNet;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::tc::TcMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use crate::namespace::Namespace;
use crate::record::Route;
use crate::{Error, Kind};

/// Longest answer in one datagram, in bytes: the kernel's own limit for dumps is 32 KiB.
const ANSWER_MAX: usize = 64 << 10;

/// A socket of the namespace that it was opened in.
#[derive(Debug)]
pub(crate) struct Netlink(Socket);

/// An interface as the kernel shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) mac: Vec<u8>,
    pub(crate) mtu: u32,
}

impl Netlink {
    pub(crate) fn open() -> Result<Self, Error> {
        let open = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            Ok(socket)
        };
        open().doing(Kind::Host, || "open the kernel's routing socket".into()).map(Self)
    }

    /// Makes a pair of interfaces, one here and one in `peers`. Both are down.
    pub(crate) fn add_pair(&mut self, name: &str, peer: &str, peers: &Namespace) -> Result<(), Error> {
        let mut other = LinkMessage::default();
        other.attributes =
            vec![LinkAttribute::IfName(peer.into()), LinkAttribute::NetNsFd(peers.file().as_raw_fd())];
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(name.into()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(other))),
            ]),
        ];
        self.create(RouteNetlinkMessage::NewLink(message))
            .doing(Kind::Host, || format!("make interfaces {name} and {peer}"))
    }

    /// Looks for an interface.
    pub(crate) fn find_link(&mut self, name: &str) -> Result<Option<Link>, Error> {
        let mut message = LinkMessage::default();
        message.attributes = vec![LinkAttribute::IfName(name.into())];
        let answers = match self.ask(RouteNetlinkMessage::GetLink(message), NLM_F_ACK) {
            Err(why) if is_missing(&why) => return Ok(None),
            other => other.doing(Kind::Host, || format!("look for interface {name}"))?,
        };
        Ok(answers.into_iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(link) => Some(Link {
                index: link.header.index,
                mac: link.attributes.iter().find_map(mac).unwrap_or_default(),
                mtu: link.attributes.iter().find_map(mtu).unwrap_or_default(),
            }),
            _ => None,
        }))
    }

    /// The interface of this name, which must be there.
    pub(crate) fn link(&mut self, name: &str) -> Result<Link, Error> {
        self.find_link(name)?
            .ok_or_else(|| Error::new(Kind::Host, format!("find interface {name}: there is none")))
    }

    pub(crate) fn bring_up(&mut self, index: u32) -> Result<(), Error> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.change(RouteNetlinkMessage::SetLink(message))
            .doing(Kind::Host, || format!("bring up interface {index}"))
    }

    /// Removes an interface, if there is one of this name.
    pub(crate) fn remove_link(&mut self, name: &str) -> Result<(), Error> {
        let mut message = LinkMessage::default();
        message.attributes = vec![LinkAttribute::IfName(name.into())];
        match self.change(RouteNetlinkMessage::DelLink(message)) {
            Err(why) if is_missing(&why) => Ok(()),
            other => other.doing(Kind::Host, || format!("remove interface {name}")),
        }
    }

    pub(crate) fn set_mtu(&mut self, index: u32, mtu: u32) -> Result<(), Error> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes = vec![LinkAttribute::Mtu(mtu)];
        self.change(RouteNetlinkMessage::SetLink(message))
            .doing(Kind::Host, || format!("set the largest packet of interface {index} to {mtu} bytes"))
    }

    pub(crate) fn add_queue(&mut self, queue: TcMessage) -> Result<(), Error> {
        self.create(RouteNetlinkMessage::NewQueueDiscipline(queue))
            .doing(Kind::Host, || "add a queue to an interface (CONFIG_NET_SCH_INGRESS)".into())
    }

    pub(crate) fn add_filter(&mut self, filter: TcMessage) -> Result<(), Error> {
        self.create(RouteNetlinkMessage::NewTrafficFilter(filter)).doing(Kind::Host, || {
            "add a filter to an interface (CONFIG_NET_CLS_U32, CONFIG_NET_ACT_MIRRED)".into()
        })
    }

    pub(crate) fn remove_address(&mut self, index: u32, address: IpNet) -> Result<(), Error> {
        let mut message = AddressMessage::default();
        message.header.family = family(address.addr());
        message.header.prefix_len = address.prefix_len();
        message.header.index = index;
        message.attributes = vec![AddressAttribute::Local(address.addr())];
        self.change(RouteNetlinkMessage::DelAddress(message))
            .doing(Kind::Host, || format!("take address {address} from interface {index}"))
    }

    /// Adds an address that nobody else is asked about, and no route with it.
    pub(crate) fn add_address(&mut self, index: u32, address: IpNet) -> Result<(), Error> {
        let mut message = AddressMessage::default();
        message.header.family = family(address.addr());
        message.header.prefix_len = address.prefix_len();
        message.header.index = index;
        message.attributes = vec![
            AddressAttribute::Local(address.addr()),
            AddressAttribute::Address(address.addr()),
            AddressAttribute::Flags(AddressFlags::Nodad | AddressFlags::Noprefixroute),
        ];
        self.create(RouteNetlinkMessage::NewAddress(message))
            .doing(Kind::Host, || format!("give interface {index} address {address}"))
    }

    pub(crate) fn add_route(&mut self, index: u32, route: &Route) -> Result<(), Error> {
        let destination = route.destination.trunc();
        let mut message = RouteMessage::default();
        message.header.address_family = family(destination.addr());
        message.header.destination_prefix_length = destination.prefix_len();
        message.header.table = netlink_packet_route::route::RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Static;
        message.header.kind = RouteType::Unicast;
        let on_link = route.gateway.is_none() && destination.addr().is_ipv4();
        message.header.scope = if on_link { RouteScope::Link } else { RouteScope::Universe };
        message.attributes =
            vec![RouteAttribute::Destination(route_address(destination.addr())), RouteAttribute::Oif(index)];
        message.attributes.extend(route.gateway.map(|ip| RouteAttribute::Gateway(route_address(ip))));
        self.create(RouteNetlinkMessage::NewRoute(message))
            .doing(Kind::Host, || format!("add the route to {destination}"))
    }

    /// Where the host's routes of one family lead to; default routes are not among them.
    pub(crate) fn destinations(&mut self, ipv6: bool) -> Result<Vec<IpNet>, Error> {
        let mut message = RouteMessage::default();
        message.header.address_family = if ipv6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
        let answers = self
            .ask(RouteNetlinkMessage::GetRoute(message), NLM_F_DUMP)
            .doing(Kind::Host, || "list the host's routes".into())?;
        Ok(answers.into_iter().filter_map(destination).collect())
    }

    /// The addresses of an interface, but for those that it has by itself.
    pub(crate) fn addresses(&mut self, index: u32) -> Result<Vec<IpNet>, Error> {
        let answers = self
            .ask(RouteNetlinkMessage::GetAddress(AddressMessage::default()), NLM_F_DUMP)
            .doing(Kind::Host, || format!("list the addresses of interface {index}"))?;
        let address = |answer: RouteNetlinkMessage| {
            let RouteNetlinkMessage::NewAddress(message) = answer else { return None };
            let find = |local: bool| {
                message.attributes.iter().find_map(|attribute| match attribute {
                    AddressAttribute::Local(ip) if local => Some(*ip),
                    AddressAttribute::Address(ip) if !local => Some(*ip),
                    _ => None,
                })
            };
            let ip = find(true).or_else(|| find(false)).filter(|_| message.header.index == index)?;
            IpNet::new(ip, message.header.prefix_len).ok().filter(|net| !is_own(net))
        };
        Ok(answers.into_iter().filter_map(address).collect())
    }

    /// The routes by an interface, those that others need first.
    pub(crate) fn routes(&mut self, index: u32) -> Result<Vec<Route>, Error> {
        let mut routes = vec![];
        for (family, all) in [(AddressFamily::Inet, "0.0.0.0/0"), (AddressFamily::Inet6, "::/0")] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            let answers = self
                .ask(RouteNetlinkMessage::GetRoute(message), NLM_F_DUMP)
                .doing(Kind::Host, || format!("list the routes of interface {index}"))?;
            let all: IpNet = all.parse().expect("it is all there is");
            routes.extend(answers.into_iter().filter_map(|answer| route(answer, index, all)));
        }
        routes.retain(|route| !is_own(&route.destination));
        routes.sort_by_key(|route| {
            (route.gateway.is_some(), std::cmp::Reverse(route.destination.prefix_len()))
        });
        Ok(routes)
    }

    fn create(&mut self, message: RouteNetlinkMessage) -> io::Result<()> {
        self.ask(message, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL).map(drop)
    }

    fn change(&mut self, message: RouteNetlinkMessage) -> io::Result<()> {
        self.ask(message, NLM_F_ACK).map(drop)
    }

    /// Sends a request and reads up to the end of the answer.
    pub(crate) fn ask(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | flags;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.0.send(&bytes, 0)?;
        let mut answers = vec![];
        loop {
            let mut datagram = Vec::with_capacity(ANSWER_MAX);
            self.0.recv(&mut datagram, 0)?;
            let mut rest = datagram.as_slice();
            while !rest.is_empty() {
                let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest);
                let answer = answer.map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))?;
                // Messages begin at multiples of four bytes: netlink(7).
                let length = (answer.header.length as usize).next_multiple_of(4);
                rest = rest.get(length.max(16)..).unwrap_or_default();
                match answer.payload {
                    NetlinkPayload::Done(_) => return Ok(answers),
                    NetlinkPayload::Error(error) => match error.code {
                        None => return Ok(answers),
                        Some(_) => return Err(error.to_io()),
                    },
                    NetlinkPayload::InnerMessage(inner) => answers.push(inner),
                    _ => (),
                }
            }
        }
    }
}

/// How the kernel says that there is no such interface.
fn is_missing(why: &io::Error) -> bool {
    why.raw_os_error() == Some(nix::errno::Errno::ENODEV as i32)
}

fn mac(attribute: &LinkAttribute) -> Option<Vec<u8>> {
    match attribute {
        LinkAttribute::Address(mac) => Some(mac.clone()),
        _ => None,
    }
}

fn mtu(attribute: &LinkAttribute) -> Option<u32> {
    match attribute {
        LinkAttribute::Mtu(mtu) => Some(*mtu),
        _ => None,
    }
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn route_address(address: IpAddr) -> RouteAddress {
    match address {
        IpAddr::V4(ip) => RouteAddress::Inet(ip),
        IpAddr::V6(ip) => RouteAddress::Inet6(ip),
    }
}

/// What every interface of IPv6 has without being told: link-local addresses, and multicast.
fn is_own(net: &IpNet) -> bool {
    match net.addr() {
        IpAddr::V4(_) => false,
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.is_multicast(),
    }
}

fn route(answer: RouteNetlinkMessage, index: u32, all: IpNet) -> Option<Route> {
    let RouteNetlinkMessage::NewRoute(route) = answer else { return None };
    let by = |attribute: &RouteAttribute| matches!(attribute, RouteAttribute::Oif(oif) if *oif == index);
    let main = route.header.table == netlink_packet_route::route::RouteHeader::RT_TABLE_MAIN;
    if !main || route.header.kind != RouteType::Unicast || !route.attributes.iter().any(by) {
        return None;
    }
    let gateway = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
        RouteAttribute::Gateway(RouteAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
        _ => None,
    });
    let destination = destination(RouteNetlinkMessage::NewRoute(route)).unwrap_or(all);
    Some(Route { destination, gateway })
}

fn destination(answer: RouteNetlinkMessage) -> Option<IpNet> {
    let RouteNetlinkMessage::NewRoute(route) = answer else { return None };
    let address = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
        RouteAttribute::Destination(RouteAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
        _ => None,
    })?;
    IpNet::new(address, route.header.destination_prefix_length).ok()
}

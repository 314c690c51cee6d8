//! A VM's interface in place of the pod's: what comes in by one leaves by the other, and the namespace's own kernel
//! has no part in it. So a VM is in any network that a namespace can be in.

use std::fs;

use netlink_packet_route::tc::{
    TcAction, TcActionAttribute, TcActionMirrorOption, TcActionOption, TcActionType, TcAttribute,
    TcFilterU32Option, TcHandle, TcMessage, TcMirror, TcMirrorActionType, TcOption, TcU32Key, TcU32Selector,
    TcU32SelectorFlags,
};

use crate::Error;
use crate::netlink::{Link, Netlink};
use crate::record::Attached;

/// `ETH_P_ALL` of linux/if_ether.h as the network has it, behind the filter's priority.
const ANY_PROTOCOL: u32 = (1 << 16) | (0x0003u16.to_be() as u32);

/// Splices the pod's interface and the tap, both in this thread's namespace.
pub(crate) fn splice(attached: &Attached, tap: &str) -> Result<(), Error> {
    let mut netlink = Netlink::open()?;
    let (inside, tap_link) = (netlink.link(&attached.if_name)?, netlink.link(tap)?);
    for name in [attached.if_name.as_str(), tap] {
        // A namespace that has no IPv6 has nothing to say either.
        let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1");
    }
    for address in attached.addresses.iter().filter(|address| address.addr().is_ipv4()) {
        netlink.remove_address(inside.index, *address)?;
    }
    netlink.set_mtu(tap_link.index, inside.mtu)?;
    netlink.bring_up(tap_link.index)?;
    redirect(&mut netlink, &inside, &tap_link)?;
    redirect(&mut netlink, &tap_link, &inside)
}

fn redirect(netlink: &mut Netlink, from: &Link, to: &Link) -> Result<(), Error> {
    let mut queue = TcMessage::default();
    queue.header.index = from.index.cast_signed();
    queue.header.parent = TcHandle::INGRESS;
    queue.header.handle = TcHandle { major: 0xffff, minor: 0 };
    queue.attributes = vec![TcAttribute::Kind("ingress".into())];
    netlink.add_queue(queue)?;
    // One key that any packet has: all kernels with traffic control know u32, and not all know matchall.
    let mut all = TcU32Selector::default();
    all.flags = TcU32SelectorFlags::Terminal;
    all.nkeys = 1;
    all.keys = vec![TcU32Key::default()];
    let mut parameters = TcMirror::default();
    parameters.generic.action = TcActionType::Stolen;
    parameters.eaction = TcMirrorActionType::EgressRedir;
    parameters.ifindex = to.index;
    let mut action = TcAction::default();
    // Actions are counted from one.
    action.tab = 1;
    action.attributes = vec![
        TcActionAttribute::Kind("mirred".into()),
        TcActionAttribute::Options(vec![TcActionOption::Mirror(TcActionMirrorOption::Parms(parameters))]),
    ];
    let mut filter = TcMessage::default();
    filter.header.index = from.index.cast_signed();
    filter.header.parent = TcHandle { major: 0xffff, minor: 0 };
    filter.header.info = ANY_PROTOCOL;
    filter.attributes = vec![
        TcAttribute::Kind("u32".into()),
        TcAttribute::Options(vec![
            TcOption::U32(TcFilterU32Option::Selector(all)),
            TcOption::U32(TcFilterU32Option::Action(vec![action])),
        ]),
    ];
    netlink.add_filter(filter)
}

//! The network interfaces of the machine: a tap for each network of the pod, spliced with what the network gave.

use hull_errors::Doing;
use hull_network::{Attached, Connected};
use hull_stage1::{Kind, Networks};
use hull_vmm::{Net, open_tap};

use crate::Error;

/// One for each network, in their order.
pub(crate) fn interfaces(networks: &Networks) -> Result<Vec<Net>, Error> {
    let Some(connected) = networks.connected() else { return Ok(vec![]) };
    let all = connected.networks().iter().enumerate();
    all.map(|(index, attached)| interface(connected, index, attached)).collect()
}

fn interface(connected: &Connected, index: usize, attached: &Attached) -> Result<Net, Error> {
    let doing = || format!("connect the virtual machine to network {}", attached.net_name);
    let name = format!("tap{index}");
    let tap = connected.namespace().inside(|| open_tap(&name)).doing(Kind::Host, doing)?;
    let tap = tap.doing(Kind::Host, doing)?;
    connected.join_tap(index, &name).doing(Kind::Host, doing)?;
    let mac = attached.mac_octets();
    let mac =
        mac.ok_or_else(|| Error::new(Kind::Host, format!("{}: its interface has no Ethernet", doing())))?;
    Ok(Net { tap, mac, mtu: attached.mtu.and_then(|mtu| u16::try_from(mtu).ok()) })
}

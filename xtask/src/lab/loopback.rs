//! Brings the loopback interface up, by one rtnetlink(7) request.
use std::io;
use std::os::fd::AsRawFd;

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

/// A link change (16) of 32 bytes that wants an answer (flags 1 and 4), sequence 1, for interface
/// 1, the loopback of every namespace: set IFF_UP (1), touch nothing else. Linux
/// include/uapi/linux/netlink.h `nlmsghdr` and rtnetlink.h `ifinfomsg`.
const REQUEST: [u32; 8] = [32, 16 | (1 | 4) << 16, 1, 0, 0, 1, 1, 1];

/// Where an answer has its error number, `nlmsgerr`.
const ERROR: std::ops::Range<usize> = 16..20;

pub(crate) fn up() -> io::Result<()> {
    let netlink = SockProtocol::NetlinkRoute;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, netlink)?;
    let request: Vec<u8> = REQUEST.iter().flat_map(|word| word.to_ne_bytes()).collect();
    send(socket.as_raw_fd(), &request, MsgFlags::empty())?;
    let mut answer = [0; 256];
    let count = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    let error = answer[..count].get(ERROR).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    match error {
        Some(0) => Ok(()),
        Some(negative) => Err(io::Error::from_raw_os_error(-negative)),
        None => Err(io::Error::other("a short answer")),
    }
}

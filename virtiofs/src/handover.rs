//! The socket for the VMM, and how the supervisor gets it: `+` with a descriptor, or a text that says why not.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, send, sendmsg};

/// Longest text, in bytes.
const TEXT_MAX: usize = 4000;

/// A socket that one connection waits at, and the other end of that. Call it in a network namespace of its own, where
/// nobody else can connect: the crate `vhost-user-backend` takes no connection that is made already.
pub(crate) fn pair() -> io::Result<(UnixListener, UnixStream)> {
    let address = SocketAddr::from_abstract_name(b"vmm")?;
    let listener = UnixListener::bind_addr(&address)?;
    let theirs = UnixStream::connect_addr(&address)?;
    Ok((listener, theirs))
}

pub(crate) fn give(supervisor: &OwnedFd, socket: &UnixStream) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fds = [socket.as_fd()];
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&fds)), "there is space for one");
    sendmsg(supervisor, &[IoSlice::new(b"+")], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Nobody may be there any more to hear it.
pub(crate) fn refuse(supervisor: &OwnedFd, why: &str) {
    let text = format!("-{}", &why[..why.floor_char_boundary(TEXT_MAX)]);
    let _ = send(supervisor, text.as_bytes(), SendFlags::NOSIGNAL);
}

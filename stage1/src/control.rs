//! The pod's ear: the socket on which `hull stop`, `hull exec` and others speak to a running pod.
//!
//! Nothing here waits. A client that does not read its answers loses its connection; one that never asks
//! loses it when another needs the place.

use std::fs::File;
use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use hull_errors::Doing;
use hull_pod::control::{self, Answer, MESSAGE_MAX, Request, SOCKET};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessageOwned, MsgFlags, SockFlag, SockType, accept4, bind, listen,
    recvmsg, send, socket,
};
use nix::sys::stat::{Mode, fchmod};

use crate::{Error, Kind, Pod, sys};

/// Most clients at a time.
const CLIENTS_MAX: usize = 96;

/// Descriptors that come with a request.
const DESCRIPTORS_MAX: usize = 4;

/// Names a client for as long as this process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClientId(u64);

/// The socket and those who called.
#[derive(Debug)]
pub(crate) struct Control {
    listener: OwnedFd,
    clients: Vec<Client>,
    next: u64,
}

#[derive(Debug)]
struct Client {
    id: ClientId,
    socket: OwnedFd,
    /// Stays, however many others call.
    served: bool,
}

/// What was heard.
#[derive(Debug)]
pub(crate) enum Heard {
    Request(Request, Vec<OwnedFd>),
    /// It went away, or what it said was no request.
    Gone,
    Nothing,
}

impl Control {
    /// Listens in the pod directory.
    pub(crate) fn listen(pod: &Pod) -> Result<Self, Error> {
        let doing = || format!("listen on {}/{SOCKET}", pod.path.display());
        let folder = File::open(&pod.path).doing(Kind::Host, doing)?;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let listener =
            socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).doing(Kind::Host, doing)?;
        // Before it has a name, so that nobody else can call in between: Linux gives the file these bits.
        fchmod(&listener, Mode::S_IRUSR | Mode::S_IWUSR).doing(Kind::Host, doing)?;
        let address = control::address(folder.as_fd()).doing(Kind::Host, doing)?;
        bind(listener.as_raw_fd(), &address).doing(Kind::Host, doing)?;
        listen(&listener, Backlog::MAXCONN).doing(Kind::Host, doing)?;
        Ok(Self { listener, clients: vec![], next: 0 })
    }

    /// The listener first, then the clients in their order.
    pub(crate) fn polled(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::once(self.listener.as_fd()).chain(self.clients.iter().map(|client| client.socket.as_fd()))
    }

    /// Who is at a place of [`Self::polled`]; nobody at the listener's.
    pub(crate) fn client_at(&self, place: usize) -> Option<ClientId> {
        Some(self.clients.get(place.checked_sub(1)?)?.id)
    }

    /// Lets in whoever waits.
    pub(crate) fn accept(&mut self) {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        while let Ok(number) = accept4(self.listener.as_raw_fd(), flags) {
            let Ok(socket) = sys::adopt_new(number) else { return };
            if self.clients.len() >= CLIENTS_MAX {
                match self.clients.iter().position(|client| !client.served) {
                    Some(idle) => drop(self.clients.remove(idle)),
                    None => continue,
                }
            }
            self.next += 1;
            self.clients.push(Client { id: ClientId(self.next), socket, served: false });
        }
    }

    /// The next request of a client.
    pub(crate) fn hear(&mut self, id: ClientId) -> Heard {
        let Some(client) = self.clients.iter().find(|client| client.id == id) else { return Heard::Nothing };
        let heard = receive(&client.socket);
        if matches!(heard, Heard::Gone) {
            self.clients.retain(|client| client.id != id);
        }
        heard
    }

    /// Keeps a client's place for it, until [`Self::answer_last`].
    pub(crate) fn keep(&mut self, id: ClientId) {
        self.clients.iter_mut().filter(|client| client.id == id).for_each(|client| client.served = true);
    }

    /// Answers, if the client is still there.
    pub(crate) fn answer(&mut self, id: ClientId, answer: &Answer) {
        let text = serde_json::to_vec(answer).expect("an answer is plain data");
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        // Who does not listen is not told again.
        self.clients.retain(|client| {
            client.id != id || send(client.socket.as_raw_fd(), &text, flags) == Ok(text.len())
        });
    }

    /// Answers; the client's place may be had by others.
    pub(crate) fn answer_last(&mut self, id: ClientId, answer: &Answer) {
        self.clients.iter_mut().filter(|client| client.id == id).for_each(|client| client.served = false);
        self.answer(id, answer);
    }
}

fn receive(socket: &OwnedFd) -> Heard {
    let mut buffer = vec![0; MESSAGE_MAX];
    let mut pieces = [IoSliceMut::new(&mut buffer)];
    let mut space = nix::cmsg_space!([std::os::fd::RawFd; DESCRIPTORS_MAX]);
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let (len, descriptors, whole) =
        match recvmsg::<()>(socket.as_raw_fd(), &mut pieces, Some(&mut space), flags) {
            Err(Errno::EAGAIN | Errno::EINTR) => return Heard::Nothing,
            Err(_) => return Heard::Gone,
            Ok(message) => {
                let rights = message.cmsgs().into_iter().flatten().filter_map(|control| match control {
                    ControlMessageOwned::ScmRights(numbers) => Some(numbers),
                    _ => None,
                });
                let descriptors: Vec<OwnedFd> =
                    rights.flatten().filter_map(|number| sys::adopt_new(number).ok()).collect();
                let whole = !message.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC);
                (message.bytes, descriptors, whole)
            }
        };
    match serde_json::from_slice(&buffer[..len]) {
        Ok(request) if whole => Heard::Request(request, descriptors),
        _ => Heard::Gone,
    }
}

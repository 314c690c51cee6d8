//! The processes that serve the host's files to the guest: children of the supervisor, one for each volume, so that
//! whoever takes one over has that volume and no other.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hull_errors::Doing;
use hull_pod::Flavour;
use hull_stage1::Kind;
use hull_stage1::volumes::{HostVolume, Shape};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType, recvmsg,
    socketpair,
};

use crate::Error;

/// The program, beside this one.
const PROGRAM: &str = "hull-virtiofs";

/// How long a server may take until it is in its jail: some milliseconds, but for a host that is short of everything.
const PATIENCE: Duration = Duration::from_secs(30);

/// Longest text of a server's, in bytes.
const TEXT_MAX: usize = 4096;

/// A server that was started. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Server {
    /// Its name and where it comes from.
    volume: String,
    child: Child,
    control: OwnedFd,
}

impl Server {
    /// Starts the server of a directory or a file; it is told no path.
    pub(crate) fn start(name: &str, volume: &HostVolume<'_>, debug: bool) -> Result<Self, Error> {
        let doing = || format!("start the file server of volume {name}");
        let shape = if volume.shape() == Shape::Directory { "directory" } else { "file" };
        let tree = OwnedFd::from(volume.tree(Flavour::Kvm)?);
        let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
        let (control, theirs) = pair.doing(Kind::Host, doing)?;
        set_socket_timeout(&control, Timeout::Recv, Some(PATIENCE)).doing(Kind::Host, doing)?;
        let mut command = Command::new(program().doing(Kind::Host, doing)?);
        command.arg(shape).env_clear().stdin(theirs).stdout(tree);
        command.stderr(if debug { Stdio::inherit() } else { Stdio::null() });
        let child = command.spawn().doing(Kind::Host, || format!("{}: {PROGRAM}", doing()))?;
        Ok(Self { volume: format!("{name} from {}", volume.path()), child, control })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it is in its jail, and takes the socket for the VMM.
    pub(crate) fn socket(&self) -> Result<UnixStream, Error> {
        let doing = || format!("hear from the file server of volume {}", self.volume);
        match hear(&self.control).doing(Kind::Host, doing)? {
            Ok(socket) => Ok(socket.into()),
            Err(text) => Err(Error::new(Kind::Host, format!("volume {}: {text}", self.volume))),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill(); // It ends with the VMM, and may have done so already.
        let _ = self.child.wait();
    }
}

fn program() -> io::Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name(PROGRAM))
}

/// The descriptor, or why there is none.
fn hear(control: &OwnedFd) -> io::Result<Result<OwnedFd, String>> {
    let mut text = vec![0; TEXT_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut buffers = [IoSliceMut::new(&mut text)];
    let len = recvmsg(control, &mut buffers, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?.bytes;
    let fds = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    match (text[..len].split_first(), fds.flatten().next()) {
        (Some((b'+', _)), Some(socket)) => Ok(Ok(socket)),
        (Some((b'-', why)), _) => Ok(Err(String::from_utf8_lossy(why).into_owned())),
        _ => Err(io::Error::other("it ended without a word; --debug shows what it was doing")),
    }
}

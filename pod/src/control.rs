//! What is asked of a running pod, and what it answers.
//!
//! The stage1 of a running pod listens on the socket [`SOCKET`] in the pod directory, of the type
//! `SOCK_SEQPACKET` (unix(7)), for its owner only. A message is one JSON value of at most [`MESSAGE_MAX`]
//! bytes. With [`Request::Exec`] come descriptors (`SCM_RIGHTS`): standard input, output and error of the
//! process, and with `terminal` the terminal whose size counts.

use std::fs::File;
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

use hull_agent_protocol::Outcome;
use hull_errors::Doing;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, sendmsg, socket,
};
use serde::{Deserialize, Serialize};

use crate::{AppName, Error, Kind};

/// The socket's name in the pod directory.
pub const SOCKET: &str = "control";

/// Longest message of either side, in bytes: a command line with long arguments.
pub const MESSAGE_MAX: usize = 128 << 10;

/// What a client says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Ends the pod: each app's stop signal now, `SIGKILL` after the grace; no grace with `force`.
    Stop { force: bool, grace_ms: u32 },
    /// Runs one more program in an app; the only app if none is named. Its end is answered too.
    Exec { app: Option<AppName>, exec: Vec<String>, terminal: bool },
    /// Writes the files of an app that runs to the second of the descriptors, which are as those of
    /// [`Request::Exec`] without a terminal; [`crate::export`] reads them. Its end is answered too.
    Export { app: Option<AppName> },
    /// What one can attach to. Answered with [`Answer::Endpoints`].
    Endpoints { app: Option<AppName> },
    /// Connects the client to the streams of an app, `terminal` for those of its terminal. The descriptors are as
    /// those of [`Request::Exec`]; only those that are named here are used. The app's end is answered.
    Attach { app: Option<AppName>, stdin: bool, stdout: bool, stderr: bool, terminal: bool },
    /// Answered with [`Answer::Started`] once every app runs.
    AwaitStart,
    /// To the process of this client.
    Signal { signal: i32 },
    /// The client's terminal has changed its size.
    Resize,
}

/// What stage1 says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Answer {
    /// It is being done.
    Done,
    /// It cannot be done, and why. The client may ask for something else.
    Refused { text: String },
    /// By rkt's names: `stdin`, `stdout`, `stderr`, or `tty-in`, `tty-out`.
    Endpoints { names: Vec<String> },
    /// The program runs, or the client is attached; or every app runs, for who awaits that.
    Started,
    /// The program has ended, and its output was written.
    Exited { outcome: Outcome },
}

/// A conversation with a running pod.
#[derive(Debug)]
pub struct Client(OwnedFd);

impl Client {
    /// Calls the stage1 of the pod in `dir`.
    ///
    /// # Errors
    /// [`Kind::Missing`]: nobody listens there, not yet or not any more.
    pub fn call(dir: &Path) -> Result<Self, Error> {
        let doing = || format!("call the pod in {}", dir.display());
        let folder = File::open(dir).map_err(|why| Error::because(Kind::Missing, doing(), why))?;
        let socket = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)
            .doing(Kind::Host, doing)?;
        let address = address(folder.as_fd()).doing(Kind::Host, doing)?;
        match connect(socket.as_raw_fd(), &address) {
            Ok(()) => Ok(Self(socket)),
            Err(why @ (Errno::ENOENT | Errno::ECONNREFUSED)) => {
                Err(Error::because(Kind::Missing, doing(), why))
            }
            Err(why) => Err(Error::because(Kind::Host, doing(), why)),
        }
    }

    /// Asks for something. A stage1 that has gone hears nothing; that there is no [`Self::answer`] says so.
    ///
    /// # Errors
    /// The request is too long, or the host's.
    pub fn ask(&self, request: &Request, descriptors: &[BorrowedFd<'_>]) -> Result<(), Error> {
        let doing = || "ask the pod".to_owned();
        let text = serde_json::to_vec(request).doing(Kind::Host, doing)?;
        if text.len() > MESSAGE_MAX {
            let why = format!("the request is {} bytes long, at most {MESSAGE_MAX} are possible", text.len());
            return Err(Error::new(Kind::BadName, why));
        }
        let numbers: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&numbers)];
        let rights = if numbers.is_empty() { &[][..] } else { &rights[..] };
        let flags = MsgFlags::MSG_NOSIGNAL;
        match sendmsg::<()>(self.0.as_raw_fd(), &[IoSlice::new(&text)], rights, flags, None) {
            Ok(_) | Err(Errno::EPIPE | Errno::ECONNRESET) => Ok(()),
            Err(why) => Err(Error::because(Kind::Host, doing(), why)),
        }
    }

    /// Waits for the next answer; `None` once stage1 has gone.
    ///
    /// # Errors
    /// An answer that this version does not know.
    pub fn answer(&self) -> Result<Option<Answer>, Error> {
        let mut buffer = vec![0; MESSAGE_MAX];
        let len = loop {
            match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(len) => break len,
                Err(Errno::EINTR) => (),
                Err(Errno::ECONNRESET) => break 0,
                Err(why) => return Err(Error::because(Kind::Host, "hear the pod's answer", why)),
            }
        };
        if len == 0 {
            return Ok(None);
        }
        serde_json::from_slice(&buffer[..len]).doing(Kind::BadFile, || "understand the pod's answer".into())
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The address of the socket in an open pod directory. Its own path may be longer than an address can be
/// (108 bytes, unix(7)).
///
/// # Errors
/// None but of a number too long to print.
pub fn address(folder: BorrowedFd<'_>) -> nix::Result<UnixAddr> {
    UnixAddr::new(format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd()).as_str())
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::{Backlog, bind, listen};

    use super::*;

    #[test]
    fn a_pod_that_ends_while_it_is_asked_gives_no_answer() {
        let dir = tempfile::tempdir().unwrap();
        let folder = File::open(dir.path()).unwrap();
        let kind = (AddressFamily::Unix, SockType::SeqPacket);
        let listener = socket(kind.0, kind.1, SockFlag::SOCK_CLOEXEC, None).unwrap();
        bind(listener.as_raw_fd(), &address(folder.as_fd()).unwrap()).unwrap();
        listen(&listener, Backlog::new(1).unwrap()).unwrap();
        let client = Client::call(dir.path()).unwrap();
        drop(listener);
        client.ask(&Request::AwaitStart, &[]).unwrap();
        assert_eq!(client.answer().unwrap(), None);
        assert_eq!(*Client::call(dir.path()).unwrap_err().kind(), Kind::Missing);
    }
}

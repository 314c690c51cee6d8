//! The process that reads archives, seen from hull: started for each job, believed in nothing.

use std::fs::File;
use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use hull_converter_protocol::{Answer, Holds, Request, channel, cut};
use hull_errors::Doing;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::{Error, Kind};

/// How hull reads archives: by starting this program, once for each.
#[derive(Clone, Debug)]
pub struct Converter {
    /// The binary `hull-converter`.
    pub program: PathBuf,
}

impl Converter {
    /// Has a job done. `doing` is for errors of the process, not of the archive.
    pub(crate) fn ask(
        &self,
        request: &Request,
        files: &[BorrowedFd<'_>],
        doing: impl Fn() -> String,
    ) -> Result<Answer, Error> {
        self.start(request, files).doing(Kind::Host, || self.cannot_start(&doing()))?.answer(doing)
    }

    /// What the jail of the process that reads archives lacks on this host, as sentences for people.
    ///
    /// # Errors
    /// [`Kind::Host`]: the process could not be started or jailed, so no image can be read.
    pub fn missing_walls(&self) -> Result<Vec<String>, Error> {
        let doing = || "ask for the jail of hull-converter".to_owned();
        match self.ask(&Request::Describe, &[], doing)? {
            Answer::Described { missing } => Ok(missing.iter().map(|text| cut(text)).collect()),
            _ => Err(self.senseless(&doing())),
        }
    }

    /// What an archive is, and whether it is compressed.
    pub(crate) fn look(&self, file: &File, name: &str) -> Result<(Holds, bool), Error> {
        let request = Request::Look { name: name.to_owned() };
        let doing = || format!("read {name}");
        match self.ask(&request, &[file.as_fd()], doing)? {
            Answer::Looked { holds, is_compressed } => Ok((holds, is_compressed)),
            _ => Err(self.senseless(&doing())),
        }
    }

    /// The manifest of an App Container Image, compressed or not.
    pub(crate) fn manifest(&self, file: &File, name: &str) -> Result<String, Error> {
        let request = Request::Manifest { name: name.to_owned() };
        let doing = || format!("read the manifest of {name}");
        match self.ask(&request, &[file.as_fd()], doing)? {
            Answer::Manifest(text) => Ok(text),
            _ => Err(self.senseless(&doing())),
        }
    }

    /// The bytes of a file from `start` up to `end`, uncompressed.
    pub(crate) fn uncompress(
        &self,
        file: &File,
        (start, end): (u64, u64),
        name: &str,
    ) -> Result<Uncompressing, Error> {
        let doing = format!("uncompress {name}");
        let (plain, output) = io::pipe().doing(Kind::Host, || doing.clone())?;
        let request = Request::Uncompress { name: name.to_owned(), start, end };
        let working = self.start(&request, &[file.as_fd(), output.as_fd()]);
        let working = working.doing(Kind::Host, || self.cannot_start(&doing))?;
        Ok(Uncompressing { plain, working: Some(working), doing })
    }

    /// An error of a process that answers something else than it was asked.
    pub(crate) fn senseless(&self, doing: &str) -> Error {
        let program = self.program.display();
        Error::new(Kind::Host, format!("{doing}: {program} gives an answer that makes no sense"))
    }

    fn start(&self, request: &Request, files: &[BorrowedFd<'_>]) -> io::Result<Working> {
        let (socket, theirs) = UnixStream::pair()?;
        let mut command = Command::new(&self.program);
        command.stdin(OwnedFd::from(theirs)).stdout(Stdio::null()).stderr(Stdio::null()).env_clear();
        let working = Working { process: Process(command.spawn()?), socket };
        // The command holds the other end too, which must be closed for its death to be noticed.
        drop(command);
        match channel::ask(&working.socket, request, files) {
            // One that hung up before it heard all has said why.
            Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(e),
            _ => Ok(working),
        }
    }

    fn cannot_start(&self, doing: &str) -> String {
        let program = self.program.display();
        format!(
            "{doing}: start {program} (a part of hull: install it there, or name its folder with --libexec)"
        )
    }
}

/// A job that is being done.
#[derive(Debug)]
struct Working {
    process: Process,
    socket: UnixStream,
}

impl Working {
    fn answer(mut self, doing: impl Fn() -> String) -> Result<Answer, Error> {
        let answer = channel::answered(&self.socket);
        let status = self.process.end();
        let status = status.doing(Kind::Host, || format!("{}: wait for hull-converter", doing()))?;
        match answer {
            Ok(Answer::Failed { kind, text }) => Err(Error::new(kind.into(), cut(&text))),
            Ok(answer) if status.success() => Ok(answer),
            Ok(_) => Err(Error::new(Kind::Host, format!("{}: hull-converter ended by {status}", doing()))),
            Err(e) => {
                let text = format!("{}: hull-converter gave no answer ({status})", doing());
                Err(Error::because(Kind::Host, text, e))
            }
        }
    }
}

/// A process that dies with its owner.
#[derive(Debug)]
struct Process(Child);

impl Process {
    /// How it ends, now that it has nothing more to say: by itself if it is quick.
    fn end(&mut self) -> io::Result<ExitStatus> {
        let patience = Timespec { tv_sec: 2, tv_nsec: 0 };
        let pid = Pid::from_child(&self.0);
        let process = pidfd_open(pid, PidfdFlags::empty())?;
        if poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&patience))? == 0 {
            self.0.kill()?;
        }
        self.0.wait()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only for one that was waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Plain bytes, as another process hands them on. Their end is reported only once that process has said
/// that there are no more.
#[derive(Debug)]
pub(crate) struct Uncompressing {
    plain: PipeReader,
    working: Option<Working>,
    doing: String,
}

impl Read for Uncompressing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.plain.read(buffer)?;
        if count > 0 || buffer.is_empty() {
            return Ok(count);
        }
        match self.working.take().map(|working| working.answer(|| self.doing.clone())) {
            None | Some(Ok(Answer::Uncompressed)) => Ok(0),
            Some(Ok(_)) => Err(io::Error::other("hull-converter gives an answer that makes no sense")),
            Some(Err(error)) => {
                let kind = match error.kind() {
                    Kind::TooLarge => io::ErrorKind::FileTooLarge,
                    _ => io::ErrorKind::InvalidData,
                };
                Err(io::Error::new(kind, error))
            }
        }
    }
}

impl From<hull_converter_protocol::Kind> for Kind {
    fn from(kind: hull_converter_protocol::Kind) -> Self {
        use hull_converter_protocol::Kind as Theirs;
        match kind {
            Theirs::NotAnImage => Kind::NotAnImage,
            Theirs::Corrupt => Kind::Corrupt,
            Theirs::TooLarge => Kind::TooLarge,
            Theirs::NoSpace => Kind::NoSpace,
            Theirs::Host => Kind::Host,
        }
    }
}

//! `hull logs`

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, PipeReader, Write, pipe, stderr, stdout};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::process::ExitCode;

use hull_errors::Doing;
use hull_pod::log::{Entry, FOLDER, Stream, file_name, older_name};
use hull_pod::{AppName, Found, State};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::call::call;
use crate::cli::pod::LogsArgs;
use crate::host::Host;
use crate::{Error, Kind};

pub(crate) fn logs(args: &LogsArgs, host: &Host) -> Result<ExitCode, Error> {
    let pods = host.pods()?;
    let found = super::find_pod(&pods, &args.pod)?;
    if found.state == State::Running {
        call(&pods, &found)?; // Who answers has begun to log.
    }
    let app = choose(&found, args.app.as_ref())?;
    let log = Log::open(&found, app)?;
    match print(args, found, log) {
        // Whoever reads has seen enough.
        Err(why) if why.kind() == ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        other => other.map(|()| ExitCode::SUCCESS).doing(Kind::Host, || "print the log".into()),
    }
}

fn choose(found: &Found, name: Option<&AppName>) -> Result<AppName, Error> {
    let manifest = found.manifest().doing(Kind::User, || format!("read the manifest of pod {}", found.id))?;
    let names: Vec<AppName> = manifest.apps.into_iter().map(|app| app.name).collect();
    let listed = || names.iter().map(AppName::as_str).collect::<Vec<_>>().join(", ");
    match name {
        Some(name) if names.contains(name) => Ok(name.clone()),
        Some(name) => Err(Error::new(Kind::User, format!("the pod has no app {name}; it has: {}", listed()))),
        None if names.len() == 1 => Ok(names[0].clone()),
        None => {
            let why = format!("pod contains multiple apps; choose one with --app: {}", listed());
            Err(Error::new(Kind::User, why))
        }
    }
}

fn print(args: &LogsArgs, found: Found, mut log: Log) -> io::Result<()> {
    let mut end = args.follow.then(|| End::of(found, &log)).transpose()?;
    let since = |entry: &Entry<'_>| args.since.is_none_or(|since| entry.time >= since);
    let mut last = VecDeque::new();
    loop {
        // Asked before the last look: what was written until the end is then there to be seen.
        let is_over = end.as_ref().is_none_or(End::has_come);
        while let Some(line) = log.line()? {
            let Some(entry) = Entry::parse(&line).filter(since) else { continue };
            match args.tail {
                None => show(&entry, args.timestamps)?,
                Some(max) => {
                    last.push_back(line);
                    let extra = last.len().saturating_sub(max);
                    last.drain(..extra);
                }
            }
        }
        for line in last.drain(..) {
            Entry::parse(&line).map_or(Ok(()), |entry| show(&entry, args.timestamps))?;
        }
        stdout().flush()?;
        if is_over {
            return Ok(());
        }
        if let Some(end) = &mut end {
            end.wait_for_more()?;
        }
    }
}

/// Each stream goes where the app sent it.
fn show(entry: &Entry<'_>, timestamps: bool) -> io::Result<()> {
    let mut text = vec![];
    if timestamps {
        write!(text, "{} ", humantime::format_rfc3339_nanos(entry.time))?;
    }
    text.extend_from_slice(entry.text);
    if entry.whole || timestamps {
        text.push(b'\n');
    }
    match entry.stream {
        Stream::Stdout => stdout().write_all(&text),
        Stream::Stderr => stderr().write_all(&text),
    }
}

/// The log of an app, read once from its first entry to its last. The pod may go on writing, and its
/// directory may be moved meanwhile.
#[derive(Debug)]
struct Log {
    folder: File,
    app: AppName,
    file: BufReader<File>,
    /// An entry that is not written whole.
    piece: Vec<u8>,
}

impl Log {
    fn open(found: &Found, app: AppName) -> Result<Self, Error> {
        let none = |why: io::Error| match (why.kind(), found.contract().is_ok_and(|it| it.interactive)) {
            (ErrorKind::NotFound, true) => {
                let why = format!("pod {} has a terminal: what it writes is not kept", found.id);
                Error::new(Kind::User, why)
            }
            (ErrorKind::NotFound, false) => {
                Error::new(Kind::User, format!("pod {} has not run: there is no log of app {app}", found.id))
            }
            _ => Error::because(Kind::Host, format!("open the log of app {app}"), why),
        };
        let folder = File::open(found.path().join(FOLDER)).map_err(none)?;
        let newest = open_in(&folder, &file_name(&app)).map_err(none)?;
        // Newest first: what is turned over in between is then the older one, and is read once.
        let older = open_in(&folder, &older_name(&app)).ok();
        let file = BufReader::new(older.unwrap_or(newest));
        Ok(Self { folder, app, file, piece: vec![] })
    }

    /// The next whole entry, without its line feed; `None` if there is none yet.
    fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            // Looked for before the last read: a file that was turned over is not written any more.
            let newer = self.newer()?;
            self.file.read_until(b'\n', &mut self.piece)?;
            if self.piece.ends_with(b"\n") {
                let mut line = std::mem::take(&mut self.piece);
                line.pop();
                return Ok(Some(line));
            }
            match newer {
                Some(newer) => {
                    self.piece.clear();
                    self.file = BufReader::new(newer);
                }
                None => return Ok(None),
            }
        }
    }

    /// The file that has taken the place of the one that is read; asked for only where that one ends.
    fn newer(&mut self) -> io::Result<Option<File>> {
        if !self.file.fill_buf()?.is_empty() {
            return Ok(None);
        }
        match open_in(&self.folder, &file_name(&self.app)) {
            Ok(file) if file.metadata()?.ino() != self.file.get_ref().metadata()?.ino() => Ok(Some(file)),
            Ok(_) => Ok(None),
            Err(why) if why.kind() == ErrorKind::NotFound => Ok(None),
            Err(why) => Err(why),
        }
    }
}

fn open_in(folder: &File, name: &str) -> io::Result<File> {
    File::open(format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()))
}

/// The end of the pod, and what is written until then.
#[derive(Debug)]
struct End {
    changes: Inotify,
    /// Hangs up when the pod has ended.
    pod: PipeReader,
}

impl End {
    fn of(found: Found, log: &Log) -> io::Result<Self> {
        let changes = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let folder = format!("/proc/self/fd/{}", log.folder.as_raw_fd());
        changes.add_watch(folder.as_str(), AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE)?;
        let (pod, writer) = pipe()?;
        // Only a thread can wait for a lock and for something else.
        std::thread::spawn(move || {
            let _ = found.wait(); // A lock that cannot be waited for is as good as the end.
            drop(writer);
        });
        Ok(Self { changes, pod })
    }

    fn has_come(&self) -> bool {
        let mut fds = [PollFd::new(self.pod.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }

    fn wait_for_more(&mut self) -> io::Result<()> {
        let mut fds = [
            PollFd::new(self.pod.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.changes.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => (),
            Err(why) => return Err(why.into()),
        }
        match self.changes.read_events() {
            Ok(_) | Err(Errno::EAGAIN | Errno::EINTR) => Ok(()),
            Err(why) => Err(why.into()),
        }
    }
}

//! Keeps what an app writes, see [`hull_pod::log`].

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::SystemTime;

use hull_agent_protocol::StandardStreams;
use hull_errors::Doing;
use hull_pod::AppName;
use hull_pod::log::{FILE_MAX, FOLDER, Stream, encode, file_name, older_name};
use hull_pod::streams::{Output as Mode, Streams};

use crate::{Error, Kind, Pod};

/// The log of an app.
#[derive(Debug)]
pub(crate) struct Log {
    folder: PathBuf,
    app: AppName,
    /// None where it is not logged.
    stdout: Option<u32>,
    stderr: Option<u32>,
    /// None once it could not be written.
    file: Option<File>,
    len: u64,
    len_max: u64,
}

impl Log {
    /// Begins the log of an app; none of one that has a terminal, which is no text to keep, or that is to have none.
    pub(crate) fn begin(
        pod: &Pod,
        app: &AppName,
        streams: StandardStreams,
        modes: Streams,
    ) -> Result<Option<Self>, Error> {
        let StandardStreams::Pipes { stdout, stderr, .. } = streams else { return Ok(None) };
        let stdout = (modes.stdout == Mode::Log).then_some(stdout);
        let stderr = (modes.stderr == Mode::Log).then_some(stderr);
        if stdout.is_none() && stderr.is_none() {
            return Ok(None);
        }
        let folder = pod.path.join(FOLDER);
        let doing = || format!("log app {app} in {}", folder.display());
        match DirBuilder::new().mode(0o700).create(&folder) {
            Err(why) if why.kind() == io::ErrorKind::AlreadyExists => (),
            other => other.doing(Kind::Host, doing)?,
        }
        let len_max = pod.contract.log_bytes.unwrap_or(FILE_MAX);
        let (app, folder) = (app.clone(), folder.clone());
        let mut log = Self { app, stdout, stderr, file: None, len: 0, len_max, folder };
        log.file = Some(
            log.open().doing(Kind::Host, || format!("log app {} in {}", log.app, log.folder.display()))?,
        );
        Ok(Some(log))
    }

    /// Adds what came on a channel, if it is one of the app's.
    pub(crate) fn add(&mut self, channel: u32, bytes: &[u8]) {
        let stream = match channel {
            _ if Some(channel) == self.stdout => Stream::Stdout,
            _ if Some(channel) == self.stderr => Stream::Stderr,
            _ => return,
        };
        if self.file.is_none() {
            return;
        }
        let mut entries = vec![];
        encode(SystemTime::now(), stream, bytes, &mut entries);
        if let Err(why) = self.write(&entries) {
            // The app goes on: whoever waits for it sees its output all the same.
            self.file = None;
            eprintln!("run: app {}: nothing more is logged: {why}", self.app);
        }
    }

    /// Entries are not cut: a file ends with one.
    fn write(&mut self, mut entries: &[u8]) -> io::Result<()> {
        while !entries.is_empty() {
            let room = usize::try_from(self.len_max.saturating_sub(self.len)).unwrap_or(usize::MAX);
            let fitting = &entries[..room.min(entries.len())];
            let end = fitting.iter().rposition(|byte| *byte == b'\n').map_or(0, |place| place + 1);
            // One that fits in no file is kept all the same.
            let first =
                || entries.iter().position(|byte| *byte == b'\n').map_or(entries.len(), |place| place + 1);
            let end = if end == 0 && self.len == 0 { first() } else { end };
            if end == 0 {
                self.turn_over()?;
                continue;
            }
            self.file.as_mut().map_or(Ok(()), |file| file.write_all(&entries[..end]))?;
            self.len += end as u64;
            entries = &entries[end..];
        }
        Ok(())
    }

    fn turn_over(&mut self) -> io::Result<()> {
        fs::rename(self.folder.join(file_name(&self.app)), self.folder.join(older_name(&self.app)))?;
        self.file = Some(self.open()?);
        self.len = 0;
        Ok(())
    }

    fn open(&self) -> io::Result<File> {
        let path = self.folder.join(file_name(&self.app));
        OpenOptions::new().create(true).append(true).mode(0o600).open(path)
    }
}

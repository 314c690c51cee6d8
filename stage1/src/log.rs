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

use crate::{Error, Kind, Pod};

/// The log of an app.
#[derive(Debug)]
pub(crate) struct Log {
    folder: PathBuf,
    app: AppName,
    stdout: u32,
    stderr: u32,
    /// None once it could not be written.
    file: Option<File>,
    len: u64,
}

impl Log {
    /// Begins the log of an app; none of one that has a terminal, which is no text to keep.
    pub(crate) fn begin(pod: &Pod, app: &AppName, streams: StandardStreams) -> Result<Option<Self>, Error> {
        let StandardStreams::Pipes { stdout, stderr, .. } = streams else { return Ok(None) };
        let folder = pod.path.join(FOLDER);
        let doing = || format!("log app {app} in {}", folder.display());
        match DirBuilder::new().mode(0o700).create(&folder) {
            Err(why) if why.kind() == io::ErrorKind::AlreadyExists => (),
            other => other.doing(Kind::Host, doing)?,
        }
        let mut log = Self { app: app.clone(), stdout, stderr, file: None, len: 0, folder: folder.clone() };
        log.file = Some(log.open().doing(Kind::Host, doing)?);
        Ok(Some(log))
    }

    /// Adds what came on a channel, if it is one of the app's.
    pub(crate) fn add(&mut self, channel: u32, bytes: &[u8]) {
        let stream = match channel {
            _ if channel == self.stdout => Stream::Stdout,
            _ if channel == self.stderr => Stream::Stderr,
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

    fn write(&mut self, entries: &[u8]) -> io::Result<()> {
        let len = entries.len() as u64;
        if self.len > 0 && self.len + len > FILE_MAX {
            fs::rename(self.folder.join(file_name(&self.app)), self.folder.join(older_name(&self.app)))?;
            self.file = Some(self.open()?);
            self.len = 0;
        }
        self.len += len;
        self.file.as_mut().map_or(Ok(()), |file| file.write_all(entries))
    }

    fn open(&self) -> io::Result<File> {
        let path = self.folder.join(file_name(&self.app));
        OpenOptions::new().create(true).append(true).mode(0o600).open(path)
    }
}

//! What the two sides of the lab say to each other over the one virtio-serial port: frames of a
//! kind (1 byte), a length (4 bytes, little endian) and that many bytes.
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// Longest frame: one read of a pipe, or one argument as execve(2) limits it (128 KiB).
pub(crate) const LEN_MAX: usize = 128 << 10;

const HEADER: usize = 5;

/// Guest: `Ready`, then any number of `Output` and `Error`, then `Exit`; or `Fault` at any time.
/// Host: the frames of one [`Job`], `Start` last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Ready = 1,
    Directory = 2,
    /// Name and value, joined by NUL.
    Variable = 3,
    Argument = 4,
    Share = 5,
    Start = 6,
    Output = 7,
    Error = 8,
    /// One byte, the exit code.
    Exit = 9,
    /// Why the guest could not do its part, as text.
    Fault = 10,
}

impl Kind {
    const ALL: [Kind; 10] = [
        Kind::Ready,
        Kind::Directory,
        Kind::Variable,
        Kind::Argument,
        Kind::Share,
        Kind::Start,
        Kind::Output,
        Kind::Error,
        Kind::Exit,
        Kind::Fault,
    ];
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    pub(crate) bytes: Vec<u8>,
}

/// One frame, ready to be written in one go.
///
/// # Panics
/// More than [`LEN_MAX`] bytes: the callers cut or check.
pub(crate) fn encode(kind: Kind, bytes: &[u8]) -> Vec<u8> {
    assert!(bytes.len() <= LEN_MAX, "a frame of {} bytes", bytes.len());
    let mut out = Vec::with_capacity(HEADER + bytes.len());
    out.push(kind as u8);
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
    out
}

/// Turns a stream that arrives in pieces into frames.
#[derive(Debug, Default)]
pub(crate) struct Decoder(Vec<u8>);

/// The stream is not ours, or out of step; nothing after this can be trusted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Garbled;

impl std::fmt::Display for Garbled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the lab's port carries something that is no frame")
    }
}

impl std::error::Error for Garbled {}

impl Decoder {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The next whole frame, if it has arrived.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, Garbled> {
        let Some((header, rest)) = self.0.split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let [tag, a, b, c, d] = *header;
        let kind = Kind::ALL.into_iter().find(|k| *k as u8 == tag).ok_or(Garbled)?;
        let len = u32::from_le_bytes([a, b, c, d]) as usize;
        if len > LEN_MAX {
            return Err(Garbled);
        }
        if rest.len() < len {
            return Ok(None);
        }
        let bytes = self.0.drain(..HEADER + len).skip(HEADER).collect();
        Ok(Some(Frame { kind, bytes }))
    }
}

/// What the guest is to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) directory: PathBuf,
    pub(crate) environment: Vec<(OsString, OsString)>,
    /// Program first.
    pub(crate) arguments: Vec<OsString>,
    /// Paths that stay visible although a tmpfs covers the folder they are in.
    pub(crate) shares: Vec<PathBuf>,
}

impl Job {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = encode(Kind::Directory, self.directory.as_os_str().as_bytes());
        for (name, value) in &self.environment {
            let both = [name.as_bytes(), b"\0", value.as_bytes()].concat();
            out.extend(encode(Kind::Variable, &both));
        }
        for argument in &self.arguments {
            out.extend(encode(Kind::Argument, argument.as_bytes()));
        }
        for share in &self.shares {
            out.extend(encode(Kind::Share, share.as_os_str().as_bytes()));
        }
        out.extend(encode(Kind::Start, &[]));
        out
    }

    /// Adds one frame; `Ok(true)` says that the job is complete.
    pub(crate) fn absorb(&mut self, frame: Frame) -> Result<bool, Garbled> {
        let Frame { kind, mut bytes } = frame;
        match kind {
            Kind::Directory => self.directory = PathBuf::from(OsString::from_vec(bytes)),
            Kind::Variable => {
                let nul = bytes.iter().position(|b| *b == 0).ok_or(Garbled)?;
                let value = bytes.split_off(nul + 1);
                bytes.truncate(nul);
                self.environment.push((OsString::from_vec(bytes), OsString::from_vec(value)));
            }
            Kind::Argument => self.arguments.push(OsString::from_vec(bytes)),
            Kind::Share => self.shares.push(PathBuf::from(OsString::from_vec(bytes))),
            Kind::Start => return Ok(true),
            Kind::Ready | Kind::Output | Kind::Error | Kind::Exit | Kind::Fault => return Err(Garbled),
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_survives_the_port_byte_by_byte() {
        let job = Job {
            directory: "/w".into(),
            environment: vec![("A".into(), "x=\n".into()), ("B".into(), "".into())],
            arguments: vec!["sh".into(), "-c".into(), OsString::from_vec(vec![0xff, b' '])],
            shares: vec!["/tmp/t".into()],
        };
        let (mut decoder, mut got, mut done) = (Decoder::default(), Job::default(), false);
        for byte in job.encode() {
            assert!(!done);
            decoder.push(&[byte]);
            while let Some(frame) = decoder.next().unwrap() {
                done = got.absorb(frame).unwrap();
            }
        }
        assert!(done);
        assert_eq!(got, job);
    }

    #[test]
    fn frames_that_arrive_together_come_apart() {
        let mut decoder = Decoder::default();
        decoder
            .push(&[encode(Kind::Output, b"a"), encode(Kind::Error, b""), encode(Kind::Exit, &[7])].concat());
        let mut kinds = Vec::new();
        while let Some(frame) = decoder.next().unwrap() {
            kinds.push((frame.kind, frame.bytes));
        }
        let want = [(Kind::Output, b"a".to_vec()), (Kind::Error, vec![]), (Kind::Exit, vec![7])];
        assert_eq!(kinds, want);
    }

    #[test]
    fn noise_is_refused() {
        let check = |bytes: &[u8]| {
            let mut decoder = Decoder::default();
            decoder.push(bytes);
            assert_eq!(decoder.next(), Err(Garbled));
        };
        check(b"\0\0\0\0\0");
        check(b"[    0.000000] Linux");
        check(&[Kind::Output as u8, 0xff, 0xff, 0xff, 0xff]);
    }
}

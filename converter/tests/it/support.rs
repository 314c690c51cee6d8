//! Starts the real process for one job, and makes archives byte by byte.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use hull_converter_protocol::{
    Algorithm, Answer, Digest, Flavour, Hashing, ImageId, Layer, Request, channel,
};
use wait4::Wait4;

/// How one job went.
pub(crate) struct Ran {
    pub(crate) answer: Option<Answer>,
    pub(crate) status: ExitStatus,
    /// Of a processor.
    pub(crate) time: Duration,
    pub(crate) peak_bytes: u64,
    pub(crate) output: File,
}

/// Has one layer converted.
pub(crate) fn convert(layer: &File, flavour: Option<Flavour>) -> Ran {
    let mut plain = layer.try_clone().unwrap();
    plain.seek(SeekFrom::Start(0)).unwrap();
    let mut hashing = Hashing::new(plain, Algorithm::Sha256);
    std::io::copy(&mut hashing, &mut std::io::sink()).unwrap();
    let digest = hashing.finish();
    let flavour = flavour.unwrap_or_else(|| Flavour::Oci { diff_id: digest.clone() });
    let request = Request::Convert { id: ImageId::from(&digest), layers: vec![Layer { digest, flavour }] };
    run(&request, layer)
}

/// The digest of what a compressed layer would be, for those whose end nobody waits for.
pub(crate) fn unknown() -> Flavour {
    Flavour::Oci { diff_id: Digest::of(Algorithm::Sha256, b"unknown") }
}

fn run(request: &Request, input: &File) -> Ran {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let output = tempfile::tempfile().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_hull-converter"));
    command.stdin(OwnedFd::from(theirs)).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    drop(command);
    channel::ask(&ours, request, &[input.as_fd(), output.as_fd()]).unwrap();
    let answer = channel::answered(&ours).ok();
    let ended = child.wait4().unwrap();
    let peak_bytes = ended.rusage.maxrss;
    Ran { answer, status: ended.status, time: ended.rusage.utime + ended.rusage.stime, peak_bytes, output }
}

/// An archive in the making, on disk: what a test holds in memory would count for its children.
pub(crate) struct Archive(pub(crate) std::io::BufWriter<File>);

impl Archive {
    pub(crate) fn new() -> Self {
        Self(std::io::BufWriter::new(tempfile::tempfile().unwrap()))
    }

    /// A header as it comes, its checksum made right, and what follows it up to the next block.
    pub(crate) fn raw(
        mut self,
        name: &[u8],
        kind: u8,
        content: &[u8],
        change: impl FnOnce(&mut [u8; 512]),
    ) -> Self {
        let mut header = [0; 512];
        header[..name.len().min(100)].copy_from_slice(&name[..name.len().min(100)]);
        header[100..108].copy_from_slice(b"0000644\0");
        header[108..116].copy_from_slice(b"0000000\0");
        header[116..124].copy_from_slice(b"0000000\0");
        header[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
        header[136..148].copy_from_slice(b"14524770400\0");
        header[156] = kind;
        header[257..265].copy_from_slice(b"ustar\x0000");
        change(&mut header);
        sum(&mut header);
        self.0.write_all(&header).unwrap();
        self.0.write_all(content).unwrap();
        let padding = content.len().wrapping_neg() % 512;
        self.0.write_all(&[0; 512][..padding]).unwrap();
        self
    }

    pub(crate) fn entry(self, name: &[u8], kind: u8, content: &[u8]) -> Self {
        self.raw(name, kind, content, |_| ())
    }

    pub(crate) fn file(self, name: &str) -> Self {
        self.entry(name.as_bytes(), b'0', b"x")
    }

    pub(crate) fn link(self, name: &str, kind: u8, target: &str) -> Self {
        self.raw(name.as_bytes(), kind, b"", |h| {
            h[157..157 + target.len()].copy_from_slice(target.as_bytes());
        })
    }

    /// An extended header for the entry to come.
    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut content = Vec::new();
        for (keyword, value) in records {
            let rest = keyword.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length += 1;
            }
            content.extend_from_slice(format!("{length} {keyword}=").as_bytes());
            content.extend_from_slice(value);
            content.push(b'\n');
        }
        self.entry(b"pax", b'x', &content)
    }

    /// These bytes and nothing else.
    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.write_all(bytes).unwrap();
        self
    }

    /// Ended by two empty blocks.
    pub(crate) fn done(self) -> File {
        self.bytes(&[0; 1024]).cut()
    }

    /// Not ended at all.
    pub(crate) fn cut(self) -> File {
        self.0.into_inner().unwrap()
    }
}

fn sum(header: &mut [u8; 512]) {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// What a shell command writes, given nothing.
pub(crate) fn output_of(script: &str) -> File {
    let file = tempfile::tempfile().unwrap();
    let status = Command::new("bash").args(["-euc", script]).stdout(file.try_clone().unwrap()).status();
    assert!(status.unwrap().success(), "{script}");
    file
}

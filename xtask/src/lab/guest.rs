//! The inner side: PID 1 of the emulated host.
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use hull_errors::{Doing, chain};
use nix::sys::resource::{Resource, setrlimit};

use super::message::{Decoder, Job, Kind as Word, encode};
use super::{EXCHANGE_VARIABLE, child, loopback, mounts};
use crate::error::{Error, Kind, Result};

/// The machine has one; its number depends on the other devices.
const PORTS: &str = "/sys/class/virtio-ports";

/// The port appears when the driver has heard from the other side, soon after boot.
const PORT_PATIENCE: Duration = Duration::from_secs(30);

/// As systemd gives to services for a hard limit.
const OPEN_FILES_MAX: u64 = 512 << 10;

/// Whether this process was started as the emulated host's `/init`.
pub(crate) fn is_guest() -> bool {
    std::process::id() == 1 && std::env::args_os().next().is_some_and(|name| name == "/init")
}

/// Returns only when there is nobody to talk to; the kernel then panics over the loss of PID 1,
/// and the outer side shows what this wrote to the console.
pub(crate) fn run() -> ExitCode {
    let serve = || -> Result<()> {
        mounts::devices()?;
        mounts::root()?;
        let mut port = open_port()?;
        let last = match serve(&mut port) {
            Ok(code) => encode(Word::Exit, &[code]),
            Err(e) => encode(Word::Fault, chain(&e).as_bytes()),
        };
        tell(&mut port, &last)
    };
    if let Err(e) = serve() {
        eprintln!("lab: {}", chain(&e));
        return e.kind().exit_code();
    }
    // The outer side has its answer and ends the machine.
    loop {
        thread::park();
    }
}

fn open_port() -> Result<File> {
    let deadline = Instant::now() + PORT_PATIENCE;
    let name = loop {
        let found = fs::read_dir(PORTS).ok().and_then(|mut entries| entries.next()?.ok());
        match found {
            Some(entry) => break entry.file_name(),
            None if Instant::now() > deadline => {
                return Err(Error::new(Kind::Lab, format!("find a port in {PORTS}")));
            }
            None => thread::yield_now(),
        }
    };
    let path = Path::new("/dev").join(name);
    File::options().read(true).write(true).open(&path).doing(Kind::Lab, || format!("open {}", path.display()))
}

fn serve(port: &mut File) -> Result<u8> {
    // Blocks until the outer side is there; a read would not.
    tell(port, &encode(Word::Ready, &[]))?;
    let job = hear(port)?;
    let named = |(name, _): &&(_, _)| *name == *EXCHANGE_VARIABLE;
    let exchange = job.environment.iter().find(named).map(|(_, value)| Path::new(value));
    let exchange = exchange.ok_or_else(|| Error::new(Kind::Lab, "find the exchange folder's name"))?;
    mounts::host(exchange, &job.shares)?;
    mounts::enter()?;
    loopback::up().doing(Kind::Lab, || "bring the loopback interface up".into())?;
    nix::unistd::sethostname("lab").doing(Kind::Lab, || "set the host name".into())?;
    let limits = setrlimit(Resource::RLIMIT_NOFILE, 1024, OPEN_FILES_MAX);
    limits.doing(Kind::Lab, || "raise the limit of open files".into())?;
    child::run(&job, |kind, bytes| tell(port, &encode(kind, bytes)))
}

fn hear(port: &mut File) -> Result<Job> {
    let doing = || "hear what to run".to_owned();
    let (mut decoder, mut job, mut bytes) = (Decoder::default(), Job::default(), [0; 4096]);
    loop {
        let count = port.read(&mut bytes).doing(Kind::Lab, doing)?;
        if count == 0 {
            return Err(Error::new(Kind::Lab, "hear what to run: the other side is gone"));
        }
        decoder.push(&bytes[..count]);
        while let Some(frame) = decoder.next().doing(Kind::Lab, doing)? {
            if job.absorb(frame).doing(Kind::Lab, doing)? {
                return Ok(job);
            }
        }
    }
}

fn tell(port: &mut File, frame: &[u8]) -> Result<()> {
    port.write_all(frame).doing(Kind::Lab, || "talk to the outer side".into())
}

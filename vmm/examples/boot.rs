//! Boots a kernel from the command line, to try a machine without a pod:
//! `boot KERNEL [init=FILE] [disk=FILE] [rodisk=FILE] [pmem=FILE] [ram=MIB] [vcpus=N] [vsock] [rng] [tap=NAME] [balloon=MIB] [console] [cmd=WORDS]`
//! A vsock is port 1024, echoed. Prints how the machine ended, and exits with the guest's code.
#![forbid(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use hull_errors::chain;
use hull_vmm::{
    Asked, Disk, Halt, HostFiles, InitramfsFile, Machine, Net, VmConfig, Vsock, VsockPort, open_tap,
};

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

fn main() {
    match run() {
        Ok(code) => std::process::exit(code.into()),
        Err(err) => {
            eprintln!("boot: {}", chain(&*err));
            std::process::exit(125);
        }
    }
}

fn run() -> Fallible<u8> {
    let start = Instant::now();
    let Wishes { asked, pmem, balloon } = parse()?;
    let config = VmConfig::try_from(asked)?.with_pmem(pmem)?;
    let config = if let Some(mib) = balloon { config.with_balloon(mib)? } else { config };
    let machine = Machine::new(config)?;
    let created = start.elapsed();
    let machine = machine.load()?;
    let (loaded, copied) = (start.elapsed(), machine.kernel_bytes_copied());
    let halt = machine.boot()?.wait();
    eprintln!(
        "boot: created {created:?}, loaded {loaded:?} ({copied} bytes), ended {:?}: {halt:?}",
        start.elapsed()
    );
    Ok(match halt {
        Halt::PowerOff { code } => code,
        _ => 124,
    })
}

struct Wishes {
    asked: Asked,
    pmem: Vec<File>,
    balloon: Option<u32>,
}

fn parse() -> Fallible<Wishes> {
    let mut words = std::env::args().skip(1);
    let kernel = File::open(words.next().ok_or("name a kernel")?)?;
    let mut asked = Asked {
        host: HostFiles::open()?,
        vcpus: 1,
        ram_mib: 256,
        kernel,
        initramfs: Vec::new(),
        cmdline: String::new(),
        disks: Vec::new(),
        vsock: None,
        rng: false,
        net: Vec::new(),
        console: None,
    };
    let mut pmem = Vec::new();
    let mut balloon = None;
    for word in words {
        match word.split_once('=').unwrap_or((&word, "")) {
            ("init", path) => asked.initramfs.push(file("init", path)?),
            ("disk", path) => {
                let file = OpenOptions::new().read(true).write(true).open(path)?;
                asked.disks.push(Disk { file, read_only: false });
            }
            ("rodisk", path) => asked.disks.push(Disk { file: File::open(path)?, read_only: true }),
            ("pmem", path) => pmem.push(File::open(path)?),
            ("ram", mib) => asked.ram_mib = mib.parse()?,
            ("vcpus", count) => asked.vcpus = count.parse()?,
            ("vsock", _) => asked.vsock = Some(Vsock { ports: vec![echo()?] }),
            ("rng", _) => asked.rng = true,
            ("balloon", mib) => balloon = Some(mib.parse()?),
            ("tap", name) => {
                let index = u8::try_from(asked.net.len())?;
                asked.net.push(Net { tap: open_tap(name)?, mac: [2, 0, 0, 0, 0, index], mtu: Some(1500) });
            }
            ("console", _) => asked.console = Some(io::stdout().as_fd().try_clone_to_owned()?.into()),
            ("cmd", words) => words.clone_into(&mut asked.cmdline),
            // Anything else is a path in the guest and a file here.
            (path, host) => asked.initramfs.push(file(path, host)?),
        }
    }
    Ok(Wishes { asked, pmem, balloon })
}

fn file(path: &str, host: &str) -> Fallible<InitramfsFile> {
    Ok(InitramfsFile { path: path.to_owned(), mode: 0o755, file: File::open(host)? })
}

/// Sends everything back, and says how much it was.
fn echo() -> Fallible<VsockPort> {
    let (guest, mut host) = UnixStream::pair()?;
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        let mut total = 0;
        while let Ok(count @ 1..) = host.read(&mut buffer) {
            total += count;
            if host.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        eprintln!("boot: the guest sent {total} bytes");
    });
    Ok(VsockPort { port: 1024, stream: guest })
}

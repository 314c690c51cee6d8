//! What the machine of a pod shall be. Every file it needs is opened here; nothing opens a path later.

use std::fs::File;
use std::io::stderr;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use hull_agent_protocol::AGENT_PORT;
use hull_errors::Doing;
use hull_pod::contract::Machine;
use hull_stage1::{Kind, Pod};
use hull_vmm::{Asked, Disk, HostFiles, InitramfsFile, Net, Vsock, VsockPort};

use crate::Error;

/// `/dev/vda` to `/dev/vdz`.
const DISKS_MAX: usize = 26;

/// What the kernel's command line tells the agent, its `/init`.
const AGENT_ARGUMENTS: &str = "-- --machine=vm";

pub(crate) fn plan(
    pod: &Pod,
    agents_end: UnixStream,
    net: Vec<Net>,
    volumes: Vec<Disk>,
) -> Result<Asked, Error> {
    let contract = &pod.contract;
    let machine = machine(pod)?;
    disk(contract.roots.len().saturating_sub(1))?;
    let open = |path: &std::path::Path, what: &str| {
        File::open(path).doing(Kind::Host, || format!("open {what} {}", path.display()))
    };
    let image = |path: &std::path::PathBuf| Ok(Disk { file: open(path, "image")?, read_only: true });
    let mut disks = contract.roots.iter().map(image).collect::<Result<Vec<_>, Error>>()?;
    disks.extend(volumes);
    let console = contract.debug.then(|| stderr().as_fd().try_clone_to_owned()).transpose();
    Ok(Asked {
        host: HostFiles::open().doing(Kind::Host, || "start the virtual machine".into())?,
        vcpus: machine.vcpus,
        ram_mib: machine.ram_mib,
        kernel: open(&machine.kernel, "guest kernel")?,
        initramfs: vec![InitramfsFile {
            path: "init".into(),
            mode: 0o755,
            file: open(&contract.agent, "agent")?,
        }],
        cmdline: AGENT_ARGUMENTS.into(),
        disks,
        vsock: Some(Vsock { ports: vec![VsockPort { port: AGENT_PORT, stream: agents_end }] }),
        rng: true,
        net,
        console: console.doing(Kind::Host, || "use standard error as console".into())?.map(File::from),
    })
}

/// The guest names its disks in the order in which it finds them: those of the images, then those of the volumes.
///
/// # Errors
/// There are more than letters.
pub(crate) fn disk(index: usize) -> Result<String, Error> {
    match u8::try_from(index).ok().filter(|index| usize::from(*index) < DISKS_MAX) {
        Some(index) => Ok(format!("/dev/vd{}", char::from(b'a' + index))),
        None => {
            let why = format!("a VM pod has at most {DISKS_MAX} disks: one an app, and one a block device");
            Err(Error::new(Kind::Contract, why))
        }
    }
}

pub(crate) fn kernel(pod: &Pod) -> String {
    pod.contract.machine.as_ref().map_or_else(String::new, |machine| machine.kernel.display().to_string())
}

pub(crate) fn machine(pod: &Pod) -> Result<&Machine, Error> {
    let machine = pod.contract.machine.as_ref();
    machine.ok_or_else(|| Error::new(Kind::Contract, "the contract names no machine for a VM pod"))
}

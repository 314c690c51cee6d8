//! What the machine of a pod shall be. Every file it needs is opened here; nothing opens a path later.

use std::fs::File;
use std::io::stderr;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use hull_agent_protocol::AGENT_PORT;
use hull_errors::Doing;
use hull_pod::Flavour;
use hull_pod::contract::Machine;
use hull_pod::volumes::{self, Backing};
use hull_stage1::{Kind, Pod};
use hull_vmm::{Asked, Disk, HostFiles, InitramfsFile, Net, Vsock, VsockPort};

use crate::Error;

/// One disk an app, named `/dev/vda` to `/dev/vdz`.
const APPS_MAX: usize = 26;

/// What the kernel's command line tells the agent, its `/init`.
const AGENT_ARGUMENTS: &str = "-- --machine=vm";

pub(crate) fn plan(pod: &Pod, agents_end: UnixStream, net: Vec<Net>) -> Result<Asked, Error> {
    let contract = &pod.contract;
    let machine = machine(pod)?;
    refuse_host_volumes(pod)?;
    if contract.roots.len() > APPS_MAX {
        let why = format!("a VM pod has at most {APPS_MAX} apps, not {}", contract.roots.len());
        return Err(Error::new(Kind::Contract, why));
    }
    let open = |path: &std::path::Path, what: &str| {
        File::open(path).doing(Kind::Host, || format!("open {what} {}", path.display()))
    };
    let disk = |path: &std::path::PathBuf| Ok(Disk { file: open(path, "image")?, read_only: true });
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
        disks: contract.roots.iter().map(disk).collect::<Result<_, Error>>()?,
        vsock: Some(Vsock { ports: vec![VsockPort { port: AGENT_PORT, stream: agents_end }] }),
        rng: true,
        net,
        console: console.doing(Kind::Host, || "use standard error as console".into())?.map(File::from),
    })
}

/// What the guest mounts volume number n by.
pub(crate) fn tag(index: usize) -> String {
    format!("volume{index}")
}

fn refuse_host_volumes(pod: &Pod) -> Result<(), Error> {
    let volumes = volumes::resolve(&pod.manifest, Flavour::Kvm)
        .doing(Kind::Contract, || "find out which volumes the pod has".into())?;
    match volumes.used.iter().find(|used| matches!(used.kind, Backing::Host(_))) {
        None => Ok(()),
        Some(used) => Err(Error::new(
            Kind::Host,
            format!(
                "volume {} is the host's, and VMs of this version have no way to it; use kind=empty, or \
                 --stage1=nspawn",
                used.name
            ),
        )),
    }
}

pub(crate) fn kernel(pod: &Pod) -> String {
    pod.contract.machine.as_ref().map_or_else(String::new, |machine| machine.kernel.display().to_string())
}

pub(crate) fn machine(pod: &Pod) -> Result<&Machine, Error> {
    let machine = pod.contract.machine.as_ref();
    machine.ok_or_else(|| Error::new(Kind::Contract, "the contract names no machine for a VM pod"))
}

//! What the machine may cost the host: limits of the pod's cgroup, which follow the machine's size.

use std::fs;
use std::io;
use std::path::Path;

use hull_errors::Doing;
use hull_pod::contract::Machine;
use hull_stage1::Kind;

use crate::Error;

/// The VMM's own memory.
const OVERHEAD: u64 = 3 << 20;
/// What the kernel keeps for each byte of RAM, at most: page tables of the VMM's and of the guest's, 8 bytes
/// each for 4096, and as much again for KVM's records of them.
const KERNEL_SHARE: u64 = 128;
/// A file server's own memory; a guest decides how many files it keeps in sight.
const SERVER: u64 = 32 << 20;
/// A file server's threads.
const SERVER_THREADS: u32 = 4;
/// Threads beside the vCPUs: the first, the devices', and those that KVM and io_uring make.
const THREADS: u32 = 16;
/// `cpu.max`: microseconds.
const PERIOD: u64 = 100_000;

/// Writes the limits. False if this host's cgroup has not all the controllers that it takes.
pub(crate) fn set(cgroup: &Path, machine: &Machine, servers: usize) -> Result<bool, Error> {
    let ram = u64::from(machine.ram_mib) << 20;
    let servers = u32::try_from(servers).expect("a machine has few devices");
    let threads = u32::from(machine.vcpus) + THREADS + servers * SERVER_THREADS;
    let overhead = OVERHEAD + u64::from(servers) * SERVER;
    let limits = [
        ("memory.max", (ram + ram / KERNEL_SHARE + overhead).to_string()),
        // Without the VMM, or a server, there is nothing to go on with.
        ("memory.oom.group", "1".into()),
        ("pids.max", threads.to_string()),
        ("cpu.max", format!("{} {PERIOD}", PERIOD * u64::from(machine.vcpus))),
    ];
    let mut all = true;
    for (name, limit) in limits {
        match fs::write(cgroup.join(name), &limit) {
            Err(why) if why.kind() == io::ErrorKind::NotFound => all = false,
            // The kernel's way to say so: files of cgroups cannot be created.
            Err(why) if why.kind() == io::ErrorKind::PermissionDenied => all = false,
            other => other.doing(Kind::Host, || format!("set {name} of {} to {limit}", cgroup.display()))?,
        }
    }
    Ok(all)
}

/// Puts the VMM or a server into the pod's cgroup, before it does anything that costs.
pub(crate) fn put(cgroup: &Path, process: u32) -> Result<(), Error> {
    fs::write(cgroup.join("cgroup.procs"), process.to_string())
        .doing(Kind::Host, || format!("put the virtual machine into cgroup {}", cgroup.display()))
}

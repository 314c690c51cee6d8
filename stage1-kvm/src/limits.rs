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
/// Threads beside the vCPUs: the first, the devices', and those that KVM and io_uring make.
const THREADS: u32 = 16;
/// `cpu.max`: microseconds.
const PERIOD: u64 = 100_000;

/// Writes the limits. False if this host's cgroup has not all the controllers that it takes.
pub(crate) fn set(cgroup: &Path, machine: &Machine) -> Result<bool, Error> {
    let ram = u64::from(machine.ram_mib) << 20;
    let threads = u32::from(machine.vcpus) + THREADS;
    let limits = [
        ("memory.max", (ram + ram / KERNEL_SHARE + OVERHEAD).to_string()),
        // The VMM is the only process; without it there is nothing to go on with.
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

/// Puts the VMM into the pod's cgroup, before it does anything that costs.
pub(crate) fn put(cgroup: &Path, process: u32) -> Result<(), Error> {
    fs::write(cgroup.join("cgroup.procs"), process.to_string())
        .doing(Kind::Host, || format!("put the virtual machine into cgroup {}", cgroup.display()))
}

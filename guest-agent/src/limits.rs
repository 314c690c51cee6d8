//! What an app may use, and what the pod sets in its kernel. A limit that this machine cannot set fails
//! the pod, unless it is lenient.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use hull_agent_protocol::message::AgentFault;
use hull_agent_protocol::{AppSpec, ImageSource, Limits, PodSpec};
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{major, minor};

use crate::Error;
use crate::cgroup::AppCgroup;
use crate::machine::Machine;

/// Most open files of an app: the soft limit that select(2) can live with, and systemd's hard one.
const OPEN_FILES: (u64, u64) = (1024, 524_288);

/// Microseconds that `cpu.max` counts in. A second lets a thousandth of a processor be the millisecond
/// that the kernel wants at least (`min_cfs_quota_period`, kernel/sched/core.c).
const CPU_PERIOD: (u64, u64) = (100_000, 1_000_000);

/// What the pod goes without, where it may: texts for the user.
#[derive(Debug)]
pub(crate) struct Missed {
    pub(crate) lenient: bool,
    pub(crate) texts: Vec<String>,
}

impl Missed {
    pub(crate) fn new(lenient: bool) -> Self {
        Self { lenient, texts: vec![] }
    }

    /// Notes what was wanted and why it cannot be; an error where it must be.
    fn add(&mut self, whose: &str, isolator: &str, why: &str) -> Result<(), Error> {
        let text = format!("apply isolator {isolator} of {whose}: {why}");
        if !self.lenient {
            let text = format!("{text} (--isolators=lenient runs it without)");
            return Err(Error::new(AgentFault::Pod, text));
        }
        self.texts.push(format!("{text}; going on without it"));
        Ok(())
    }
}

/// Writes the app's limits to its cgroup.
pub(crate) fn bound(app: &AppSpec, cgroup: Option<&AppCgroup>, missed: &mut Missed) -> Result<(), Error> {
    let whose = format!("app {}", app.name);
    for Setting { isolator, file, text } in settings(app) {
        let why = match (cgroup, text) {
            (_, None) => "the app's root is on no block device of its own".into(),
            (None, _) => "this machine has no cgroup of version 2 that the pod may use".into(),
            (Some(cgroup), Some(text)) => match cgroup.write(file, &text) {
                Ok(()) => continue,
                Err(why) if why.kind() == io::ErrorKind::NotFound => {
                    let controller = file.split('.').next().unwrap_or(file);
                    format!("the pod's cgroup has no controller {controller}")
                }
                Err(why) => format!("write {text:?} to {file}: {why}"),
            },
        };
        missed.add(&whose, isolator, &why)?;
    }
    if app.limits.network_bits_per_second.is_some() {
        let why = "it limits the pod's interfaces of built-in networks, for all apps together: each has to have one";
        missed.add(&whose, "resource/network-bandwidth", why)?;
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
struct Setting {
    isolator: &'static str,
    file: &'static str,
    /// Absent where there is nothing to write about.
    text: Option<String>,
}

/// What to write where (kernel `Documentation/admin-guide/cgroup-v2.rst`).
fn settings(app: &AppSpec) -> Vec<Setting> {
    let limits = &app.limits;
    let mut all = vec![];
    let mut add = |isolator, file, text| all.push(Setting { isolator, file, text });
    if let Some(bytes) = limits.memory_bytes {
        add("resource/memory", "memory.max", Some(bytes.to_string()));
        // Half an app that lost a process to the limit is of no use.
        add("resource/memory", "memory.oom.group", Some("1".into()));
    }
    if let Some(millis) = limits.cpu_millis {
        add("resource/cpu", "cpu.max", Some(cpu_max(millis)));
    }
    if let Some(shares) = limits.cpu_shares {
        add("os/linux/cpu-shares", "cpu.weight", Some(cpu_weight(shares).to_string()));
    }
    if let Some(pids) = limits.pids {
        add("hull/pids", "pids.max", Some(pids.to_string()));
    }
    if let Some(bytes) = limits.block_bytes_per_second {
        let text = disk(app).map(|disk| format!("{disk} rbps={bytes} wbps={bytes}"));
        add("resource/block-bandwidth", "io.max", text);
    }
    if let Some(requests) = limits.block_requests_per_second {
        let text = disk(app).map(|disk| format!("{disk} riops={requests} wiops={requests}"));
        add("resource/block-iops", "io.max", text);
    }
    all
}

fn cpu_max(millis: u32) -> String {
    let (short, long) = CPU_PERIOD;
    let period = if millis < 10 { long } else { short };
    format!("{} {period}", u64::from(millis) * period / 1000)
}

/// Shares are 2 to 262144, weights 1 to 10000; the line between, as systemd and runc draw it.
fn cpu_weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

/// `MAJOR:MINOR` of the block device that the app's image is on. What the app writes is in memory.
fn disk(app: &AppSpec) -> Option<String> {
    let device = match &app.image {
        ImageSource::Device { path } => fs::metadata(path).ok()?.rdev(),
        ImageSource::Mounted { path } => fs::metadata(path).ok()?.dev(),
    };
    // Major number 0 is that of file systems without a device.
    (major(device) != 0).then(|| format!("{}:{}", major(device), minor(device)))
}

/// Sets what the app's process and its children inherit.
pub(crate) fn limit(limits: &Limits) -> io::Result<()> {
    let (_, cores) = getrlimit(Resource::RLIMIT_CORE)?;
    setrlimit(Resource::RLIMIT_CORE, 0, cores)?;
    let (soft, hard) = OPEN_FILES;
    match setrlimit(Resource::RLIMIT_NOFILE, soft, hard) {
        // Raising a limit needs a capability that a host inside a container lacks.
        Err(Errno::EPERM) => {
            let (_, allowed) = getrlimit(Resource::RLIMIT_NOFILE)?;
            setrlimit(Resource::RLIMIT_NOFILE, soft.min(allowed), allowed)?;
        }
        other => other?,
    }
    if let Some(score) = limits.oom_score_adj {
        fs::write("/proc/self/oom_score_adj", score.to_string())?;
    }
    for limit in &limits.resources {
        let unknown = || io::Error::new(io::ErrorKind::InvalidInput, format!("no resource {}", limit.name));
        let set = setrlimit(resource(&limit.name).ok_or_else(unknown)?, limit.soft, limit.hard);
        set.map_err(|why| io::Error::other(format!("{}: {why}", limit.name)))?;
    }
    Ok(())
}

fn resource(name: &str) -> Option<Resource> {
    Some(match name {
        "RLIMIT_AS" => Resource::RLIMIT_AS,
        "RLIMIT_CORE" => Resource::RLIMIT_CORE,
        "RLIMIT_CPU" => Resource::RLIMIT_CPU,
        "RLIMIT_DATA" => Resource::RLIMIT_DATA,
        "RLIMIT_FSIZE" => Resource::RLIMIT_FSIZE,
        "RLIMIT_LOCKS" => Resource::RLIMIT_LOCKS,
        "RLIMIT_MEMLOCK" => Resource::RLIMIT_MEMLOCK,
        "RLIMIT_MSGQUEUE" => Resource::RLIMIT_MSGQUEUE,
        "RLIMIT_NICE" => Resource::RLIMIT_NICE,
        "RLIMIT_NOFILE" => Resource::RLIMIT_NOFILE,
        "RLIMIT_NPROC" => Resource::RLIMIT_NPROC,
        "RLIMIT_RSS" => Resource::RLIMIT_RSS,
        "RLIMIT_RTPRIO" => Resource::RLIMIT_RTPRIO,
        "RLIMIT_RTTIME" => Resource::RLIMIT_RTTIME,
        "RLIMIT_SIGPENDING" => Resource::RLIMIT_SIGPENDING,
        "RLIMIT_STACK" => Resource::RLIMIT_STACK,
        _ => return None,
    })
}

/// Sets the pod's sysctls.
pub(crate) fn set_sysctls(machine: Machine, spec: &PodSpec, missed: &mut Missed) -> Result<(), Error> {
    for (name, value) in &spec.sysctls {
        let path = sysctl_path(name);
        let why = match machine {
            Machine::Fly => format!("{name} is the host's in a chroot"),
            Machine::Nspawn if !is_namespaced(&path) => {
                format!("{name} is the host's; in a VM (--stage1=kvm) it would be the pod's own")
            }
            Machine::Vm | Machine::Nspawn => match fs::write(Path::new("/proc/sys").join(&path), value) {
                Ok(()) => continue,
                Err(why) => format!("set {name} to {value:?}: {why}"),
            },
        };
        missed.add("the pod", "os/unix/sysctl", &why)?;
    }
    Ok(())
}

/// Dots between the parts, or slashes where a part has a dot (sysctl(8)). Never leads out of `/proc/sys`.
fn sysctl_path(name: &str) -> String {
    let path = if name.contains('/') { name.to_owned() } else { name.replace('.', "/") };
    path.split('/').filter(|part| !matches!(*part, "" | "." | "..")).collect::<Vec<_>>().join("/")
}

/// What belongs to the ipc or network namespace (namespaces(7)).
fn is_namespaced(path: &str) -> bool {
    let own = ["net/", "fs/mqueue/", "kernel/shm", "kernel/msg"];
    path == "kernel/sem" || own.iter().any(|first| path.starts_with(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_become_what_the_kernel_reads() {
        let check = |millis: u32, want: &str| assert_eq!(cpu_max(millis), want, "{millis}");
        check(1000, "100000 100000");
        check(500, "50000 100000");
        check(10, "1000 100000");
        check(1, "1000 1000000");
        for (shares, want) in [(0, 1), (2, 1), (1024, 39), (262_144, 10_000), (u64::MAX, 10_000)] {
            assert_eq!(cpu_weight(shares), want, "{shares}");
        }
    }

    #[test]
    fn sysctls_stay_where_they_belong() {
        assert_eq!(sysctl_path("net.ipv4.ip_forward"), "net/ipv4/ip_forward");
        assert_eq!(sysctl_path("net/ipv4/conf/eth0.1/forwarding"), "net/ipv4/conf/eth0.1/forwarding");
        assert_eq!(sysctl_path("net/../../etc/passwd"), "net/etc/passwd");
        for path in
            ["net/core/somaxconn", "kernel/shmmax", "kernel/msgmax", "kernel/sem", "fs/mqueue/msg_max"]
        {
            assert!(is_namespaced(path), "{path}");
        }
        for path in ["kernel/core_pattern", "vm/swappiness", "kernel/semaphore", "fs/file-max"] {
            assert!(!is_namespaced(path), "{path}");
        }
    }
}

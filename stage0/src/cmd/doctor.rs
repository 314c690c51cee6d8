//! `hull doctor`: every check, and the way out of each that fails.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use hull_pod::{Flavour, contract};
use serde::Serialize;

use crate::cli::DoctorArgs;
use crate::host::kvm::Kvm;
use crate::host::{AGENT, Host, KERNEL};
use crate::{Error, FAILURE};

const ALL: &[Flavour] = &[Flavour::Kvm, Flavour::Nspawn, Flavour::Fly];
const VM: &[Flavour] = &[Flavour::Kvm];
const ON_HOST: &[Flavour] = &[Flavour::Nspawn, Flavour::Fly];

#[derive(Debug, Serialize)]
struct Report {
    checks: Vec<Check>,
    /// The flavours that can be used, in the order of their isolation.
    usable: Vec<&'static str>,
}

#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    verdict: Verdict,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    way_out: Option<String>,
    #[serde(skip)]
    needed_by: &'static [Flavour],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Verdict {
    Ok,
    /// Pods run, with less than hull could give them.
    Warning,
    Failed,
}

pub(crate) fn doctor(args: &DoctorArgs, host: &Host) -> Result<ExitCode, Error> {
    let report = examine(host);
    match args.format {
        Some(format) => super::print_json(&report, format)?,
        None => print_plain(&report),
    }
    // The question is whether `hull run` would work as it is.
    let healthy = report.usable.contains(&Flavour::Kvm.as_str());
    Ok(ExitCode::from(if healthy { 0 } else { FAILURE }))
}

fn examine(host: &Host) -> Report {
    let mut checks = vec![kvm(), root()];
    checks.extend([
        installed(host, KERNEL, VM, "build it with cargo xtask kernel, or name one with --kernel"),
        installed(host, Flavour::Kvm.binary(), VM, REINSTALL),
        installed(host, Flavour::Nspawn.binary(), ON_HOST, REINSTALL),
        installed(host, AGENT, ALL, REINSTALL),
    ]);
    checks.extend([converter(host), vmm(host)]);
    let filesystems = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    checks.push(filesystem("erofs", "images are mounted with it", &filesystems));
    checks.push(filesystem("overlay", "an app writes to a layer above its image", &filesystems));
    checks.extend(["mnt", "pid", "ipc", "uts", "net", "cgroup"].map(namespace));
    checks.push(cgroups());
    checks.extend([packet_filter(), forwarding(), plugins(host)]);
    checks.push(data_directory(host));
    let broken = |flavour: &Flavour| {
        checks.iter().any(|check| check.verdict == Verdict::Failed && check.needed_by.contains(flavour))
    };
    let usable = ALL.iter().filter(|flavour| !broken(flavour)).map(|flavour| flavour.as_str()).collect();
    Report { checks, usable }
}

const REINSTALL: &str = "install hull again, or name the place of its programs with --libexec";

fn check(
    name: &'static str,
    needed_by: &'static [Flavour],
    found: String,
    trouble: Option<(Verdict, String)>,
) -> Check {
    let (verdict, way_out) =
        trouble.map_or((Verdict::Ok, None), |(verdict, way_out)| (verdict, Some(way_out)));
    Check { name, verdict, found, way_out, needed_by }
}

fn kvm() -> Check {
    let kvm = Kvm::look();
    let trouble = (!kvm.is_usable()).then(|| (Verdict::Failed, kvm.way_out().to_owned()));
    check("kvm", VM, kvm.problem(), trouble)
}

fn root() -> Check {
    let uid = nix::unistd::geteuid();
    let trouble = (!uid.is_root()).then(|| (Verdict::Failed, "run hull as root, or use --stage1=kvm".into()));
    check("root", ON_HOST, format!("user id {uid}"), trouble)
}

fn installed(host: &Host, name: &'static str, needed_by: &'static [Flavour], way_out: &str) -> Check {
    match host.installed(name) {
        Ok(path) => check(name, needed_by, path.display().to_string(), None),
        Err(why) => check(name, needed_by, why.to_string(), Some((Verdict::Failed, way_out.into()))),
    }
}

/// The process that reads archives, and the walls around it that this host can give.
fn converter(host: &Host) -> Check {
    const NAME: &str = "jail of archives";
    match host.converter().missing_walls() {
        Ok(missing) if missing.is_empty() => check(NAME, ALL, "it has all its walls".into(), None),
        Ok(missing) => {
            let way_out =
                "images are read behind the walls that there are; use a newer kernel for the others";
            check(NAME, ALL, missing.join("; "), warning(way_out))
        }
        Err(why) => check(NAME, ALL, hull_errors::chain(&why), Some((Verdict::Failed, REINSTALL.into()))),
    }
}

/// The process that runs a guest, and the walls around it that this host can give to this user.
fn vmm(host: &Host) -> Check {
    const NAME: &str = "jail of VMs";
    let Ok(program) = host.installed(Flavour::Kvm.binary()) else {
        return check(
            NAME,
            VM,
            "hull-kvm is not installed".into(),
            Some((Verdict::Failed, REINSTALL.into())),
        );
    };
    let output = Command::new(program).arg(contract::WALLS).env_clear().stdin(Stdio::null()).output();
    let said =
        output.map(|output| (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned()));
    match said {
        Ok((true, missing)) if missing.is_empty() => check(NAME, VM, "it has all its walls".into(), None),
        Ok((true, missing)) => {
            let way_out = "VMs run behind the walls that there are; be root, use a newer kernel and cgroup version 2 for the others";
            check(NAME, VM, missing.trim_end().replace('\n', "; "), warning(way_out))
        }
        Ok((false, why)) => check(NAME, VM, why, Some((Verdict::Failed, REINSTALL.into()))),
        Err(why) => check(NAME, VM, why.to_string(), Some((Verdict::Failed, REINSTALL.into()))),
    }
}

fn filesystem(name: &'static str, purpose: &str, known: &str) -> Check {
    if known.split_ascii_whitespace().any(|word| word == name) {
        return check(name, ON_HOST, "the kernel has it".into(), None);
    }
    if module_exists(name) {
        return check(name, ON_HOST, "a module that the kernel loads when it is needed".into(), None);
    }
    let way_out = format!("use a kernel with CONFIG_{}_FS, or load the module", name.to_ascii_uppercase());
    check(name, ON_HOST, format!("the kernel lacks it; {purpose}"), Some((Verdict::Failed, way_out)))
}

fn module_exists(name: &str) -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let list = Path::new("/lib/modules").join(release.trim()).join("modules.dep");
    let file = format!("/{name}.ko");
    fs::read_to_string(list).unwrap_or_default().lines().any(|line| line.contains(&file))
}

fn namespace(name: &'static str) -> Check {
    let path = Path::new("/proc/self/ns").join(name);
    let label = match name {
        "mnt" => "mount namespaces",
        "pid" => "pid namespaces",
        "ipc" => "ipc namespaces",
        "uts" => "uts namespaces",
        "net" => "network namespaces",
        _ => "cgroup namespaces",
    };
    // fly needs the mount namespace only.
    let needed_by = if name == "mnt" { ON_HOST } else { &[Flavour::Nspawn] };
    match path.exists() {
        true => check(label, needed_by, "the kernel has them".into(), None),
        false => {
            let trouble =
                Some((Verdict::Failed, "use a kernel with CONFIG_NAMESPACES and all kinds of them".into()));
            check(label, needed_by, "the kernel lacks them".into(), trouble)
        }
    }
}

/// Mount points of cgroup file systems, and whether version 2 has the controllers.
fn cgroups() -> Check {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let unified = mounts.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let (_, target, kind) = (words.next()?, words.next()?, words.next()?);
        (kind == "cgroup2").then_some(target)
    });
    let Some(target) = unified.into_iter().next() else {
        let way_out = "mount one: mount -t cgroup2 none /sys/fs/cgroup, or boot with systemd.unified_cgroup_hierarchy=1";
        return check("cgroups", ON_HOST, "no cgroup v2 hierarchy is mounted".into(), warning(way_out));
    };
    let controllers = fs::read_to_string(Path::new(target).join("cgroup.controllers")).unwrap_or_default();
    let missing: Vec<&str> = ["cpu", "memory", "pids"]
        .into_iter()
        .filter(|wanted| !controllers.split_ascii_whitespace().any(|there| there == *wanted))
        .collect();
    match missing.is_empty() {
        true => check("cgroups", ON_HOST, format!("version 2 at {target}"), None),
        false => {
            let found = format!(
                "version 2 at {target} lacks {}: apps outside VMs, and VMs as a whole, have no limits",
                missing.join(", ")
            );
            check("cgroups", ON_HOST, found, warning("boot with systemd.unified_cgroup_hierarchy=1"))
        }
    }
}

/// Rules of networks.
fn packet_filter() -> Check {
    const NAME: &str = "packet filter";
    match hull_network::probe() {
        Ok(version) => check(NAME, ALL, version, None),
        Err(why) => {
            let way_out = "install nftables on a kernel with CONFIG_NF_TABLES_INET, NF_NAT and NETFILTER_INGRESS; without, \
                           pods run with --net=none only";
            check(NAME, ALL, hull_errors::chain(&why), warning(way_out))
        }
    }
}

/// The networks of the settings, and the programs that they need.
fn plugins(host: &Host) -> Check {
    const NAME: &str = "configured networks";
    let settings = &host.settings;
    let folders: Vec<_> = [Some(&settings.system), Some(&settings.local), settings.user.as_ref()]
        .into_iter()
        .flatten()
        .cloned()
        .collect();
    let look = || -> Result<Vec<String>, hull_network::Error> {
        let networks = hull_network::configured(&folders)?;
        networks.into_iter().map(|network| network.check().map(|()| network.name)).collect()
    };
    match look() {
        Ok(names) if names.is_empty() => check(NAME, ALL, "none, only those that are built in".into(), None),
        Ok(names) => check(NAME, ALL, format!("{}, with all their plugins", names.join(", ")), None),
        Err(why) => {
            let way_out = "mend the file in net.d of the settings; pods in other networks run";
            check(NAME, ALL, hull_errors::chain(&why), warning(way_out))
        }
    }
}

/// Whether packets of pods are passed on. The first pod of a network switches it on, if nothing else has.
fn forwarding() -> Check {
    let found = match (hull_network::is_on(), hull_network::has_ipv6()) {
        ((true, true), _) => "this host forwards IPv4 and IPv6",
        ((true, false), false) => "this host forwards IPv4, and has no IPv6",
        (_, true) => "this host will forward IPv4 and IPv6 from the first pod with a network on",
        (_, false) => "this host will forward IPv4 from the first pod with a network on, and has no IPv6",
    };
    check("forwarding", ALL, found.into(), None)
}

fn warning(way_out: &str) -> Option<(Verdict, String)> {
    Some((Verdict::Warning, way_out.to_owned()))
}

fn data_directory(host: &Host) -> Check {
    // A directory that is not there yet is made by the first pod, where its parent allows it.
    let existing = host.dir.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let writable = nix::unistd::access(existing, nix::unistd::AccessFlags::W_OK).is_ok();
    let trouble =
        (!writable).then(|| (Verdict::Failed, "choose another with --dir, or run hull as its owner".into()));
    let found = format!("{} is {}writable", existing.display(), if writable { "" } else { "not " });
    check("data directory", ALL, found, trouble)
}

fn print_plain(report: &Report) {
    for check in &report.checks {
        let mark = match check.verdict {
            Verdict::Ok => "ok     ",
            Verdict::Warning => "warning",
            Verdict::Failed => "FAILED ",
        };
        println!("{mark}  {}: {}", check.name, check.found);
        if let Some(way_out) = &check.way_out {
            println!("         {way_out}");
        }
    }
    println!();
    for flavour in ALL {
        let usable = if report.usable.contains(&flavour.as_str()) { "usable" } else { "not usable" };
        println!("--stage1={}: {usable}", flavour.as_str());
    }
}

//! How much TCP goes through a guest's network device, on hull's VMM and on QEMU: iperf3 in the guest and on its
//! host, a tap between them, each way. Where the clock counts instructions, a throughput is one per instruction.
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

use hull_errors::Doing;
use serde_json::{Value, json};

use super::options::Host;
use super::place::libraries;
use crate::error::{Error, Kind, Result};
use crate::lab::Archive;
use crate::paths::Paths;
use crate::test::{Doctor, doctor};
use crate::tool::{self, say};
use crate::{build, install, lab};

const PACKAGES: &[&str] = &["busybox-static", "iperf3", "iproute2", "libc-bin", "qemu-system-x86"];
const LAB_TIMEOUT: &str = "1500";
/// A tmpfs on every Linux with glibc, shm_overview(7).
const MEMORY: &str = "/dev/shm";

const BUSYBOX: &str = "/bin/busybox";
const IPERF: &str = "/usr/bin/iperf3";
const QEMU: &str = "qemu-system-x86_64";
/// What goes each way, once the connection has found its speed in the first part of it.
const BYTES: &str = "96M";
/// What hull wants to reach, against QEMU.
const AIM: f64 = 1.2;

/// As `contender.rs` has it, less the disk and with a network card.
const MACHINE: &str = "microvm,acpi=off,x-option-roms=off,pit=off,pic=off,rtc=off,isa-serial=off";
const KERNEL_LINE: &str = "panic=-1 reboot=t tsc=reliable no_timer_check noreplace-smp random.trust_cpu=on \
    rcupdate.rcu_expedited=1 quiet loglevel=0 8250.nr_uarts=0";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contender {
    Hull,
    Qemu,
}

/// Bits in a second of the host's clock.
#[derive(Clone, Copy, Debug)]
struct Throughput {
    from_guest: f64,
    to_guest: f64,
}

/// The outer side: builds, chooses the host.
pub(super) fn run(json: bool, paths: &Paths) -> Result<ExitCode> {
    install::ensure(PACKAGES)?;
    let programs = build::installation(paths)?;
    // The VMM without pods: a kernel, an initramfs and a tap.
    tool::run(&mut tool::cargo(paths, &["build", "--release", "--package=hull-vmm", "--example=boot"]))?;
    let host = match doctor(&programs)? {
        Doctor::Kvm => return inside(Host::Native, &programs, json),
        Doctor::NoKvm(reason) => {
            say(format_args!("VMs cannot run on this host ({reason}): measuring in the lab"));
            Host::Lab
        }
    };
    let mut words = ["--icount", "--timeout", LAB_TIMEOUT, "--"].map(str::to_owned).to_vec();
    words.push(paths.program.display().to_string());
    words.extend(["bench", "inside-net", host.name()].map(str::to_owned));
    words.push(programs.display().to_string());
    words.extend(json.then(|| "--json".to_owned()));
    lab::run(&words, paths)
}

/// The inner side: measures.
pub(super) fn inside(host: Host, programs: &Path, json: bool) -> Result<ExitCode> {
    let bench = Bench::build(programs)?;
    let hull = bench.measure(Contender::Hull, 0)?;
    let qemu = bench.measure(Contender::Qemu, 1)?;
    let text = if json { format!("{}\n", report(host, hull, qemu)) } else { table(host, hull, qemu) };
    io::stdout().lock().write_all(text.as_bytes()).doing(Kind::Failed, || "print the figures".into())?;
    Ok(ExitCode::SUCCESS)
}

/// What both boot, in memory; goes with its owner.
struct Bench {
    folder: PathBuf,
    boot: PathBuf,
    kernel: PathBuf,
}

impl Bench {
    fn build(programs: &Path) -> Result<Self> {
        let folder = Path::new(MEMORY).join(format!("hull-bench-net-{}", std::process::id()));
        fs::create_dir_all(&folder).doing(Kind::Failed, || format!("create {}", folder.display()))?;
        Ok(Self { folder, boot: programs.join("examples/boot"), kernel: programs.join("vmlinux") })
    }

    /// Contender number `index` has a network of that number with its host.
    fn measure(&self, contender: Contender, index: u8) -> Result<Throughput> {
        say(format_args!("measuring {contender:?}"));
        let tap = format!("tap{index}");
        ip(&["tuntap", "add", "dev", &tap, "mode", "tap", "vnet_hdr"])?;
        ip(&["addr", "add", &format!("10.9.{index}.1/24"), "dev", &tap])?;
        ip(&["link", "set", &tap, "up"])?;
        let servers = [Server::start(5201)?, Server::start(5202)?];
        let mut command = match contender {
            Contender::Hull => self.hull(&tap, index)?,
            Contender::Qemu => self.qemu(&tap, index)?,
        };
        // A guest that resets ends hull's example with 124, and QEMU with 0; iperf3 says how it went.
        let doing = format!("run {}", tool::shown(&command));
        let said = command.stdin(Stdio::null()).output().doing(Kind::Failed, || doing)?;
        let [from_guest, to_guest] = servers.map(Server::finish);
        let explain =
            |err| Error::because(Kind::Failed, format!("measure {contender:?}, which said {said:?}"), err);
        let from_guest = from_guest.map_err(explain)?;
        let to_guest = to_guest.map_err(explain)?;
        ip(&["link", "delete", &tap])?;
        Ok(Throughput {
            from_guest: speed(&from_guest, "sum_received")?,
            to_guest: speed(&to_guest, "sum_sent")?,
        })
    }

    /// Files of the initramfs by their paths in it, but for the first program.
    fn files() -> Result<Vec<(String, PathBuf)>> {
        let ldd = tool::read(Command::new("ldd").arg(IPERF))?;
        let loader = ldd.lines().find_map(|line| line.trim().strip_prefix("/lib64/")?.split(' ').next());
        let loader = loader.ok_or_else(|| Error::new(Kind::Failed, "read what ldd says"))?;
        let mut files = vec![
            ("bin/busybox".to_owned(), BUSYBOX.into()),
            ("bin/iperf3".to_owned(), IPERF.into()),
            (format!("lib64/{loader}"), Path::new("/lib64").join(loader)),
        ];
        for library in libraries(&ldd) {
            let name = library.file_name().unwrap_or_default().to_string_lossy();
            files.push((format!("lib/{name}"), library.to_path_buf()));
        }
        Ok(files)
    }

    fn init(index: u8) -> String {
        format!(
            "#!/bin/busybox sh
/bin/busybox mkdir -p /proc /dev /tmp
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t tmpfs tmp /tmp
/bin/busybox ip link set lo up
/bin/busybox ip addr add 10.9.{index}.2/24 dev eth0
/bin/busybox ip link set eth0 up
export LD_LIBRARY_PATH=/lib
/bin/iperf3 -c 10.9.{index}.1 -p 5201 -n {BYTES}
/bin/iperf3 -c 10.9.{index}.1 -p 5202 -n {BYTES} -R
/bin/busybox reboot -f
"
        )
    }

    fn hull(&self, tap: &str, index: u8) -> Result<Command> {
        let init = self.folder.join("init");
        write(&init, Self::init(index).as_bytes())?;
        let mut command = Command::new(&self.boot);
        command.arg(&self.kernel).arg(format!("init={}", init.display())).arg(format!("tap={tap}"));
        for (path, file) in Self::files()? {
            command.arg(format!("{path}={}", file.display()));
        }
        Ok(command)
    }

    fn qemu(&self, tap: &str, index: u8) -> Result<Command> {
        let mut archive = Archive::default();
        ["bin", "lib", "lib64"].iter().for_each(|folder| archive.folder(folder));
        archive.program("init", Self::init(index).as_bytes());
        for (path, file) in Self::files()? {
            let bytes = fs::read(&file).doing(Kind::Failed, || format!("read {}", file.display()))?;
            archive.program(&path, &bytes);
        }
        let initramfs = self.folder.join("initramfs");
        write(&initramfs, &archive.finish())?;
        let mut command = Command::new(QEMU);
        command.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]);
        command.args(["-M", MACHINE, "-accel", "kvm", "-cpu", "host", "-smp", "1", "-m", "256M"]);
        command
            .arg("-kernel")
            .arg(&self.kernel)
            .arg("-initrd")
            .arg(&initramfs)
            .args(["-append", KERNEL_LINE]);
        command.args(["-netdev", &format!("tap,id=net,ifname={tap},script=no,downscript=no,vhost=off")]);
        command.args(["-device", "virtio-net-device,netdev=net,mac=02:00:00:00:00:00,host_mtu=1500"]);
        Ok(command)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // What is left is in memory and has our number in its name.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// iperf3 on the host, for one test.
struct Server(Child);

impl Server {
    fn start(port: u16) -> Result<Self> {
        let mut command = Command::new(IPERF);
        command.args(["--server", "--one-off", "--json", "--port", &port.to_string()]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        Ok(Self(child.doing(Kind::Failed, || format!("start {IPERF}"))?))
    }

    /// The guest is over: so is the test, or it never began.
    fn finish(mut self) -> Result<Value> {
        let mut output = Vec::new();
        if let Some(mut stdout) = self.0.stdout.take() {
            // A server that nobody came to waits for ever.
            let quiet = self.0.try_wait().doing(Kind::Failed, || format!("wait for {IPERF}"))?.is_none();
            if quiet {
                std::thread::sleep(std::time::Duration::from_secs(1));
                let _ = self.0.kill(); // It may have ended in that second.
            }
            io::Read::read_to_end(&mut stdout, &mut output)
                .doing(Kind::Failed, || format!("listen to {IPERF}"))?;
        }
        serde_json::from_slice(&output).doing(Kind::Failed, || format!("read what {IPERF} says"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Either fails only when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn speed(said: &Value, direction: &str) -> Result<f64> {
    let speed = said["end"][direction]["bits_per_second"].as_f64().filter(|speed| 0.0 < *speed);
    speed.ok_or_else(|| Error::new(Kind::Failed, format!("find a speed in what {IPERF} says: {said}")))
}

fn ip(words: &[&str]) -> Result<()> {
    tool::run(Command::new("/sbin/ip").args(words))
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).doing(Kind::Failed, || format!("write {}", path.display()))
}

fn report(host: Host, hull: Throughput, qemu: Throughput) -> Value {
    let figures =
        |t: Throughput| json!({ "from_guest_bits_per_s": t.from_guest, "to_guest_bits_per_s": t.to_guest });
    json!({
        "host": host.name(),
        "hull-vmm": figures(hull),
        "peers": { "qemu-microvm": figures(qemu) },
        "ratio": { "from_guest": hull.from_guest / qemu.from_guest, "to_guest": hull.to_guest / qemu.to_guest },
        "aim": AIM,
    })
}

fn table(host: Host, hull: Throughput, qemu: Throughput) -> String {
    let row = |name: &str, hull: f64, qemu: f64| {
        format!("{name:<22}{:>10.0}{:>10.0}{:>8.2}\n", hull / 1e6, qemu / 1e6, hull / qemu)
    };
    let unit = match host {
        Host::Lab => "Mbit per 10^9 instructions",
        Host::Native => "Mbit/s",
    };
    format!("{unit}, TCP\n{:<22}{:>10}{:>10}{:>8}\n", "", "hull", "qemu", "ratio")
        + &row("from the guest", hull.from_guest, qemu.from_guest)
        + &row("to the guest", hull.to_guest, qemu.to_guest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_told_in_words_and_as_json() {
        let hull = Throughput { from_guest: 3e9, to_guest: 2e9 };
        let qemu = Throughput { from_guest: 2e9, to_guest: 2e9 };
        assert!(
            table(Host::Lab, hull, qemu).contains("from the guest              3000      2000    1.50\n")
        );
        assert_eq!(report(Host::Native, hull, qemu)["ratio"]["to_guest"], 1.0);
    }

    #[test]
    fn a_test_without_traffic_is_no_figure() {
        let said = json!({ "end": { "sum_sent": { "bits_per_second": 0.0 } } });
        assert!(speed(&said, "sum_sent").is_err() && speed(&said, "sum_received").is_err());
        let said = json!({ "end": { "sum_sent": { "bits_per_second": 7.5 } } });
        assert!((speed(&said, "sum_sent").unwrap() - 7.5).abs() < f64::EPSILON);
    }

    #[test]
    fn both_kernels_are_told_the_same() {
        let contender = include_str!("contender.rs");
        let line = |text: &str| {
            text.split_once("KERNEL_LINE: &str = ").unwrap().1.split_once(';').unwrap().0.to_owned()
        };
        assert_eq!(line(contender), line(include_str!("net.rs")));
    }
}

//! The emulated host's machine: QEMU's arguments, and the process that dies with us.
use std::io::{self, PipeReader};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use hull_errors::Doing;

use super::options::Options;
use crate::error::{Kind, Result};
use crate::tool;

pub(crate) const PACKAGES: &[&str] = &["binutils", "qemu-system-x86", "util-linux"];

/// AMD's SVM with nested paging is what QEMU emulates. It does not intercept XSETBV under SVM, so
/// XSAVE and all of AVX go, or a guest's state is corrupted; with ERMS, `rep stosb` is emulated
/// byte by byte; five-level paging only slows the walks.
const CPU: &str =
    "max,-la57,-erms,-xsave,-xsaveopt,-xgetbv1,-avx,-avx2,-f16c,-fma,-mpx,-pku,-vaes,-vpclmulqdq";

/// `kvm.tsc_tolerance_ppm`: without constant TSC, KVM remembers the TSC's frequency as it was when KVM
/// started, and calls a guest that runs at the refined one too fast for this host; its time then stands
/// still for KVM, and each of its timers comes seconds late. The two always are one clock here.
/// SELinux is compiled in and waits for `--append selinux=1`: the later word wins.
const KERNEL_LINE: &str = "console=ttyS0 quiet panic=-1 nokaslr mitigations=off tsc=reliable no_timer_check \
    nowatchdog rcupdate.rcu_expedited=1 cryptomgr.notests audit=0 random.trust_cpu=1 selinux=0 \
    kvm.tsc_tolerance_ppm=500000";

/// 9p tags of the machine's own root, read-only, and of the exchange folder.
pub(crate) const ROOT_TAG: &str = "root";
pub(crate) const EXCHANGE_TAG: &str = "exchange";

/// A running QEMU. Dropping it kills it; so does our own death.
pub(crate) struct Machine {
    child: Child,
    /// Frames, both ways.
    pub(crate) port: UnixStream,
    /// The serial console and QEMU's own complaints.
    pub(crate) console: PipeReader,
}

pub(crate) struct Files<'a> {
    pub(crate) kernel: &'a Path,
    /// A memory file that holds the boot archive.
    pub(crate) archive: OwnedFd,
    pub(crate) exchange: &'a Path,
}

impl Machine {
    pub(crate) fn start(options: &Options, files: &Files<'_>) -> Result<Self> {
        let start = || "start the emulated host".to_owned();
        let (port, far) = UnixStream::pair().doing(Kind::Lab, start)?;
        let (console, output) = io::pipe().doing(Kind::Lab, start)?;
        let errors = output.try_clone().doing(Kind::Lab, start)?;
        for fd in [far.as_fd(), files.archive.as_fd()] {
            tool::inherit(fd).doing(Kind::Lab, start)?;
        }
        // QEMU dies with the thread that started it: the main thread, so with the process.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "qemu-system-x86_64"]).args(arguments(options, files, &far));
        let child =
            command.stdin(Stdio::null()).stdout(output).stderr(errors).spawn().doing(Kind::Lab, start)?;
        Ok(Self { child, port, console })
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Either fails only when QEMU is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn arguments(options: &Options, files: &Files<'_>, port: &UnixStream) -> Vec<String> {
    let accelerator = match options.icount {
        true => "tcg,thread=single",
        false => "tcg,thread=multi",
    };
    // Calibrating the local timer against a counted clock takes 15 s and fails.
    let clock = if options.icount { "noapictimer" } else { "" };
    let line = format!("{KERNEL_LINE} {clock} {}", options.append.join(" "));
    let export = |id, path: &str, flags| {
        format!("local,id={id},path={path},security_model=none,multidevs=remap{flags}")
    };
    let mut all = words("-nodefaults -no-user-config -display none -no-reboot -serial stdio -M q35");
    let mut add = |name: &str, value: String| all.extend([name.to_owned(), value]);
    add("-accel", accelerator.into());
    if options.icount {
        add("-icount", "shift=0".into());
    }
    add("-cpu", CPU.into());
    add("-smp", options.cpus.to_string());
    add("-m", format!("{}M", options.memory_mib));
    add("-kernel", files.kernel.display().to_string());
    add("-initrd", format!("/proc/self/fd/{}", files.archive.as_raw_fd()));
    add("-append", line);
    add("-fsdev", export(ROOT_TAG, "/", ",readonly=on"));
    add("-device", format!("virtio-9p-pci,fsdev={ROOT_TAG},mount_tag={ROOT_TAG}"));
    add("-fsdev", export(EXCHANGE_TAG, &doubled_commas(files.exchange), ""));
    add("-device", format!("virtio-9p-pci,fsdev={EXCHANGE_TAG},mount_tag={EXCHANGE_TAG}"));
    add("-chardev", format!("socket,id=port,fd={}", port.as_raw_fd()));
    add("-device", "virtio-serial-pci".into());
    add("-device", "virtserialport,chardev=port".into());
    add("-device", "virtio-rng-pci".into());
    all
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

/// QEMU's way to write a comma inside an option.
fn doubled_commas(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

//! Whether this host's KVM can run a stock Linux, found out without starting one.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::path::Path;

/// KVM modules that run only guests made for them, and what their guests are.
const UNFIT_MODULES: [(&str, &str); 1] = [("kvm_pvm", "guests with a page-table interface of its own")];

/// What was found. Everything but `Usable` says why a VM pod cannot run here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kvm {
    Usable,
    NoDevice { cpu_could: bool },
    NotPermitted,
    NoExtension,
    Unfit { module: &'static str, guests: &'static str },
    Broken(String),
}

impl Kvm {
    /// Looks at the device, the CPU and the module; a few system calls, below a millisecond.
    pub(crate) fn look() -> Self {
        Self::look_in(Path::new("/"))
    }

    fn look_in(root: &Path) -> Self {
        let cpu_could = has_extension(&root.join("proc/cpuinfo"));
        match OpenOptions::new().read(true).write(true).open(root.join("dev/kvm")) {
            Ok(_) => (),
            Err(why) if why.kind() == ErrorKind::NotFound => return Self::NoDevice { cpu_could },
            Err(why) if why.kind() == ErrorKind::PermissionDenied => return Self::NotPermitted,
            Err(why) => return Self::Broken(why.to_string()),
        }
        let loaded = |(module, _): &&(&str, &str)| root.join("sys/module").join(module).exists();
        match UNFIT_MODULES.iter().find(loaded) {
            Some((module, guests)) => Self::Unfit { module, guests },
            None if !cpu_could => Self::NoExtension,
            None => Self::Usable,
        }
    }

    pub(crate) fn is_usable(&self) -> bool {
        *self == Self::Usable
    }

    /// Why it is not usable.
    pub(crate) fn problem(&self) -> String {
        match self {
            Self::Usable => "KVM is usable".into(),
            Self::NoDevice { .. } => "there is no /dev/kvm".into(),
            Self::NotPermitted => "/dev/kvm may not be opened by this user".into(),
            Self::NoExtension => "/dev/kvm is there, but the CPU shows neither vmx nor svm".into(),
            Self::Unfit { module, guests } => {
                format!("the KVM of this host ({module}) cannot run a stock Linux, only {guests}")
            }
            Self::Broken(why) => format!("/dev/kvm cannot be opened: {why}"),
        }
    }

    /// What to do about it.
    pub(crate) fn way_out(&self) -> &'static str {
        match self {
            Self::Usable => "",
            Self::NoDevice { cpu_could: true } => "load the module: modprobe kvm_intel, or kvm_amd",
            Self::NoDevice { cpu_could: false } => {
                "switch on virtualisation in the firmware, or nested virtualisation for this machine"
            }
            Self::NotPermitted => {
                "join the group that owns /dev/kvm (usually: usermod -aG kvm USER), or be root"
            }
            Self::NoExtension => "switch on nested virtualisation for this machine",
            Self::Unfit { .. } => "use a host whose KVM has hardware virtualisation",
            Self::Broken(_) => "see the kernel's log for what is wrong with KVM",
        }
    }
}

/// `vmx` or `svm` among the first CPU's flags; all CPUs of a host have the same, and a big host's file
/// takes milliseconds to print.
fn has_extension(cpuinfo: &Path) -> bool {
    let mut text = String::new();
    let read = File::open(cpuinfo).and_then(|file| file.take(8192).read_to_string(&mut text));
    let flags = text.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    read.is_ok() && flags.split_ascii_whitespace().any(|flag| flag == "vmx" || flag == "svm")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    struct FakeHost(PathBuf);

    impl FakeHost {
        fn new(name: &str, flags: &str, files: &[&str]) -> Self {
            let root = std::env::temp_dir().join(format!("hull-kvm-{}-{name}", std::process::id()));
            for dir in ["proc", "dev", "sys/module"] {
                fs::create_dir_all(root.join(dir)).unwrap();
            }
            fs::write(root.join("proc/cpuinfo"), format!("processor\t: 0\nflags\t\t: fpu {flags} sse\n"))
                .unwrap();
            files.iter().for_each(|file| fs::write(root.join(file), "").unwrap());
            Self(root)
        }
    }

    impl Drop for FakeHost {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn every_kind_of_host_is_told_apart() {
        let check = |name, flags, files: &[&str], want: Kvm| {
            assert_eq!(Kvm::look_in(&FakeHost::new(name, flags, files).0), want, "{name}");
        };
        check("intel", "vmx", &["dev/kvm"], Kvm::Usable);
        check("amd", "svm", &["dev/kvm"], Kvm::Usable);
        check("unloaded", "svm", &[], Kvm::NoDevice { cpu_could: true });
        check("cloud", "avx", &[], Kvm::NoDevice { cpu_could: false });
        check("odd", "avx", &["dev/kvm"], Kvm::NoExtension);
        let (module, guests) = UNFIT_MODULES[0];
        check("pvm", "avx", &["dev/kvm", "sys/module/kvm_pvm"], Kvm::Unfit { module, guests });
    }

    #[test]
    fn every_problem_has_a_way_out() {
        let problems = [
            Kvm::NoDevice { cpu_could: true },
            Kvm::NoDevice { cpu_could: false },
            Kvm::NotPermitted,
            Kvm::NoExtension,
            Kvm::Unfit { module: "kvm_pvm", guests: "its own" },
            Kvm::Broken("EIO".into()),
        ];
        for problem in problems {
            assert!(!problem.way_out().is_empty() && !problem.is_usable(), "{problem:?}");
        }
    }
}

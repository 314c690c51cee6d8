//! Whether this host can run guests at all, found out before anything is built.
#![forbid(unsafe_code)]

use kvm_ioctls::{Cap, Kvm};

use crate::error::{Error, Kind};

/// The only version there is, Documentation/virt/kvm/api.rst.
const API_VERSION: i32 = 12;

/// What every machine needs of KVM.
const NEEDED: [(Cap, &str); 6] = [
    (Cap::UserMemory, "user memory"),
    (Cap::SplitIrqchip, "a split interrupt controller"),
    (Cap::SignalMsi, "message signalled interrupts"),
    (Cap::ExtCpuid, "CPUID of the guest's own"),
    (Cap::SetTssAddr, "a TSS address"),
    (Cap::SetIdentityMapAddr, "an identity map address"),
];

/// Says whether guests can run here: `/dev/kvm`, its abilities, and a tiny guest.
///
/// # Errors
/// `NoKvm`, `NotPermitted` or `UnfitKvm`, with what would help.
pub fn probe() -> Result<(), Error> {
    open().map(|_| ())
}

/// Opens KVM and checks that it can do what every machine needs.
pub(crate) fn open() -> Result<Kvm, Error> {
    let kvm = Kvm::new().map_err(|err| {
        let source = std::io::Error::from_raw_os_error(err.errno());
        match err.errno() {
            libc::ENOENT | libc::ENXIO | libc::ENODEV => Error::because(
                Kind::NoKvm,
                "open /dev/kvm (virtualisation is off in the firmware, or the kvm module is not loaded)",
                source,
            ),
            libc::EACCES | libc::EPERM => {
                Error::because(Kind::NotPermitted, "open /dev/kvm (join the group kvm, or be root)", source)
            }
            _ => Error::because(Kind::Host, "open /dev/kvm", source),
        }
    })?;
    let version = kvm.get_api_version();
    if version != API_VERSION {
        return Err(Error::new(Kind::UnfitKvm, format!("use KVM: its API has version {version}, not 12")));
    }
    match NEEDED.iter().find(|(cap, _)| !kvm.check_extension(*cap)) {
        None => Ok(kvm),
        Some((_, name)) => Err(Error::new(Kind::UnfitKvm, format!("use KVM: it lacks {name}"))),
    }
}

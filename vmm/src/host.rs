//! The two device files that every machine needs, opened while paths may still be opened.
#![forbid(unsafe_code)]

use std::fs::File;

use hull_errors::Doing;

use crate::error::{Error, Kind};

/// What a machine wants of its host, as open files.
#[derive(Debug)]
pub struct HostFiles {
    /// `/dev/kvm`.
    pub kvm: File,
    /// `/dev/urandom`, which never ends.
    pub entropy: File,
}

impl HostFiles {
    /// Opens them.
    ///
    /// # Errors
    /// `NoKvm` and `NotPermitted` with what would help; `Host`.
    pub fn open() -> Result<Self, Error> {
        let kvm = File::options().read(true).write(true).open("/dev/kvm").map_err(cannot_open_kvm)?;
        let entropy = File::open("/dev/urandom").doing(Kind::Host, || "open /dev/urandom".to_owned())?;
        Ok(Self { kvm, entropy })
    }
}

fn cannot_open_kvm(why: std::io::Error) -> Error {
    let (kind, what) = match why.raw_os_error() {
        Some(libc::ENOENT | libc::ENXIO | libc::ENODEV) => (
            Kind::NoKvm,
            "open /dev/kvm (load the module kvm_intel or kvm_amd; is virtualisation on in the firmware?)",
        ),
        Some(libc::EACCES | libc::EPERM) => {
            (Kind::NotPermitted, "open /dev/kvm (be root or in the group kvm)")
        }
        _ => (Kind::Host, "open /dev/kvm"),
    };
    Error::because(kind, what, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_its_kind() {
        for (errno, kind) in [
            (libc::ENOENT, Kind::NoKvm),
            (libc::ENODEV, Kind::NoKvm),
            (libc::EACCES, Kind::NotPermitted),
            (libc::EMFILE, Kind::Host),
        ] {
            assert_eq!(*cannot_open_kvm(std::io::Error::from_raw_os_error(errno)).kind(), kind);
        }
    }
}

//! What a tap has to be told before the guest runs; from then on it is only read and written.
#![expect(
    unsafe_code,
    reason = "neither std nor a crate that we use wraps the ioctls of taps (linux/if_tun.h)"
)]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;

use hull_errors::Doing;
use vmm_sys_util::ioctl::{ioctl_with_mut_ref, ioctl_with_ref, ioctl_with_val};

use crate::device::virtio::net::HEAD_SIZE;
use crate::error::{Error, Kind};

/// Frames as they are on a wire, behind a header that says what is left to do for them.
const FLAGS: i32 = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
/// What the guest takes from the host: unfinished checksums, unsplit TCP.
const FROM_HOST: u32 = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6;

/// A tap that is ready for the network device.
#[derive(Debug)]
pub(crate) struct Tap {
    pub file: File,
    /// The host's kernel splits UDP: Linux 6.2 and later.
    pub splits_udp: bool,
}

/// Attaches to the tap `name` of this network namespace, as [`crate::Net`] wants it. One that does not exist
/// is made, and is gone with the last copy of the file.
///
/// # Errors
/// `Config` for a name that no interface can have; `NotPermitted` without the right to; `Host`.
pub fn open_tap(name: &str) -> Result<File, Error> {
    let doing = || format!("attach to the tap {name}");
    let mut request = request();
    // With its NUL.
    if name.is_empty() || request.ifr_name.len() <= name.len() || name.contains('\0') {
        return Err(Error::new(Kind::Config, doing()));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = FLAGS as i16;
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC);
    let tap = options.open("/dev/net/tun").doing(Kind::Host, || "open /dev/net/tun".to_owned())?;
    // SAFETY: the kernel reads and writes a `struct ifreq`, which lives for the call.
    match succeed(unsafe { ioctl_with_mut_ref(&tap, libc::TUNSETIFF, &mut request) }) {
        Ok(()) => Ok(tap),
        Err(err) if err.kind() == io::ErrorKind::PermissionDenied => {
            Err(err).doing(Kind::NotPermitted, doing)
        }
        Err(err) => Err(err).doing(Kind::Host, doing),
    }
}

impl Tap {
    /// # Errors
    /// `InvalidInput` if the file is no tap, or was not opened with the flags of [`open_tap`].
    pub(crate) fn prepare(file: File) -> io::Result<Self> {
        let mut request = request();
        // SAFETY: the kernel writes a `struct ifreq`, which lives for the call.
        succeed(unsafe { ioctl_with_mut_ref(&file, libc::TUNGETIFF, &mut request) })
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "it is no tap"))?;
        // SAFETY: TUNGETIFF fills in the flags; every bit pattern is a valid i16.
        let flags = unsafe { request.ifr_ifru.ifru_flags };
        if i32::from(flags) & FLAGS != FLAGS {
            let why = "it was not opened with IFF_TAP, IFF_NO_PI and IFF_VNET_HDR";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        set(&file, libc::TUNSETVNETHDRSZ, HEAD_SIZE as i32)?;
        set(&file, libc::TUNSETVNETLE, 1)?;
        // Only to see whether the kernel knows the words: the guest does not take unsplit UDP.
        let splits_udp = offload(&file, FROM_HOST | libc::TUN_F_USO4 | libc::TUN_F_USO6).is_ok();
        offload(&file, FROM_HOST)?;
        let on: libc::c_int = 1;
        // SAFETY: the kernel reads an int, which lives for the call.
        succeed(unsafe { ioctl_with_ref(&file, libc::FIONBIO, &on) })?;
        Ok(Self { file, splits_udp })
    }
}

fn request() -> libc::ifreq {
    libc::ifreq { ifr_name: [0; libc::IFNAMSIZ], ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: 0 } }
}

fn set(file: &File, request: libc::Ioctl, value: libc::c_int) -> io::Result<()> {
    // SAFETY: these requests read an int, which lives for the call.
    succeed(unsafe { ioctl_with_ref(file, request, &value) })
}

fn offload(file: &File, what: u32) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes a number and touches no memory of ours.
    succeed(unsafe { ioctl_with_val(file, libc::TUNSETOFFLOAD, what.into()) })
}

fn succeed(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_tap_with_headers_is_a_tap() {
        let err = Tap::prepare(tempfile::tempfile().unwrap()).unwrap_err();
        assert!(err.to_string().contains("no tap"), "{err}");
        // Opened, but attached to nothing.
        assert!(Tap::prepare(OpenOptions::new().read(true).open("/dev/net/tun").unwrap()).is_err());
        for name in ["", "sixteen-letters-", "a\0b"] {
            assert_eq!(*open_tap(name).unwrap_err().kind(), Kind::Config, "{name:?}");
        }
    }

    #[test]
    fn a_tap_is_prepared_and_gone_with_its_file() {
        let name = format!("hv{}", std::process::id());
        let tap = Tap::prepare(open_tap(&name).unwrap()).unwrap();
        let folder = std::path::PathBuf::from(format!("/sys/class/net/{name}"));
        assert_eq!(std::fs::read_to_string(folder.join("tun_flags")).unwrap().trim(), "0x5002");
        drop(tap);
        assert!(!folder.exists());
    }
}

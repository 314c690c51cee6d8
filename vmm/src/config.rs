//! What a machine shall be: asked by the caller, checked once, read-only from then on.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use hull_errors::Doing;

use crate::boot::initramfs::InitramfsFile;
use crate::device::limit::{Gate, Limits};
use crate::device::virtio::block;
use crate::device::virtio::fs::TAG_MAX;
use crate::device::virtio::net::{Address, Gates};
use crate::error::{Error, Kind};
use crate::host::HostFiles;
use crate::layout::{DEVICES_MAX, IMAGE_SIZE_MAX, RAM_MIB_MAX, RAM_MIB_MIN, VCPUS_MAX};
use crate::tap::Tap;

/// A machine as the caller wants it. Everything is an open file: the machine opens no path.
#[derive(Debug)]
pub struct Asked {
    pub host: HostFiles,
    /// 1 to [`VCPUS_MAX`].
    pub vcpus: u8,
    /// [`RAM_MIB_MIN`] to [`RAM_MIB_MAX`].
    pub ram_mib: u32,
    /// An uncompressed kernel (vmlinux).
    pub kernel: File,
    /// Files of the initramfs; none at all is no initramfs.
    pub initramfs: Vec<InitramfsFile>,
    /// Words to add to the kernel's command line, behind those that the machine needs.
    pub cmdline: String,
    /// `/dev/vda`, `/dev/vdb`, and so on.
    pub disks: Vec<Disk>,
    /// A socket device; the guest is [`crate::GUEST_CID`].
    pub vsock: Option<Vsock>,
    /// An entropy device, beside the seed that every guest gets at boot.
    pub rng: bool,
    /// `eth0`, `eth1`, and so on.
    pub net: Vec<Net>,
    /// Where the serial console goes. Without it the kernel is silent, and boots faster.
    pub console: Option<File>,
}

impl Asked {
    /// Everything that is open for the machine.
    pub(crate) fn files(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        // All of them by name: a file that is left out here is closed in the jail.
        let Self {
            host,
            kernel,
            initramfs,
            disks,
            vsock,
            net,
            console,
            vcpus: _,
            ram_mib: _,
            cmdline: _,
            rng: _,
        } = self;
        let ports = vsock.iter().flat_map(|vsock| &vsock.ports);
        let files = [&host.kvm, &host.entropy, kernel].into_iter().chain(console);
        let files = files.chain(initramfs.iter().map(|entry| &entry.file));
        let files = files.chain(disks.iter().map(|disk| &disk.file));
        let files = files.chain(net.iter().map(|net| &net.tap));
        files.map(File::as_fd).chain(ports.map(|port| port.stream.as_fd()))
    }

    /// Length of the longest file that the machine may write, in bytes.
    pub(crate) fn longest_file(&self) -> u64 {
        if self.console.is_some() {
            // A file of any length.
            return u64::MAX;
        }
        let disks = self.disks.iter().filter(|disk| !disk.read_only);
        disks.map(|disk| disk.file.metadata().map_or(u64::MAX, |data| data.len())).max().unwrap_or(0)
    }
}

/// A file or a block device as a disk.
#[derive(Debug)]
pub struct Disk {
    pub file: File,
    pub read_only: bool,
}

/// The ports of the host that the guest can connect to.
#[derive(Debug)]
pub struct Vsock {
    pub ports: Vec<VsockPort>,
}

/// A port and the socket that becomes its one connection. Bytes the other end does not read are held, at
/// most 128 KiB; when the machine ends, what is held is still delivered to a reader that keeps reading.
#[derive(Debug)]
pub struct VsockPort {
    pub port: u32,
    pub stream: UnixStream,
}

/// A tap as a network interface.
#[derive(Debug)]
pub struct Net {
    /// Attached with IFF_TAP, IFF_NO_PI and IFF_VNET_HDR, as [`crate::open_tap`] does it. Its header size and
    /// offloads are set by us.
    pub tap: File,
    /// The guest's address: not a group's.
    pub mac: [u8; 6],
    /// Without it the guest decides; 68 at least.
    pub mtu: Option<u16>,
}

/// Least MTU: what IPv4 needs (RFC 791), and the limit of the standard (section 5.1.4.1).
const MTU_MIN: u16 = 68;

/// A directory of the host's that the guest mounts by its tag (`mount -t virtiofs TAG DIR`).
#[derive(Debug)]
pub struct Filesystem {
    /// 1 to 36 bytes.
    pub tag: String,
    /// The other end is a vhost-user server of the directory. It can read and write all of the guest's RAM, and its
    /// end is the machine's end.
    pub server: UnixStream,
}

/// A disk whose size is known.
#[derive(Debug)]
pub(crate) struct SizedDisk {
    pub file: File,
    pub read_only: bool,
    pub sectors: u64,
    pub limits: Limits,
}

/// A network interface whose tap is ready.
#[derive(Debug)]
pub(crate) struct PreparedNet {
    pub tap: Tap,
    pub address: Address,
    pub gates: Gates,
}

/// A read-only image whose size is known.
#[derive(Debug)]
pub(crate) struct SizedImage {
    pub file: File,
    pub bytes: u64,
}

/// A machine that can be built.
#[derive(Debug)]
pub struct VmConfig {
    pub(crate) host: HostFiles,
    pub(crate) vcpus: u8,
    pub(crate) ram_mib: u32,
    pub(crate) kernel: File,
    pub(crate) initramfs: Vec<InitramfsFile>,
    pub(crate) cmdline: String,
    pub(crate) disks: Vec<SizedDisk>,
    pub(crate) images: Vec<SizedImage>,
    pub(crate) vsock: Option<Vec<(u32, UnixStream)>>,
    pub(crate) rng: bool,
    pub(crate) net: Vec<PreparedNet>,
    pub(crate) console: Option<File>,
    /// How many MiB the guest shall do without.
    pub(crate) balloon: Option<u32>,
    pub(crate) filesystems: Vec<Filesystem>,
}

impl TryFrom<Asked> for VmConfig {
    type Error = Error;

    fn try_from(asked: Asked) -> Result<Self, Error> {
        within("vCPUs", asked.vcpus.into(), 1, VCPUS_MAX.into())?;
        within("MiB of RAM", asked.ram_mib, RAM_MIB_MIN, RAM_MIB_MAX)?;
        let config = Self {
            host: asked.host,
            vcpus: asked.vcpus,
            ram_mib: asked.ram_mib,
            kernel: asked.kernel,
            initramfs: asked.initramfs,
            cmdline: asked.cmdline,
            disks: (0..).zip(asked.disks).map(|(index, disk)| size(index, disk)).collect::<Result<_, _>>()?,
            images: Vec::new(),
            vsock: asked.vsock.map(check_ports).transpose()?,
            rng: asked.rng,
            net: (0..).zip(asked.net).map(|(index, net)| prepare(index, net)).collect::<Result<_, _>>()?,
            console: asked.console,
            balloon: None,
            filesystems: Vec::new(),
        };
        config.check_device_count()?;
        Ok(config)
    }
}

impl VmConfig {
    /// Adds read-only images that the guest sees as persistent memory: `/dev/pmem0`, `/dev/pmem1`, and so
    /// on. With DAX the guest reads the host's page cache, which all machines share. The files must not
    /// become shorter while the machine lives. Each costs the guest 1/64 of its size in RAM.
    ///
    /// # Errors
    /// `Config` for an empty or too large file, or too many devices.
    pub fn with_pmem(mut self, files: Vec<File>) -> Result<Self, Error> {
        for file in files {
            let index = self.images.len();
            let doing = || format!("find out the size of image {index}");
            let bytes = file.metadata().doing(Kind::Config, doing)?.len();
            if bytes == 0 || IMAGE_SIZE_MAX < bytes {
                return Err(bad(&format!(
                    "image {index} has {bytes} bytes, 1 to {IMAGE_SIZE_MAX} are possible"
                )));
            }
            self.images.push(SizedImage { file, bytes });
        }
        self.check_device_count()?;
        Ok(self)
    }

    /// Adds a balloon: RAM that the guest has used and freed goes back to the host. The guest is asked to do
    /// without `target_mib` from the start, and takes that back when it needs it.
    ///
    /// # Errors
    /// `Config` for all the RAM there is, or too many devices.
    pub fn with_balloon(mut self, target_mib: u32) -> Result<Self, Error> {
        if self.ram_mib <= target_mib {
            return Err(bad(&format!("a balloon of {target_mib} MiB in {} MiB of RAM", self.ram_mib)));
        }
        self.balloon = Some(target_mib);
        self.check_device_count()?;
        Ok(self)
    }

    /// Adds file systems of the host's. The guest's RAM is a file then, which the servers map too.
    ///
    /// # Errors
    /// `Config` for a tag that no driver could read, or that is there twice, or too many devices.
    pub fn with_filesystems(mut self, filesystems: Vec<Filesystem>) -> Result<Self, Error> {
        for Filesystem { tag, .. } in &filesystems {
            if tag.is_empty() || TAG_MAX < tag.len() || tag.contains('\0') {
                return Err(bad(&format!("file system {tag:?}: a tag has 1 to {TAG_MAX} bytes")));
            }
            if filesystems.iter().filter(|other| other.tag == *tag).count() > 1 {
                return Err(bad(&format!("file system {tag:?} is there twice")));
            }
        }
        self.filesystems = filesystems;
        self.check_device_count()?;
        Ok(self)
    }

    /// Limits how fast the guest may read and write disk `index`, both together.
    ///
    /// # Errors
    /// `Config` if there is no such disk.
    pub fn limit_disk(mut self, index: usize, limits: Limits) -> Result<Self, Error> {
        let disk =
            self.disks.get_mut(index).ok_or_else(|| bad(&format!("limit disk {index}: there is none")))?;
        disk.limits = limits;
        Ok(self)
    }

    /// Limits how fast frames of network interface `index` may leave and reach the guest. What comes too fast
    /// for the guest waits in the tap, whose queue is short.
    ///
    /// # Errors
    /// `Config` if there is no such interface.
    pub fn limit_net(mut self, index: usize, from_guest: Limits, to_guest: Limits) -> Result<Self, Error> {
        let net = self.net.get_mut(index);
        let net = net.ok_or_else(|| bad(&format!("limit network interface {index}: there is none")))?;
        net.gates = Gates { from_guest: Gate::new(from_guest), to_guest: Gate::new(to_guest) };
        Ok(self)
    }

    fn check_device_count(&self) -> Result<(), Error> {
        let single = [self.vsock.is_some(), self.rng, self.balloon.is_some()]
            .into_iter()
            .filter(|there| *there)
            .count();
        let devices = self.disks.len() + self.images.len() + self.net.len() + self.filesystems.len() + single;
        if DEVICES_MAX < devices {
            return Err(bad(&format!("{devices} devices, at most {DEVICES_MAX} are possible")));
        }
        Ok(())
    }
}

fn bad(what: &str) -> Error {
    Error::new(Kind::Config, format!("configure the machine: {what}"))
}

fn within(what: &str, asked: u32, least: u32, most: u32) -> Result<(), Error> {
    if (least..=most).contains(&asked) {
        return Ok(());
    }
    Err(bad(&format!("{asked} {what}, {least} to {most} are possible")))
}

fn size(index: usize, disk: Disk) -> Result<SizedDisk, Error> {
    let doing = || format!("find out the size of disk {index}");
    // The metadata of a block device knows no size; its end does.
    let bytes = (&disk.file).seek(SeekFrom::End(0)).doing(Kind::Config, doing)?;
    let sectors = block::sectors(bytes)
        .ok_or_else(|| bad(&format!("disk {index} has {bytes} bytes, which are not whole sectors of 512")))?;
    Ok(SizedDisk { file: disk.file, read_only: disk.read_only, sectors, limits: Limits::default() })
}

fn prepare(index: usize, net: Net) -> Result<PreparedNet, Error> {
    let Net { tap, mac, mtu } = net;
    // The lowest bit of the first byte says that it is a group's.
    if mac[0] & 1 != 0 || mac == [0; 6] {
        return Err(bad(&format!("network interface {index} cannot have the address {mac:02x?}")));
    }
    if mtu.is_some_and(|mtu| mtu < MTU_MIN) {
        return Err(bad(&format!("the MTU of network interface {index} is below {MTU_MIN}")));
    }
    let tap = Tap::prepare(tap).doing(Kind::Config, || format!("set up the tap of interface {index}"))?;
    Ok(PreparedNet { tap, address: Address { mac, mtu }, gates: Gates::default() })
}

fn check_ports(vsock: Vsock) -> Result<Vec<(u32, UnixStream)>, Error> {
    let mut ports = Vec::with_capacity(vsock.ports.len());
    for VsockPort { port, stream } in vsock.ports {
        if ports.iter().any(|(other, _)| *other == port) {
            return Err(bad(&format!("vsock port {port} is asked for twice")));
        }
        stream.set_nonblocking(true).doing(Kind::Host, || format!("set up vsock port {port}"))?;
        ports.push((port, stream));
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> Asked {
        // Nobody asks this one for anything.
        let host = HostFiles { kvm: tempfile::tempfile().unwrap(), entropy: tempfile::tempfile().unwrap() };
        Asked {
            host,
            vcpus: 1,
            ram_mib: 64,
            kernel: tempfile::tempfile().unwrap(),
            initramfs: vec![],
            cmdline: String::new(),
            disks: vec![],
            vsock: None,
            rng: false,
            net: vec![],
            console: None,
        }
    }

    fn disk(bytes: u64) -> Disk {
        let file = tempfile::tempfile().unwrap();
        file.set_len(bytes).unwrap();
        Disk { file, read_only: true }
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut Asked), want: &str) {
        let mut asked = asked();
        change(&mut asked);
        let err = VmConfig::try_from(asked).unwrap_err();
        assert_eq!(*err.kind(), Kind::Config);
        assert!(err.to_string().contains(want), "{err}");
    }

    #[test]
    fn limits_are_named() {
        assert!(VmConfig::try_from(asked()).is_ok());
        check(|a| a.vcpus = 0, "0 vCPUs, 1 to 64");
        check(|a| a.vcpus = 65, "65 vCPUs");
        check(|a| a.ram_mib = 31, "31 MiB of RAM, 32 to");
        check(|a| a.ram_mib = u32::MAX, "MiB of RAM");
        check(|a| a.disks = vec![disk(1024), disk(1025)], "disk 1 has 1025 bytes");
        check(|a| a.disks = (0..33).map(|_| disk(512)).collect(), "33 devices");
        let config = || VmConfig::try_from(asked()).unwrap();
        let empty = vec![tempfile::tempfile().unwrap()];
        assert!(config().with_pmem(empty).unwrap_err().to_string().contains("image 0 has 0 bytes"));
        assert!(config().with_balloon(63).is_ok());
        let err = config().with_balloon(64).unwrap_err();
        assert!(err.to_string().contains("a balloon of 64 MiB in 64 MiB of RAM"), "{err}");
        let err = config().limit_disk(0, Limits::default()).unwrap_err();
        assert!(err.to_string().contains("limit disk 0: there is none"), "{err}");
        assert!(config().limit_net(1, Limits::default(), Limits::default()).is_err());
        let many = (0..33).map(|_| disk(512).file).collect();
        assert!(config().with_pmem(many).unwrap_err().to_string().contains("33 devices"));
        let net = |mac, mtu| Net { tap: tempfile::tempfile().unwrap(), mac: [mac, 0, 0, 0, 0, 1], mtu };
        check(|a| a.net = vec![net(2, None)], "set up the tap of interface 0");
        check(|a| a.net = vec![net(1, None)], "interface 0 cannot have the address [01, 00,");
        check(|a| a.net = vec![net(2, Some(67))], "MTU of network interface 0 is below 68");
        let port = |port| VsockPort { port, stream: UnixStream::pair().unwrap().0 };
        check(|a| a.vsock = Some(Vsock { ports: vec![port(5), port(5)] }), "port 5 is asked for twice");
    }
}

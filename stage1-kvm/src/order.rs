//! What the supervisor and the VMM's process say to each other: one order with every file that the machine needs,
//! and reports. Each is one message of JSON on a socket that keeps messages apart.
//!
//! The VMM's process believes its order; what it reports is believed in nothing, as a guest may have taken it over.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hull_vmm::{Asked, Disk, Filesystem, Halt, HostFiles, InitramfsFile, Net, Vsock, VsockPort};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, send, sendmsg, socketpair,
};
use serde::{Deserialize, Serialize};

/// Most files of an order, `SCM_MAX_FD` of include/net/scm.h; the VMM refuses far fewer devices.
const FILES_MAX: usize = 253;
/// Longest message.
const MESSAGE_MAX: usize = 64 << 10;
/// Longest text that is taken over from a report, in characters.
const TEXT_MAX: usize = 1000;

/// A machine without its files, which come beside it in the order of [`Asked`] and behind it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    /// Whom the process shall be, if it may choose.
    id: Option<u32>,
    vcpus: u8,
    ram_mib: u32,
    initramfs: Vec<Entry>,
    cmdline: String,
    /// Of each disk, whether it is read-only.
    disks: Vec<bool>,
    vsock_ports: Option<Vec<u32>>,
    rng: bool,
    net: Vec<Interface>,
    console: bool,
    /// Their tags.
    filesystems: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Interface {
    mac: [u8; 6],
    mtu: Option<u16>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    path: String,
    mode: u32,
}

/// How it went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Report {
    /// There is no guest, or no VMM any more.
    Failed(String),
    /// There is no guest: its kernel cannot be loaded.
    BadKernel(String),
    PowerOff {
        code: u8,
    },
    Reset,
    Fault(String),
}

impl From<Halt> for Report {
    fn from(halt: Halt) -> Self {
        match halt {
            Halt::PowerOff { code } => Self::PowerOff { code },
            Halt::Reset => Self::Reset,
            Halt::Fault(why) => Self::Fault(why),
            Halt::Stopped => Self::Failed("the virtual machine was stopped".into()),
        }
    }
}

/// Two ends: the supervisor's, and standard input of the VMM's process.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// What the VMM's process is to be.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) asked: Asked,
    pub(crate) filesystems: Vec<Filesystem>,
    /// Whom the process shall be, if it may choose.
    pub(crate) id: Option<u32>,
}

/// Sends the order; the files are closed here.
pub(crate) fn give(socket: &OwnedFd, wanted: Wanted) -> io::Result<()> {
    let (order, files) = taken_apart(wanted);
    let fds: Vec<BorrowedFd<'_>> = files.iter().map(AsFd::as_fd).collect();
    let text = serde_json::to_vec(&order)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if text.len() > MESSAGE_MAX || !ancillary.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::Error::other("a machine of so many parts cannot be described"));
    }
    sendmsg(socket, &[IoSlice::new(&text)], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives the order.
pub(crate) fn take(socket: impl AsFd) -> io::Result<Wanted> {
    let mut text = vec![0; MESSAGE_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut buffers = [IoSliceMut::new(&mut text)];
    let len = recvmsg(socket, &mut buffers, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?.bytes;
    let mut files = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(more) = message {
            files.extend(more);
        }
    }
    put_together(serde_json::from_slice(&text[..len])?, files)
}

/// Says how it went. Nobody may be there any more to hear it.
pub(crate) fn report(socket: impl AsFd, report: &Report) {
    let text = serde_json::to_vec(report).expect("a report is plain data");
    let _ = send(socket, &text[..text.len().min(MESSAGE_MAX)], SendFlags::NOSIGNAL); // Then it has gone.
}

/// The next report; `None` if there will be none, or none that makes sense.
pub(crate) fn heard(socket: &OwnedFd) -> Option<Report> {
    let mut text = vec![0; MESSAGE_MAX];
    let (len, _) = rustix::net::recv(socket, &mut text[..], RecvFlags::DONTWAIT).ok()?;
    let report = serde_json::from_slice(text.get(..len)?).ok()?;
    Some(match report {
        Report::Failed(why) => Report::Failed(harmless(&why)),
        Report::BadKernel(why) => Report::BadKernel(harmless(&why)),
        Report::Fault(why) => Report::Fault(harmless(&why)),
        plain @ (Report::PowerOff { .. } | Report::Reset) => plain,
    })
}

/// Cut, and without characters that a terminal would obey.
fn harmless(text: &str) -> String {
    text.chars().take(TEXT_MAX).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn taken_apart(wanted: Wanted) -> (Order, Vec<OwnedFd>) {
    let Wanted { asked, filesystems, id } = wanted;
    let Asked { host, vcpus, ram_mib, kernel, initramfs, cmdline, disks, vsock, rng, net, console } = asked;
    let mut files: Vec<OwnedFd> = vec![host.kvm.into(), host.entropy.into(), kernel.into()];
    let mut order = Order {
        id,
        vcpus,
        ram_mib,
        initramfs: Vec::new(),
        cmdline,
        disks: Vec::new(),
        vsock_ports: vsock.is_some().then(Vec::new),
        rng,
        net: Vec::new(),
        console: console.is_some(),
        filesystems: Vec::new(),
    };
    for InitramfsFile { path, mode, file } in initramfs {
        order.initramfs.push(Entry { path, mode });
        files.push(file.into());
    }
    for Disk { file, read_only } in disks {
        order.disks.push(read_only);
        files.push(file.into());
    }
    for VsockPort { port, stream } in vsock.into_iter().flat_map(|vsock| vsock.ports) {
        order.vsock_ports.get_or_insert_default().push(port);
        files.push(stream.into());
    }
    for Net { tap, mac, mtu } in net {
        order.net.push(Interface { mac, mtu });
        files.push(tap.into());
    }
    files.extend(console.map(OwnedFd::from));
    for Filesystem { tag, server } in filesystems {
        order.filesystems.push(tag);
        files.push(server.into());
    }
    (order, files)
}

fn put_together(order: Order, files: Vec<OwnedFd>) -> io::Result<Wanted> {
    let mut files = files.into_iter();
    let mut next = || files.next().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData));
    let host = HostFiles { kvm: File::from(next()?), entropy: File::from(next()?) };
    let kernel = File::from(next()?);
    let entry = |Entry { path, mode }| Ok(InitramfsFile { path, mode, file: File::from(next()?) });
    let initramfs = order.initramfs.into_iter().map(entry).collect::<io::Result<_>>()?;
    let disk = |read_only| Ok(Disk { file: File::from(next()?), read_only });
    let disks = order.disks.into_iter().map(disk).collect::<io::Result<_>>()?;
    let port = |port| Ok(VsockPort { port, stream: next()?.into() });
    let ports = |ports: Vec<u32>| ports.into_iter().map(port).collect::<io::Result<_>>();
    let vsock = order.vsock_ports.map(ports).transpose()?.map(|ports| Vsock { ports });
    let interface = |Interface { mac, mtu }| Ok(Net { tap: File::from(next()?), mac, mtu });
    let net = order.net.into_iter().map(interface).collect::<io::Result<_>>()?;
    let console = if order.console { Some(File::from(next()?)) } else { None };
    let filesystem = |tag| Ok(Filesystem { tag, server: next()?.into() });
    let filesystems = order.filesystems.into_iter().map(filesystem).collect::<io::Result<_>>()?;
    let Order { id, vcpus, ram_mib, cmdline, rng, .. } = order;
    let asked = Asked { host, vcpus, ram_mib, kernel, initramfs, cmdline, disks, vsock, rng, net, console };
    Ok(Wanted { asked, filesystems, id })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn file(content: &str) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content.as_bytes()).unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        file
    }

    #[track_caller]
    fn check(mut file: impl Read, want: &str) {
        let mut got = String::new();
        file.read_to_string(&mut got).unwrap();
        assert_eq!(got, want);
    }

    #[test]
    fn every_file_arrives_in_its_place() {
        let (ours, theirs) = pair().unwrap();
        let (stream, mut other) = UnixStream::pair().unwrap();
        let asked = Asked {
            host: HostFiles { kvm: file("kvm"), entropy: file("entropy") },
            vcpus: 3,
            ram_mib: 77,
            kernel: file("kernel"),
            initramfs: vec![InitramfsFile { path: "init".into(), mode: 0o755, file: file("init") }],
            cmdline: "words".into(),
            disks: vec![
                Disk { file: file("a"), read_only: true },
                Disk { file: file("b"), read_only: false },
            ],
            vsock: Some(Vsock { ports: vec![VsockPort { port: 9, stream }] }),
            rng: true,
            net: vec![Net { tap: file("tap"), mac: [2, 0, 0, 0, 0, 7], mtu: Some(1400) }],
            console: Some(file("console")),
        };
        let (server, mut servers_end) = UnixStream::pair().unwrap();
        let filesystems = vec![Filesystem { tag: "a".into(), server }];
        give(&ours, Wanted { asked, filesystems, id: Some(77_000) }).unwrap();
        let Wanted { asked: got, filesystems, id } = take(&theirs).unwrap();
        assert_eq!(id, Some(77_000));
        let [filesystem] = &filesystems[..] else { panic!("one file system") };
        servers_end.write_all(b"served").unwrap();
        drop(servers_end);
        check(&filesystem.server, "served");
        assert_eq!(filesystem.tag, "a");
        assert_eq!((got.vcpus, got.ram_mib, &*got.cmdline, got.rng), (3, 77, "words", true));
        check(got.host.kvm, "kvm");
        check(got.host.entropy, "entropy");
        check(got.kernel, "kernel");
        let [init] = &got.initramfs[..] else { panic!("one file") };
        assert_eq!((&*init.path, init.mode), ("init", 0o755));
        check(&init.file, "init");
        assert_eq!(got.disks.iter().map(|disk| disk.read_only).collect::<Vec<_>>(), [true, false]);
        check(&got.disks[0].file, "a");
        check(&got.disks[1].file, "b");
        let [port] = &got.vsock.unwrap().ports[..] else { panic!("one port") };
        other.write_all(b"hello").unwrap();
        drop(other);
        assert_eq!(port.port, 9);
        check(&port.stream, "hello");
        let [net] = &got.net[..] else { panic!("one interface") };
        assert_eq!((net.mac, net.mtu), ([2, 0, 0, 0, 0, 7], Some(1400)));
        check(&net.tap, "tap");
        check(got.console.unwrap(), "console");
    }

    #[test]
    fn an_order_that_lacks_a_file_is_none() {
        let order = r#"{"id":null,"vcpus":1,"ram_mib":64,"initramfs":[],"cmdline":"","disks":[true],"vsock_ports":null,"rng":false,"net":[],"console":false,"filesystems":[]}"#;
        let check = |count: usize, good: bool| {
            let files = (0..count).map(|_| file("").into()).collect();
            assert_eq!(put_together(serde_json::from_str(order).unwrap(), files).is_ok(), good, "{count}");
        };
        check(3, false);
        check(4, true);
    }

    #[test]
    fn a_report_is_bounded_and_harmless_or_none() {
        let check = |bytes: &[u8], want: Option<Report>| {
            let (ours, theirs) = pair().unwrap();
            // Too long a message cannot even be sent.
            let _ = send(&theirs, bytes, SendFlags::NOSIGNAL);
            drop(theirs);
            assert_eq!(heard(&ours), want);
        };
        check(br#"{"power-off":{"code":3}}"#, Some(Report::PowerOff { code: 3 }));
        check(br#""reset""#, Some(Report::Reset));
        check(br#"{"fault":"a\u001b[2Jb"}"#, Some(Report::Fault("a\u{fffd}[2Jb".into())));
        check(br#"{"power-off":{"code":300}}"#, None);
        check(br#""reset" "reset""#, None);
        check(b"", None);
        let long = format!(r#"{{"failed":"{}"}}"#, "x".repeat(TEXT_MAX + 1));
        check(long.as_bytes(), Some(Report::Failed("x".repeat(TEXT_MAX))));
        check(&[b' '; MESSAGE_MAX + 1], None);
    }

    #[test]
    fn what_is_reported_is_heard() {
        for report in [
            Report::Failed("a".into()),
            Report::BadKernel("k".into()),
            Report::PowerOff { code: 0 },
            Report::Reset,
            Report::Fault("b".into()),
        ] {
            let (ours, theirs) = pair().unwrap();
            self::report(&theirs, &report);
            assert_eq!(heard(&ours), Some(report));
        }
    }
}

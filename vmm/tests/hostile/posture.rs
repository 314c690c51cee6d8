//! What a running machine keeps out of reach, whatever its guest does: lessons of other VMMs and of KVM itself.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;

use super::super::assembler::{Code, Guest};
use super::super::{asked, kvm};
use hull_vmm::{Asked, Disk, Halt, Machine, Net, VmConfig, Vsock, VsockPort, open_tap};

/// No other test's machine has that much.
const RAM_MIB: u32 = 37;

/// Looks at this process while a machine with every device runs in it.
fn look(check: impl FnOnce()) {
    if !kvm() {
        return;
    }
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[0; 4096]).unwrap();
    let (stream, _host) = UnixStream::pair().unwrap();
    let asked = Asked {
        ram_mib: RAM_MIB,
        disks: vec![Disk { file: file.try_clone().unwrap(), read_only: false }],
        vsock: Some(Vsock { ports: vec![VsockPort { port: 1024, stream }] }),
        rng: true,
        net: vec![Net { tap: open_tap("hull%d").unwrap(), mac: [2, 0, 0, 0, 0, 1], mtu: None }],
        ..asked(&Guest::new(Code::new().spin()))
    };
    let config = VmConfig::try_from(asked).unwrap().with_pmem(vec![file]).unwrap().with_balloon(0).unwrap();
    let machine = Machine::new(config).unwrap().load().unwrap().boot().unwrap();
    check();
    machine.stopper().stop();
    assert_eq!(machine.wait(), Halt::Stopped);
}

/// And CVE-2021-26708, CVE-2025-21756, CVE-2026-23069: the host's kernel has a vsock of its own, which guests have
/// broken out through. Ours is in user space, as is every other device.
#[test]
fn cve_2024_50264_no_device_is_served_by_the_hosts_kernel() {
    look(|| {
        for entry in fs::read_dir("/proc/self/fd").unwrap() {
            // Other tests close theirs meanwhile.
            let Ok(target) = fs::read_link(entry.unwrap().path()) else { continue };
            assert!(!target.to_string_lossy().contains("vhost"), "{}", target.display());
        }
    });
}

/// Pages that are shared until they are written tell one guest what another one holds.
#[test]
fn cve_2015_2877_guest_ram_is_never_merged() {
    look(|| {
        let maps = fs::read_to_string("/proc/self/smaps").unwrap();
        // What is known of a mapping ends with its flags.
        let size = |map: &str| {
            map.lines().find_map(|line| line.strip_prefix("Size:")?.split_whitespace().next()?.parse().ok())
        };
        let mut ours = maps.split("VmFlags:").zip(maps.split("VmFlags:").skip(1));
        let (_, flags) = ours.find(|(map, _)| size(map) == Some(RAM_MIB << 10)).expect("RAM is a mapping");
        let flags = flags.lines().next().unwrap();
        assert!(flags.split_whitespace().all(|flag| flag != "mg"), "mergeable: {flags}");
    });
}

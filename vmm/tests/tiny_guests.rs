//! Guests of a few dozen instructions on the real KVM: memory, I/O, every device's registers, interrupts,
//! and all ways for a machine to end. They need no instruction that an unusual KVM might lack.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod assembler;
mod hostile;
mod jailed;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use assembler::{Code, Guest};
use hull_vmm::{Asked, Disk, Halt, HostFiles, Kind, Machine, VmConfig, Vsock, VsockPort};

/// False where there is no KVM; in CI that is a failure.
fn kvm() -> bool {
    let there = File::options().read(true).write(true).open("/dev/kvm").is_ok();
    if !there {
        eprintln!("SKIP: /dev/kvm cannot be opened");
        assert!(std::env::var_os("CI").is_none(), "a skipped test is a failed test in CI");
    }
    there
}

fn asked(guest: &Guest) -> Asked {
    Asked {
        host: HostFiles::open().unwrap(),
        vcpus: 1,
        ram_mib: 32,
        kernel: guest.file(),
        initramfs: vec![],
        cmdline: String::new(),
        disks: vec![],
        vsock: None,
        rng: false,
        net: vec![],
        console: None,
    }
}

fn run(asked: Asked) -> Halt {
    let machine = Machine::new(VmConfig::try_from(asked).unwrap()).unwrap().load().unwrap();
    machine.boot().unwrap().wait()
}

/// Runs `code` on a machine without devices.
#[track_caller]
fn check(code: Code, want: &Halt) {
    if kvm() {
        assert_eq!(run(asked(&Guest::new(code))), *want);
    }
}

const POWER_OFF_42: Halt = Halt::PowerOff { code: 42 };

#[test]
fn the_doorbell_ends_the_machine_with_its_code() {
    check(Code::new().power_off(42), &POWER_OFF_42);
    check(Code::new().power_off(0), &Halt::PowerOff { code: 0 });
}

#[test]
fn a_triple_fault_is_a_reset() {
    check(Code::new().undefined(), &Halt::Reset);
}

#[test]
fn ports_and_addresses_without_a_device_read_as_ones() {
    let code = Code::new()
        .expect_port(0x21, 0xff)
        .expect_port(0x64, 0xff)
        .expect_port(0x3fd, 0xff)
        .map_devices()
        .expect(0xd000_0000, u32::MAX)
        .expect(0xd00f_0000, u32::MAX)
        // Writes go nowhere.
        .store(0xd000_0000, 7)
        .power_off(42);
    check(code, &POWER_OFF_42);
}

#[test]
fn every_port_can_be_read_and_written() {
    // All but the doorbell's and, with no console, none has a device.
    let code = Code::new().scan_ports(0, 0x600).scan_ports(0x601, 0x10000);
    let code = code.scan_ports_wide(0, 0x5fd).scan_ports_wide(0x601, 0x10000);
    check(code.power_off(42), &POWER_OFF_42);
}

#[test]
fn the_ioapic_has_the_pins_in_use() {
    if !kvm() {
        return;
    }
    let code = Code::new()
        .map_devices()
        .store(0xfec0_0000, 1)
        // One device: pins 0 and 1.
        .expect(0xfec0_0010, 0x0001_0020)
        .power_off(42);
    let config = Asked { rng: true, ..asked(&Guest::new(code)) };
    assert_eq!(run(config), POWER_OFF_42);
}

#[test]
fn a_machine_of_several_vcpus_ends_as_one() {
    if kvm() {
        let config = Asked { vcpus: 3, ..asked(&Guest::new(Code::new().power_off(42))) };
        assert_eq!(run(config), POWER_OFF_42);
    }
}

#[test]
fn a_guest_that_spins_can_be_stopped() {
    if !kvm() {
        return;
    }
    let config = asked(&Guest::new(Code::new().spin()));
    let machine = Machine::new(VmConfig::try_from(config).unwrap()).unwrap().load().unwrap().boot().unwrap();
    let stopper = machine.stopper();
    let thread = std::thread::spawn(move || stopper.stop());
    assert_eq!(machine.wait(), Halt::Stopped);
    thread.join().unwrap();
}

#[test]
fn a_machine_that_nobody_waits_for_ends() {
    if kvm() {
        let config = asked(&Guest::new(Code::new().spin()));
        let machine = Machine::new(VmConfig::try_from(config).unwrap()).unwrap().load().unwrap();
        drop(machine.boot().unwrap());
    }
}

#[test]
fn the_kernel_is_copied_once() {
    if kvm() {
        let guest = Guest::new(Code::new().power_off(42));
        let machine = Machine::new(VmConfig::try_from(asked(&guest)).unwrap()).unwrap().load().unwrap();
        assert_eq!(machine.kernel_bytes_copied(), guest.segment_bytes());
    }
}

#[test]
fn a_console_gets_what_the_guest_writes() {
    if !kvm() {
        return;
    }
    let mut console = tempfile::tempfile().unwrap();
    let code = Code::new().expect_port(0x3fd, 0x60).out(0x3f8, b'h').out(0x3f8, b'i').power_off(42);
    let config = Asked { console: Some(console.try_clone().unwrap()), ..asked(&Guest::new(code)) };
    assert_eq!(run(config), POWER_OFF_42);
    let mut text = String::new();
    console.seek(SeekFrom::Start(0)).unwrap();
    console.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hi");
}

/// The handshake of an honest driver with the first device, and its queue `queue` on the guest's rings.
fn virtio(queue: u32, rings: u32) -> Code {
    virtio_with(0, queue, rings)
}

/// The same, taking the features of the lower half.
fn virtio_with(features: u32, queue: u32, rings: u32) -> Code {
    let device = 0xd000_0000;
    let mut code = Code::new().map_devices().expect(device, 0x7472_6976).expect(device + 4, 2);
    for (register, value) in
        [(0x70, 1), (0x70, 3), (0x24, 0), (0x20, features), (0x24, 1), (0x20, 1), (0x70, 11)]
    {
        code = code.store(device + register, value);
    }
    code = code.expect(device + 0x70, 11).store(device + 0x30, queue);
    for (register, value) in
        [(0x38, 8), (0x80, rings), (0x90, rings + 0x1000), (0xa0, rings + 0x2000), (0x44, 1)]
    {
        code = code.store(device + register, value);
    }
    code.expect(device + 0x44, 1).store(device + 0x70, 15).expect(device + 0x70, 15)
}

const RINGS: u32 = 0x40_0000;
const BUFFER: u32 = 0x50_0000;
const NOTIFY: u32 = 0xd000_0050;
const USED_INDEX: u32 = RINGS + 0x2000;

const NEXT: u16 = 1;
const WRITE: u16 = 2;

#[test]
fn a_disk_is_read() {
    if !kvm() {
        return;
    }
    let mut disk = tempfile::tempfile().unwrap();
    disk.write_all(&[0; 512]).unwrap();
    disk.write_all(&[0x5a; 512]).unwrap();
    let code = virtio(0, RINGS)
        .ring(0)
        // Served before the write returns: one used entry, status 0, the data.
        .expect(USED_INDEX, 1 << 16)
        .expect(BUFFER + 0x600, 0)
        .expect(BUFFER + 0x200, 0x5a5a_5a5a)
        .power_off(42);
    let mut guest = Guest::new(code);
    // Read sector 1.
    guest.data(BUFFER, &[&0_u64.to_le_bytes()[..], &1_u64.to_le_bytes()].concat());
    guest.data(BUFFER + 0x600, &0xff_u32.to_le_bytes()[..1]);
    guest.descriptor(RINGS, 0, (BUFFER, 16, NEXT, 1));
    guest.descriptor(RINGS, 1, (BUFFER + 0x200, 512, NEXT | WRITE, 2));
    guest.descriptor(RINGS, 2, (BUFFER + 0x600, 1, WRITE, 0));
    guest.available(RINGS, &[0]);
    let config = Asked { disks: vec![Disk { file: disk, read_only: true }], ..asked(&guest) };
    assert_eq!(run(config), POWER_OFF_42);
}

#[test]
fn a_broken_ring_costs_the_device_and_not_the_machine() {
    if !kvm() {
        return;
    }
    let code = virtio(0, RINGS)
        .ring(0)
        .expect(0xd000_0070, 15 | 64)
        .store(0xd000_0070, 0)
        .expect(0xd000_0070, 0)
        .power_off(42);
    let mut guest = Guest::new(code);
    // A chain that points to itself.
    guest.descriptor(RINGS, 0, (BUFFER, 16, NEXT, 0));
    guest.available(RINGS, &[0]);
    assert_eq!(run(Asked { rng: true, ..asked(&guest) }), POWER_OFF_42);
}

#[test]
fn an_interrupt_arrives_where_the_ioapic_sends_it() {
    if !kvm() {
        return;
    }
    let code = virtio(0, RINGS)
        .interrupt_table(0x31)
        .local_apic_on()
        // Pin 1, vector 0x31, to the first local APIC.
        .store(0xfec0_0000, 0x12)
        .store(0xfec0_0010, 0x31)
        .ring(0)
        .wait_for_interrupt()
        .expect(0xd000_0060, 1)
        .power_off(42)
        .handler_sets_flag();
    let mut guest = Guest::new(code);
    guest.descriptor(RINGS, 0, (BUFFER, 8, WRITE, 0));
    guest.available(RINGS, &[0]);
    assert_eq!(run(Asked { rng: true, ..asked(&guest) }), POWER_OFF_42);
}

fn packet(op: u16, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap();
    let mut packet = [3_u64.to_le_bytes(), 2_u64.to_le_bytes()].concat();
    [77, 1024, len].iter().for_each(|word: &u32| packet.extend(word.to_le_bytes()));
    packet.extend([1, 0]);
    packet.extend(op.to_le_bytes());
    packet.extend([0; 12]);
    packet.extend(payload);
    packet
}

#[test]
fn what_the_guest_says_last_still_arrives() {
    if !kvm() {
        return;
    }
    // Connects and writes in one go, then powers off.
    let code = virtio(1, RINGS).store(NOTIFY, 1).power_off(42);
    let mut guest = Guest::new(code);
    let packets = [packet(1, b""), packet(5, b"goodbye")];
    for (index, packet) in (0_u16..).zip(&packets) {
        let at = BUFFER + u32::from(index) * 0x100;
        guest.data(at, packet);
        guest.descriptor(RINGS, index, (at, u32::try_from(packet.len()).unwrap(), 0, 0));
    }
    guest.available(RINGS, &[0, 1]);
    let (stream, mut host) = UnixStream::pair().unwrap();
    let vsock = Vsock { ports: vec![VsockPort { port: 1024, stream }] };
    let config = VmConfig::try_from(Asked { vsock: Some(vsock), ..asked(&guest) }).unwrap();
    let machine = Machine::new(config).unwrap().load().unwrap().boot().unwrap();
    host.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut heard = String::new();
    // Up to the end of the stream, which comes before anybody waits for the machine.
    host.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "goodbye");
    assert_eq!(machine.wait(), POWER_OFF_42);
}

#[test]
fn a_guest_that_never_connects_lets_go_of_the_socket_when_it_ends() {
    if !kvm() {
        return;
    }
    let (stream, mut host) = UnixStream::pair().unwrap();
    let vsock = Vsock { ports: vec![VsockPort { port: 1024, stream }] };
    let guest = Guest::new(Code::new().undefined());
    let config = VmConfig::try_from(Asked { vsock: Some(vsock), ..asked(&guest) }).unwrap();
    let machine = Machine::new(config).unwrap().load().unwrap().boot().unwrap();
    host.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert_eq!(host.read(&mut [0]).unwrap(), 0);
    assert_eq!(machine.wait(), Halt::Reset);
}

#[test]
fn the_probe_agrees_with_the_processor() {
    if !kvm() {
        return;
    }
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap();
    let virtualises = cpuinfo.split_whitespace().any(|flag| matches!(flag, "vmx" | "svm"));
    let kind = hull_vmm::probe().err().map(|err| *err.kind());
    assert_eq!(kind, (!virtualises).then_some(Kind::UnfitKvm));
}

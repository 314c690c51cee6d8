//! Guests that break one rule each, on every device, through real exits: the device is lost, or the guest is
//! ignored, or the machine ends. Never does the process.

mod posture;
mod requests;
mod storms;

use std::io::Write;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use super::assembler::{Code, Guest};
use super::{BUFFER, NEXT, POWER_OFF_42, RINGS, USED_INDEX, WRITE, asked, kvm, virtio_with};
use hull_vmm::{Asked, Disk, Halt, Machine, Net, VmConfig, Vsock, VsockPort, open_tap};

const DEVICE: u32 = 0xd000_0000;
const STATUS: u32 = DEVICE + 0x70;
const LIVE: u32 = 15;
const NEEDS_RESET: u32 = 64;
const INDIRECT: u16 = 4;
/// An address in the gap below 4 GiB: no RAM is there.
const NOWHERE: u32 = 0xc000_0000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Device {
    Disk,
    Pmem,
    Vsock,
    Rng,
    Net,
    Balloon,
}

/// How many kinds there are.
const KINDS: usize = 6;
const DEVICES: [Device; KINDS] = [D, P, V, R, N, B];

/// What becomes of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// DEVICE_NEEDS_RESET; a reset brings it back.
    Lost,
    /// It goes on as if nothing had been.
    Goes,
}

use Device::{Balloon as B, Disk as D, Net as N, Pmem as P, Rng as R, Vsock as V};
use End::{Goes, Lost};

impl Device {
    /// The queue that the driver sends on.
    fn queue(self) -> u32 {
        if matches!(self, V | N) { 1 } else { 0 }
    }

    /// What a driver has to take beside VIRTIO_F_VERSION_1: whatever a tap was told that the guest takes.
    fn features(self) -> u32 {
        if self == N { 0x182 } else { 0 }
    }

    /// The handshake of an honest driver.
    fn live(self, rings: u32) -> Code {
        virtio_with(self.features(), self.queue(), rings)
    }

    /// A buffer that the device looks at: the driver gives it, or wants it filled.
    fn flags(self) -> u16 {
        if self == R { WRITE } else { 0 }
    }

    /// Runs the guest on a machine with only this device.
    fn run(self, guest: &Guest) -> Halt {
        let mut asked = asked(guest);
        let mut pmem = Vec::new();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[0x5a; 4096]).unwrap();
        // Held until the machine has ended.
        let (stream, _host) = std::os::unix::net::UnixStream::pair().unwrap();
        match self {
            D => asked.disks = vec![Disk { file, read_only: false }],
            P => pmem.push(file),
            V => asked.vsock = Some(Vsock { ports: vec![VsockPort { port: 1024, stream }] }),
            R => asked.rng = true,
            B => (),
            // It is down, and gone with the machine.
            N => {
                let tap = open_tap("hull%d").unwrap();
                asked.net = vec![Net { tap, mac: [2, 0, 0, 0, 0, 1], mtu: None }];
            }
        }
        let config = VmConfig::try_from(asked).unwrap().with_pmem(pmem).unwrap();
        let config = if self == B { config.with_balloon(0).unwrap() } else { config };
        Machine::new(config).unwrap().load().unwrap().boot().unwrap().wait()
    }
}

/// Posts whatever `break_it` has put into the rings, and looks what became of the device; then resets it.
#[track_caller]
fn check_ring(rule: &str, want: [End; KINDS], break_it: fn(Device, &mut Guest)) {
    if !kvm() {
        return;
    }
    for (device, end) in DEVICES.into_iter().zip(want) {
        let status = if end == Lost { LIVE | NEEDS_RESET } else { LIVE };
        let code = device
            .live(RINGS)
            .ring(device.queue())
            .expect(STATUS, status)
            // It does not move while it is lost; a reset ends that.
            .ring(device.queue())
            .expect(STATUS, status)
            .store(STATUS, 0)
            .expect(STATUS, 0)
            .power_off(42);
        let mut guest = Guest::new(code);
        break_it(device, &mut guest);
        assert_eq!(device.run(&guest), POWER_OFF_42, "{rule} on {device:?}: {end:?} was expected");
    }
}

const ALL_LOST: [End; KINDS] = [Lost; KINDS];

#[test]
fn chains_that_lead_nowhere_cost_the_device() {
    check_ring("a loop", ALL_LOST, |device, guest| {
        guest.descriptor(RINGS, 0, (BUFFER, 16, device.flags() | NEXT, 0));
        guest.available(RINGS, &[0]);
    });
    check_ring("a next behind the table", ALL_LOST, |device, guest| {
        guest.descriptor(RINGS, 0, (BUFFER, 16, device.flags() | NEXT, 8));
        guest.available(RINGS, &[0]);
    });
    check_ring("a head behind the table", ALL_LOST, |_, guest| guest.available(RINGS, &[8]));
    check_ring("a readable buffer behind a writable one", ALL_LOST, |_, guest| {
        guest.descriptor(RINGS, 0, (BUFFER, 16, WRITE | NEXT, 1));
        guest.descriptor(RINGS, 1, (BUFFER, 16, 0, 0));
        guest.available(RINGS, &[0]);
    });
}

#[test]
fn an_available_index_that_jumps_costs_the_device() {
    check_ring("by more than the queue", ALL_LOST, |_, guest| guest.available(RINGS, &[0; 9]));
    check_ring("by half the range", ALL_LOST, |_, guest| guest.data(RINGS + 0x1002, &[0, 0x80]));
    check_ring("back", ALL_LOST, |_, guest| guest.data(RINGS + 0x1002, &[0xff, 0xff]));
}

#[test]
fn indirect_tables_are_checked_like_direct_ones() {
    check_ring("an empty table", ALL_LOST, |_, guest| indirect(guest, BUFFER, 0));
    check_ring("a table of an odd length", ALL_LOST, |_, guest| indirect(guest, BUFFER, 17));
    check_ring("a table outside RAM", ALL_LOST, |_, guest| indirect(guest, NOWHERE, 16));
    check_ring("a table in a table", ALL_LOST, |_, guest| {
        guest.descriptor(BUFFER, 0, (BUFFER, 16, INDIRECT, 0));
        indirect(guest, BUFFER, 16);
    });
    check_ring("a loop in a table", ALL_LOST, |device, guest| {
        guest.descriptor(BUFFER, 0, (BUFFER + 0x100, 16, device.flags() | NEXT, 0));
        indirect(guest, BUFFER, 16);
    });
}

fn indirect(guest: &mut Guest, table: u32, len: u32) {
    guest.descriptor(RINGS, 0, (table, len, INDIRECT, 0));
    guest.available(RINGS, &[0]);
}

fn one(device: Device, guest: &mut Guest, at: u32, len: u32) {
    guest.descriptor(RINGS, 0, (at, len, device.flags(), 0));
    guest.available(RINGS, &[0]);
}

#[test]
fn buffers_of_odd_places_and_lengths() {
    check_ring("not RAM", ALL_LOST, |device, guest| one(device, guest, NOWHERE, 64));
    check_ring("across RAM's end", ALL_LOST, |device, guest| one(device, guest, (32 << 20) - 8, 64));
    check_ring("a wrapping address", ALL_LOST, |device, guest| {
        one(device, guest, BUFFER, 64);
        guest.data(RINGS, &[0xff; 8]);
    });
    // A disk and persistent memory need room for an answer; the others take what there is.
    check_ring("no bytes", [Lost, Lost, Goes, Goes, Lost, Goes], |device, guest| {
        one(device, guest, BUFFER, 0);
    });
    check_ring("4 GiB", [Lost, Lost, Goes, Goes, Lost, Goes], |device, guest| {
        one(device, guest, BUFFER, u32::MAX);
    });
    check_ring("the wrong direction", [Lost, Lost, Goes, Goes, Lost, Goes], |device, guest| {
        guest.descriptor(RINGS, 0, (BUFFER, 64, device.flags() ^ WRITE, 0));
        guest.available(RINGS, &[0]);
    });
}

/// Code that breaks a rule of the registers; then the device has to serve an honest driver.
#[track_caller]
fn check_registers(rule: &str, break_it: fn(Device, Code) -> Code) {
    if !kvm() {
        return;
    }
    for device in DEVICES {
        let code = break_it(device, Code::new().map_devices()).store(STATUS, 0);
        let code = code
            .then(device.live(RINGS))
            .ring(device.queue())
            .expect(USED_INDEX, 1 << 16)
            .expect(STATUS, LIVE)
            .power_off(42);
        let mut guest = Guest::new(code);
        // A request that each of them understands.
        guest.data(BUFFER, &[0; 64]);
        guest.descriptor(RINGS, 0, (BUFFER, 64, NEXT, 1));
        guest.descriptor(RINGS, 1, (BUFFER + 0x1000, 513, WRITE, 0));
        guest.available(RINGS, &[0]);
        assert_eq!(device.run(&guest), POWER_OFF_42, "{rule} on {device:?}");
    }
}

/// Every register and what lies between, in order, in all widths, aligned and not. All ones in the status
/// register is FAILED.
fn touch_all(code: Code) -> Code {
    (0..0x100).step_by(4).fold(code, |code, at| code.touch(DEVICE + at).touch(DEVICE + at + 1))
}

#[test]
fn registers_in_every_order_and_width() {
    check_registers("before the handshake", |_, code| touch_all(code));
    check_registers("after DRIVER_OK", |device, code| touch_all(code.then(device.live(0x60_0000))));
    check_registers("backwards", |_, code| {
        (0..0x100).rev().step_by(4).fold(code, |code, at| code.touch(DEVICE + (at & !3)))
    });
}

#[test]
fn the_configuration_is_read_only_and_bounded() {
    check_registers("all of it, and across the window's end", |_, code| {
        let code = (0x100..0x140).fold(code, |code, at| code.touch(DEVICE + at));
        [0xff8, 0xffc, 0xffd, 0xfff].into_iter().fold(code, |code, at| code.touch(DEVICE + at))
    });
}

#[test]
fn nothing_of_a_live_queue_can_be_rewritten() {
    check_registers("size, addresses, readiness, features", |device, code| {
        let registers = [0x38, 0x80, 0x84, 0x90, 0x94, 0xa0, 0xa4, 0x44, 0x20];
        let code = code.then(device.live(0x60_0000));
        let code = registers.into_iter().fold(code, |code, at| code.store(DEVICE + at, 0));
        code.expect(DEVICE + 0x44, 1).expect(STATUS, LIVE)
    });
}

#[test]
fn a_handshake_out_of_order_leads_nowhere() {
    check_registers("a legacy driver", |_, code| {
        code.store(STATUS, 1).store(STATUS, 3).store(STATUS, 7).expect(STATUS, 3)
    });
    check_registers("features that were not offered", |_, code| {
        let code = code.store(STATUS, 1).store(STATUS, 3).store(DEVICE + 0x24, 1);
        code.store(DEVICE + 0x20, u32::MAX).store(STATUS, 11).expect(STATUS, 3)
    });
    check_registers("rung before it is live", |device, code| code.ring(device.queue()).expect(USED_INDEX, 0));
    check_registers("queues that do not exist", |device, code| {
        let code = code.then(device.live(0x60_0000));
        let code = code.ring(7).ring(0xffff).ring(u32::MAX);
        code.store(DEVICE + 0x30, 9).store(DEVICE + 0x44, 1).expect(DEVICE + 0x44, 0).expect(STATUS, LIVE)
    });
}

#[test]
fn a_queue_behind_the_end_of_ram_is_never_ready() {
    check_registers("rings outside RAM", |device, code| {
        let mut code = code;
        let features = device.features();
        for (status, value) in [(0x70, 1), (0x70, 3), (0x20, features), (0x24, 1), (0x20, 1), (0x70, 11)] {
            code = code.store(DEVICE + status, value);
        }
        code = code.store(DEVICE + 0x30, device.queue());
        for register in [0x80, 0x90, 0xa0] {
            code = code.store(DEVICE + register, (32 << 20) - 16);
        }
        code.store(DEVICE + 0x44, 1).expect(DEVICE + 0x44, 0)
    });
}

#[test]
fn a_reset_in_the_middle_forgets_what_was_posted() {
    check_registers("reset between posting and ringing", |device, code| {
        let code = code.then(device.live(RINGS)).store(STATUS, 0);
        code.ring(device.queue()).expect(USED_INDEX, 0).expect(STATUS, 0)
    });
}

#[test]
fn rings_that_overlap_end_somehow() {
    if !kvm() {
        return;
    }
    for (device, shift) in DEVICES.into_iter().flat_map(|device| [0, 4, 64].map(|shift| (device, shift))) {
        let mut code = Code::new().map_devices();
        for (register, value) in [
            (0x70, 1),
            (0x70, 3),
            (0x20, device.features()),
            (0x24, 1),
            (0x20, 1),
            (0x70, 11),
            (0x30, device.queue()),
            (0x38, 8),
            (0x80, RINGS),
            (0x90, RINGS + shift),
            (0xa0, RINGS + 2 * shift),
            (0x44, 1),
            (0x70, 15),
        ] {
            code = code.store(DEVICE + register, value);
        }
        let code = (0..4).fold(code, |code, _| code.ring(device.queue()));
        let mut guest = Guest::new(code.store(STATUS, 0).expect(STATUS, 0).power_off(42));
        guest.data(RINGS, &[1, 0, 1, 0].repeat(64));
        assert_eq!(device.run(&guest), POWER_OFF_42, "{device:?} {shift}");
    }
}

/// How long a guest of a few instructions may take before it counts as one that spins.
const DEADLINE: Duration = Duration::from_secs(2);

/// Runs the guest, and stops it if it does not end by itself.
fn run_for_a_while(guest: &Guest) -> Halt {
    run_for(DEADLINE, asked(guest))
}

fn run_for(time: Duration, asked: Asked) -> Halt {
    let machine = Machine::new(VmConfig::try_from(asked).unwrap()).unwrap().load().unwrap();
    let machine = machine.boot().unwrap();
    let stopper = machine.stopper();
    let (ended, wait) = std::sync::mpsc::channel::<()>();
    let watch = std::thread::spawn(move || {
        // The other end says nothing: either the time is over, or the machine is.
        if wait.recv_timeout(time) == Err(RecvTimeoutError::Timeout) {
            stopper.stop();
        }
    });
    let halt = machine.wait();
    drop(ended);
    watch.join().unwrap();
    halt
}

#[test]
fn processor_oddities_end_the_guest_at_most() {
    if !kvm() {
        return;
    }
    // KVM may go on, or refuse with an exception, which ends a guest without a handler, or makes it spin.
    for (name, code) in [
        ("an MSR that does not exist", Code::new().touch_msr(0x1234_5678)),
        ("a counter", Code::new().touch_msr(0xc001_0200)),
        ("the local APIC's place", Code::new().fill_msr(0x1b)),
        ("features of the processor", Code::new().fill_msr(0xc000_0080)),
        ("microcode", Code::new().fill_msr(0x79)),
        ("debug control", Code::new().fill_msr(0x1d9)),
        ("the place of system calls", Code::new().fill_msr(0xc000_0082)),
        ("a leaf that does not exist", Code::new().cpuid(0x4000_ffff).cpuid(u32::MAX)),
        ("KVM's own leaves", (0x4000_0000..0x4000_0010).fold(Code::new(), Code::cpuid)),
        ("a hypercall", Code::new().hypercall()),
    ] {
        let halt = run_for_a_while(&Guest::new(code.power_off(42)));
        assert!(matches!(halt, POWER_OFF_42 | Halt::Reset | Halt::Stopped), "{name}: {halt:?}");
    }
}

#[test]
fn a_guest_that_sleeps_for_ever_can_be_stopped() {
    if !kvm() {
        return;
    }
    let config = Asked { vcpus: 2, ..asked(&Guest::new(Code::new().halt())) };
    let machine = Machine::new(VmConfig::try_from(config).unwrap()).unwrap().load().unwrap().boot().unwrap();
    machine.stopper().stop();
    assert_eq!(machine.wait(), Halt::Stopped);
}

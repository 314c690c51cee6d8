//! Guests that never rest: whatever they do, the machine can be stopped, and only its own threads pay.

use std::time::{Duration, Instant};

use super::super::assembler::{Code, Guest};
use super::super::{BUFFER, POWER_OFF_42, RINGS, USED_INDEX, WRITE, asked, kvm, virtio_with};
use super::{DEVICES, Device, LIVE, STATUS, run_for};
use hull_vmm::{Asked, Halt};

const VECTOR: u32 = 0x31;
/// The local APIC's registers, Intel's manual volume 3, table 11-1.
const TIMER: u32 = 0xfee0_0320;
const TIMER_COUNT: u32 = 0xfee0_0380;
const TIMER_DIVIDE: u32 = 0xfee0_03e0;
const INTERRUPT_COMMAND: u32 = 0xfee0_0300;
const PERIODIC: u32 = 1 << 17;

/// How long a storm blows.
const STORM: Duration = Duration::from_millis(300);
/// How long a machine may take to end once it was told to.
const END: Duration = Duration::from_secs(5);

/// Runs a guest that does not end; stopping it works.
fn blow(name: &str, asked: Asked) {
    let start = Instant::now();
    let halt = run_for(STORM, asked);
    assert_eq!(halt, Halt::Stopped, "{name}");
    assert!(start.elapsed() < STORM + END, "{name}: {:?}", start.elapsed());
}

fn with_handler() -> Code {
    Code::new().map_devices().interrupt_table(VECTOR).local_apic_on()
}

#[test]
fn a_storm_of_timers_can_be_stopped() {
    if kvm() {
        // Every bus cycle.
        let code =
            with_handler().store(TIMER_DIVIDE, 0xb).store(TIMER, PERIODIC | VECTOR).store(TIMER_COUNT, 1);
        let code = code.interrupts_on().spin().handler_sets_flag();
        blow("timers", asked(&Guest::new(code)));
    }
}

#[test]
fn a_storm_of_interrupts_to_itself_can_be_stopped() {
    if kvm() {
        // Fixed, edge, to itself.
        let once = Code::new().store(INTERRUPT_COMMAND, (1 << 18) | VECTOR);
        let code = with_handler().interrupts_on().forever(once).handler_sets_flag();
        blow("interrupts", asked(&Guest::new(code)));
    }
}

#[test]
fn a_storm_of_requests_can_be_stopped() {
    if !kvm() {
        return;
    }
    // The same buffer for ever, each time with an interrupt.
    let once = Code::new().add16(RINGS + 0x1002, 1).ring(0);
    let pin = Code::new().store(0xfec0_0000, 0x12).store(0xfec0_0010, VECTOR);
    let code = with_handler().then(pin).then(virtio_with(0, 0, RINGS)).interrupts_on();
    let mut guest = Guest::new(code.forever(once).handler_sets_flag());
    guest.descriptor(RINGS, 0, (BUFFER, 4096, WRITE, 0));
    blow("requests", Asked { rng: true, ..asked(&guest) });
}

#[test]
fn a_storm_of_resets_can_be_stopped() {
    if !kvm() {
        return;
    }
    let steps = [0, 1, 3, 0, 1, 131, 0];
    let once = steps.into_iter().fold(Code::new(), |code, status| code.store(STATUS, status));
    let code = Code::new().map_devices().forever(once);
    blow("resets", Asked { rng: true, ..asked(&Guest::new(code)) });
}

/// EVENT_IDX: what a driver says about notifications may be anything; a device that believes it could sleep, spin, or
/// believe its own half of the ring, which the guest can write as well.
#[test]
fn event_indices_of_any_value_change_nothing_but_interrupts() {
    if !kvm() {
        return;
    }
    const EVENT_IDX: u32 = 1 << 29;
    const ROUNDS: u32 = 500;
    for device in DEVICES {
        // `used_event`, behind 8 entries; `avail_event`, and the used index, which is the device's.
        let (used_event, avail_event) = (RINGS + 0x1014, RINGS + 0x2044);
        let once = Code::new()
            .add16(used_event, 0x5555)
            .add16(avail_event, 0x3333)
            .store(USED_INDEX, 0xffff_ffff)
            .add16(RINGS + 0x1002, 1)
            .ring(device.queue());
        let live = virtio_with(EVENT_IDX | device.features(), device.queue(), RINGS);
        // In the end the device has put the true count there.
        let code =
            live.repeat(ROUNDS, once).expect(STATUS, LIVE).expect(USED_INDEX, count(ROUNDS)).power_off(42);
        let mut guest = Guest::new(code);
        honest(device, &mut guest);
        assert_eq!(device.run(&guest), POWER_OFF_42, "{device:?}");
    }
}

/// Flags and index of a used ring: the flags are whatever the guest has put there.
fn count(served: u32) -> u32 {
    (served << 16) | 0xffff
}

/// A request that the device understands, in entry 0.
fn honest(device: Device, guest: &mut Guest) {
    guest.data(BUFFER, &[0; 64]);
    match device {
        Device::Disk | Device::Pmem => {
            guest.descriptor(RINGS, 0, (BUFFER, 64, super::NEXT, 1));
            guest.descriptor(RINGS, 1, (BUFFER + 0x1000, 513, WRITE, 0));
        }
        Device::Rng => guest.descriptor(RINGS, 0, (BUFFER, 64, WRITE, 0)),
        Device::Vsock | Device::Net | Device::Balloon => guest.descriptor(RINGS, 0, (BUFFER, 64, 0, 0)),
    }
}

//! The registers, with the real interrupt path below them.

use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::device::virtio::queue::tests::{DATA, Driver, SIZE, WRITE, ram};
use crate::device::virtio::rng::Rng;
use crate::events::Events;

/// An entropy device on RAM of its own.
struct Bench {
    ram: Arc<GuestRam>,
    transport: Transport,
}

/// The pin's interrupt controller needs a VM, but no guest.
fn bench() -> Bench {
    let ram = ram();
    let vm = kvm_ioctls::Kvm::new().unwrap().create_vm().unwrap();
    let irq = crate::irq::Ioapic::new(Arc::new(vm), 2, 1).line(1);
    let events = Events::new().unwrap().handle(0);
    let source = std::fs::File::open("/dev/urandom").unwrap();
    let wiring = Wiring { ram: Arc::clone(&ram), irq, events, journal: Arc::new(Journal::new(None)) };
    Bench { ram, transport: Transport::new(Rng::spec(), Box::new(Rng::new(source)), wiring) }
}

impl Bench {
    fn read(&mut self, at: u64) -> u32 {
        let mut out = [0xaa; 4];
        self.transport.load(at, &mut out);
        u32::from_le_bytes(out)
    }

    fn write(&mut self, at: u64, value: u32) {
        self.transport.store(at, &value.to_le_bytes());
    }

    /// The handshake of an honest driver, up to and with FEATURES_OK.
    fn negotiate(&mut self) {
        for (at, value) in [(0x70, 0), (0x70, 1), (0x70, 3), (0x24, 1), (0x20, 1), (0x70, 11)] {
            self.write(at, value);
        }
        assert_eq!(self.read(0x70), 11);
    }

    /// Rings at 0x1000, 0x2000, 0x3000, as `Driver` has them.
    fn set_up_queue(&mut self) {
        for (at, value) in
            [(0x30, 0), (0x38, u32::from(SIZE)), (0x80, 0x1000), (0x90, 0x2000), (0xa0, 0x3000), (0x44, 1)]
        {
            self.write(at, value);
        }
    }

    fn go_live(&mut self) {
        self.negotiate();
        self.set_up_queue();
        assert_eq!(self.read(0x44), 1);
        self.write(0x70, 15);
        assert_eq!(self.read(0x70), 15);
    }
}

#[test]
fn an_honest_driver_gets_its_buffers_filled() {
    let mut bench = bench();
    assert_eq!((bench.read(0), bench.read(4), bench.read(8)), (0x7472_6976, 2, 4));
    bench.go_live();
    let mut driver = Driver::new(&bench.ram, 0x1000);
    driver.post_chain(0, &[(DATA, 64, WRITE)]);
    bench.write(0x50, 0);
    assert_eq!(driver.used(), [(0, 64)]);
    assert_ne!(driver.bytes(DATA, 64), [0; 64]);
    assert_eq!(bench.read(0x60), USED_BUFFER);
    bench.write(0x64, USED_BUFFER);
    assert_eq!(bench.read(0x60), 0);
}

#[test]
fn nothing_moves_under_a_live_device() {
    let mut bench = bench();
    bench.go_live();
    // Size, addresses, readiness, features and a second DRIVER_OK.
    for (at, value) in
        [(0x38, 4), (0x80, 0x8000), (0x90, 0x8000), (0xa0, 0x8000), (0x44, 0), (0x20, 0), (0x70, 15)]
    {
        bench.write(at, value);
    }
    let mut driver = Driver::new(&bench.ram, 0x1000);
    driver.post_chain(0, &[(DATA, 8, WRITE)]);
    bench.write(0x50, 0);
    assert_eq!(driver.used(), [(0, 8)]);
    assert_eq!(bench.read(0x70), 15);
}

#[test]
fn a_broken_driver_loses_the_device_until_it_resets_it() {
    let mut bench = bench();
    bench.go_live();
    Driver::new(&bench.ram, 0x1000).set_avail_index(SIZE + 1);
    bench.write(0x50, 0);
    assert_eq!(bench.read(0x70), 15 | NEEDS_RESET);
    assert_eq!(bench.read(0x60), CONFIG_CHANGE);
    // It does nothing more.
    let mut driver = Driver::new(&bench.ram, 0x1000);
    driver.post_chain(0, &[(DATA, 8, WRITE)]);
    bench.write(0x50, 0);
    assert_eq!(driver.used(), []);
    bench.go_live();
    bench.write(0x50, 0);
    assert_eq!(driver.used(), [(0, 8)]);
}

/// A device that says what it is told.
struct Diary(std::sync::mpsc::Sender<&'static str>);

impl Device for Diary {
    fn activate(&mut self, _: u64, _: &[Queue]) {
        self.0.send("live").unwrap();
    }

    fn serve(&mut self, _: Wake, _: &mut Rings<'_>) -> Result<Drained, Violation> {
        self.0.send("served").unwrap();
        Ok(Drained::Empty)
    }

    fn reset(&mut self) {
        self.0.send("reset").unwrap();
    }
}

#[test]
fn a_device_that_was_given_up_waits_for_nothing() {
    let mut bench = bench();
    let (diary, told) = std::sync::mpsc::channel();
    bench.transport.device = Box::new(Diary(diary));
    bench.go_live();
    bench.write(0x50, 0);
    bench.write(0x70, 15 | 128);
    bench.transport.wake(Wake::Socket { socket: 0, hung_up: false });
    assert_eq!(told.try_iter().collect::<Vec<_>>(), ["reset", "live", "served", "reset"]);
}

#[test]
fn features_that_were_not_offered_are_refused() {
    for (sel, features) in [(0, 1), (1, 0), (1, 3), (1, u32::MAX)] {
        let mut bench = bench();
        for (at, value) in [(0x70, 1), (0x70, 3), (0x24, sel), (0x20, features), (0x70, 11)] {
            bench.write(at, value);
        }
        assert_eq!(bench.read(0x70), 3, "features {features:#x} in word {sel}");
    }
}

#[test]
fn a_queue_outside_ram_is_never_ready() {
    for (register, high) in
        [(0x80, false), (0x90, false), (0xa0, false), (0x84, true), (0x94, true), (0xa4, true)]
    {
        let mut bench = bench();
        bench.negotiate();
        bench.write(register, if high { 0xffff_ffff } else { 0x01ff_fff0 });
        let rest = [(0x80, 0x1000), (0x90, 0x2000), (0xa0, 0x3000)];
        rest.iter().filter(|(at, _)| *at != register).for_each(|(at, value)| bench.write(*at, *value));
        bench.write(0x44, 1);
        assert_eq!(bench.read(0x44), 0, "register {register:#x}");
    }
}

#[test]
fn odd_accesses_reach_nothing() {
    let mut bench = bench();
    for (at, len) in [(0, 1), (1, 4), (0, 8), (2, 2), (0x0c8, 4), (0xfff, 1), (0x100, 8), (u64::MAX, 4)] {
        let mut out = vec![0xaa; len];
        bench.transport.load(at, &mut out);
        assert_eq!(out, vec![0; len], "{len} bytes at {at:#x}");
        bench.transport.store(at, &out);
    }
    // Behind the last queue, a features word that does not exist, a write-only register.
    bench.write(0x30, 1);
    assert_eq!(bench.read(0x34), 0);
    bench.write(0x14, 2);
    assert_eq!(bench.read(0x10), 0);
    assert_eq!(bench.read(0x50), 0);
}

#[test]
fn what_a_guest_causes_is_said_a_few_times_and_counted() {
    let mut bench = bench();
    let mut out = tempfile::tempfile().unwrap();
    bench.transport.wiring.journal = Arc::new(Journal::new(Some(out.try_clone().unwrap())));
    for _ in 0..100 {
        bench.go_live();
        Driver::new(&bench.ram, 0x1000).set_avail_index(SIZE + 1);
        bench.write(0x50, 0);
        assert_eq!(bench.read(0x70), 15 | NEEDS_RESET);
    }
    bench.transport.load(1, &mut [0; 4]);
    bench.transport.store(0x0c8, &[0; 4]);
    let counters = Counters { rung: 100, interrupts: 100, resets: 100, lost: 100, stray: 2 };
    assert_eq!(bench.transport.counters, counters);
    bench.transport.wake(Wake::Last);
    let mut said = String::new();
    std::io::Seek::rewind(&mut out).unwrap();
    std::io::Read::read_to_string(&mut out, &mut said).unwrap();
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), 11, "{said}");
    assert!(lines[0].starts_with("vmm: the guest has lost its entropy device: "), "{said}");
    let sum = "100 notifications, 100 interrupts, 100 resets, 100 losses, 2 stray accesses";
    assert_eq!(lines[10], format!("vmm: entropy device: {sum}"));
}

#[test]
fn cve_2026_5747_queue_size_is_frozen_by_driver_ok() {
    let mut bench = bench();
    bench.go_live();
    // Larger and smaller, by each way there is: the ring goes on as it was.
    for (at, value) in [(0x44, 0), (0x38, 256), (0x44, 1), (0x38, 1), (0x38, 4)] {
        bench.write(at, value);
    }
    let size = bench.transport.queues[0].size();
    assert_eq!((size, bench.transport.queues[0].ready()), (SIZE, true));
    let mut driver = Driver::new(&bench.ram, 0x1000);
    for index in 0..SIZE {
        driver.post_chain(index, &[(DATA, 8, WRITE)]);
    }
    bench.write(0x50, 0);
    assert_eq!(driver.used().len(), usize::from(SIZE));
    // Ready is final before DRIVER_OK as well.
    bench.negotiate();
    bench.set_up_queue();
    bench.write(0x38, 4);
    assert_eq!(bench.transport.queues[0].size(), SIZE);
}

#[test]
fn cve_2026_45782_nothing_completes_after_a_reset() {
    let mut bench = bench();
    bench.go_live();
    let mut driver = Driver::new(&bench.ram, 0x1000);
    driver.post_chain(0, &[(DATA, 64, WRITE)]);
    bench.write(0x70, 0);
    // The wake-ups of before the reset arrive late.
    bench.write(0x50, 0);
    for why in [Wake::Queue(0), Wake::Again, Wake::Socket { socket: 0, hung_up: true }, Wake::Last] {
        bench.transport.wake(why);
    }
    assert_eq!((driver.used(), driver.bytes(DATA, 64)), (vec![], vec![0; 64]));
    assert_eq!(bench.read(0x60), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Any order of accesses, any contents of RAM: no panic, and a reset always brings the device back.
    #[test]
    fn no_driver_panics_the_device(
        accesses in prop::collection::vec(
            (prop::sample::select(REGS.iter().map(|reg| reg.0).collect::<Vec<_>>()), any::<u32>(), 0_u8..8),
            0..128,
        ),
        noise in prop::collection::vec((0_u64..0x4000, any::<u64>()), 0..128),
        live in any::<bool>(),
    ) {
        let mut bench = bench();
        if live {
            bench.go_live();
        }
        for (at, value) in noise {
            bench.ram.memory().write_obj(value, GuestAddress(at)).unwrap();
        }
        for (at, value, choice) in accesses {
            match choice {
                0 => bench.write(0x50, 0),
                1 => bench.write(0x70, value & 0x8f),
                2 => bench.transport.wake(Wake::Again),
                3 => bench.transport.store(at, &value.to_le_bytes()[..2]),
                _ => bench.write(at, value),
            }
            bench.read(at);
        }
        bench.go_live();
    }
}

//! Puts a machine's board together: KVM's part, the buses, and an ordered list of devices.
#![forbid(unsafe_code)]

use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use hull_errors::Doing;
use kvm_bindings::{KVM_CAP_PMU_CAPABILITY, KVM_CAP_SPLIT_IRQCHIP, KVM_PMU_CAP_DISABLE, kvm_enable_cap};
use kvm_ioctls::{Kvm, VmFd};

use crate::boot::cmdline::MmioDevice;
use crate::bus::{Bus, BusBuilder, Window, lock};
use crate::config::{Filesystem, PreparedNet, SizedDisk};
use crate::device::serial::Serial;
use crate::device::virtio::balloon::Balloon;
use crate::device::virtio::block::{Backend, Block};
use crate::device::virtio::fs::{self, Fs};
use crate::device::virtio::mmio::{QUEUE_NOTIFY, STATUS, Transport, Wiring};
use crate::device::virtio::net::{self, Net};
use crate::device::virtio::pmem::Pmem;
use crate::device::virtio::rng::Rng;
use crate::device::virtio::vsock::Vsock;
use crate::device::virtio::{Device, Spec};
use crate::error::{Error, Kind};
use crate::events::{Events, Handle, Woken};
use crate::irq::Ioapic;
use crate::journal::Journal;
use crate::layout::{
    IDENTITY_MAP, IOAPIC, Region, SERIAL_PIN, SERIAL_PORT, SERIAL_PORTS, TSS, virtio_window,
};
use crate::memory::GuestRam;

/// The devices of a machine.
pub(crate) struct Wanted {
    pub vcpus: u8,
    pub disks: Vec<SizedDisk>,
    /// Where the images are mapped already.
    pub images: Vec<Region>,
    pub vsock: Option<Vec<(u32, UnixStream)>>,
    pub rng: bool,
    pub net: Vec<PreparedNet>,
    pub balloon: Option<u32>,
    pub filesystems: Vec<Filesystem>,
    pub console: Option<File>,
}

/// A finished board.
pub(crate) struct Board {
    pub mmio: Bus,
    pub pio: Bus,
    pub events: Arc<Events>,
    /// The virtio devices, by their number.
    pub devices: Vec<Arc<Mutex<dyn Woken>>>,
    pub mmio_devices: Vec<MmioDevice>,
    pub pins_used: Vec<u8>,
    pub pin_count: u8,
    /// The serial port's.
    pub console: Option<RawFd>,
    /// Whether there are file systems, which are served from outside.
    pub servers: bool,
}

pub(crate) fn create_vm(kvm: &Kvm) -> Result<VmFd, Error> {
    let doing = || "create a virtual machine".to_owned();
    loop {
        match kvm.create_vm() {
            // A signal came; KVM wants to be asked again.
            Err(err) if err.errno() == libc::EINTR => (),
            result => return result.doing(Kind::Host, doing),
        }
    }
}

/// No guest counts events: AMD's counters need no CPUID bit, so hiding the leaf is not enough.
pub(crate) fn disable_pmu(vm: &VmFd) -> Result<(), Error> {
    if vm.check_extension_raw(KVM_CAP_PMU_CAPABILITY.into()) & KVM_PMU_CAP_DISABLE.cast_signed() == 0 {
        // A KVM without a PMU for guests, or older than 5.18.
        return Ok(());
    }
    let mut cap = kvm_enable_cap { cap: KVM_CAP_PMU_CAPABILITY, ..Default::default() };
    cap.args[0] = KVM_PMU_CAP_DISABLE.into();
    vm.enable_cap(&cap).doing(Kind::Host, || "disable the guest's performance counters".to_owned())
}

/// Local APICs in the kernel; no PIC, no PIT, and the IOAPIC is ours.
pub(crate) fn create_irqchip(vm: &VmFd) -> Result<(), Error> {
    let doing = || "create the interrupt controllers".to_owned();
    let identity_map = IDENTITY_MAP.first;
    vm.set_identity_map_address(identity_map).doing(Kind::Host, doing)?;
    let tss = usize::try_from(TSS.first).expect("the TSS lies below 4 GiB");
    vm.set_tss_address(tss).doing(Kind::Host, doing)?;
    // No routes are reserved for the IOAPIC: its pins send messages, and nobody waits for their EOI.
    let split = kvm_enable_cap { cap: KVM_CAP_SPLIT_IRQCHIP, ..Default::default() };
    vm.enable_cap(&split).doing(Kind::UnfitKvm, doing)
}

/// Attaches the devices in the order in which the guest finds them: disks, images, vsock, rng, network,
/// balloon, file systems.
pub(crate) fn attach(
    wanted: Wanted,
    vm: &Arc<VmFd>,
    ram: &Arc<GuestRam>,
    entropy: &File,
) -> Result<Board, Error> {
    let console = wanted.console.as_ref().map(AsRawFd::as_raw_fd);
    let doing = || "share the console".to_owned();
    let virtio_count = wanted.disks.len()
        + wanted.images.len()
        + wanted.net.len()
        + wanted.filesystems.len()
        + usize::from(wanted.vsock.is_some())
        + usize::from(wanted.rng)
        + usize::from(wanted.balloon.is_some());
    let pins = Pins::plan(virtio_count, console.is_some());
    let ioapic = Ioapic::new(Arc::<VmFd>::clone(vm), pins.count, wanted.vcpus);
    let debug = wanted.console.as_ref().map(File::try_clone).transpose();
    let mut attaching = Attaching {
        ioapic,
        ram,
        pins: &pins,
        events: Events::new()?,
        mmio: BusBuilder::default(),
        pio: BusBuilder::default(),
        devices: Vec::new(),
        mmio_devices: Vec::new(),
        journal: Arc::new(Journal::new(debug.doing(Kind::Host, doing)?)),
    };
    attaching.ioapic();
    if let Some(console) = wanted.console {
        attaching.serial(console);
    }
    for (index, disk) in wanted.disks.into_iter().enumerate() {
        let backend = Backend::new(disk.file, disk.sectors, disk.read_only, index);
        let block = Block::new(backend, disk.limits);
        let spec = block.spec();
        attaching.virtio(spec, |_| Box::new(block));
    }
    for region in wanted.images {
        attaching.virtio(Pmem::spec(region), |_| Box::new(Pmem));
    }
    if let Some(ports) = wanted.vsock {
        attaching.virtio(Vsock::spec(), |events| Box::new(Vsock::new(ports, events)));
    }
    if wanted.rng {
        let source = entropy.try_clone().doing(Kind::Host, || "share /dev/urandom".to_owned())?;
        attaching.virtio(Rng::spec(), |_| Box::new(Rng::new(source)));
    }
    for PreparedNet { tap, address, gates } in wanted.net {
        let spec = Net::spec(address, tap.splits_udp);
        let backend = net::Backend::new(tap.file);
        attaching.virtio(spec, |events| Box::new(Net::new(backend, address, gates, events)));
    }
    if let Some(target_mib) = wanted.balloon {
        attaching.virtio(Balloon::spec(target_mib), |_| Box::new(Balloon::default()));
    }
    let servers = !wanted.filesystems.is_empty();
    for Filesystem { tag, server } in wanted.filesystems {
        let server = fs::Server::greet(server, &tag, ram)?;
        attaching.virtio(server.spec(&tag), |events| Box::new(Fs::new(server, tag, events)));
    }
    Ok(Board { servers, ..attaching.finish(console) })
}

/// Which interrupt pins there are.
#[derive(Debug, PartialEq, Eq)]
struct Pins {
    /// The n-th virtio device's.
    virtio: Vec<u8>,
    used: Vec<u8>,
    count: u8,
}

impl Pins {
    /// Virtio devices count from pin 1 (Linux takes 0 for "none") and leave the serial port's free.
    fn plan(virtio: usize, serial: bool) -> Self {
        let virtio: Vec<u8> = (1..).filter(|pin| !(serial && *pin == SERIAL_PIN)).take(virtio).collect();
        let mut used = virtio.clone();
        used.extend(serial.then_some(SERIAL_PIN));
        used.sort_unstable();
        let count = used.last().map_or(1, |last| last + 1);
        Self { virtio, used, count }
    }
}

struct Attaching<'a> {
    ioapic: Arc<Ioapic>,
    ram: &'a Arc<GuestRam>,
    pins: &'a Pins,
    events: Arc<Events>,
    mmio: BusBuilder,
    pio: BusBuilder,
    devices: Vec<Arc<Mutex<dyn Woken>>>,
    mmio_devices: Vec<MmioDevice>,
    /// What devices say goes to the console.
    journal: Arc<Journal>,
}

/// The layout has no overlaps: it is proven when it is compiled.
const DISJOINT: &str = "the windows of the layout are disjoint";

impl Attaching<'_> {
    fn ioapic(&mut self) {
        self.mmio.claim(IOAPIC, self.ioapic.window()).expect(DISJOINT);
    }

    fn serial(&mut self, console: File) {
        let serial = Serial::new(console, self.ioapic.line(SERIAL_PIN));
        let ports = Region { first: SERIAL_PORT.into(), size: SERIAL_PORTS.into() };
        self.pio.claim(ports, Arc::new(Mutex::new(serial))).expect(DISJOINT);
    }

    fn virtio(&mut self, spec: Spec, device: impl FnOnce(Handle) -> Box<dyn Device>) {
        let index = self.devices.len();
        let (window, pin) = (virtio_window(index), self.pins.virtio[index]);
        let number = u8::try_from(index).expect("the configuration limits the devices");
        let events = self.events.handle(number);
        let device = device(events.clone());
        let front = events.clone();
        let journal = Arc::clone(&self.journal);
        let wiring = Wiring { ram: Arc::clone(self.ram), irq: self.ioapic.line(pin), events, journal };
        let transport = Arc::new(Mutex::new(Transport::new(spec, device, wiring)));
        let front = Front { transport: Arc::clone(&transport), events: front };
        self.mmio.claim(window, Arc::new(Mutex::new(front))).expect(DISJOINT);
        self.devices.push(transport);
        self.mmio_devices.push(MmioDevice { window, pin });
    }

    fn finish(self, console: Option<RawFd>) -> Board {
        Board {
            mmio: self.mmio.freeze(),
            pio: self.pio.freeze(),
            events: self.events,
            devices: self.devices,
            mmio_devices: self.mmio_devices,
            pins_used: self.pins.used.clone(),
            pin_count: self.pins.count,
            console,
            servers: false,
        }
    }
}

/// A device's registers as vCPUs see them: what makes the device work is left to the event thread.
struct Front {
    transport: Arc<Mutex<Transport>>,
    events: Handle,
}

impl Window for Front {
    fn load(&mut self, at: u64, out: &mut [u8]) {
        lock(&self.transport).load(at, out);
    }

    fn store(&mut self, at: u64, bytes: &[u8]) {
        match (at, bytes.first_chunk::<4>()) {
            (QUEUE_NOTIFY, Some(queue)) if bytes.len() == 4 => self.events.ring(u32::from_le_bytes(*queue)),
            // A reset lets go of files and sockets; the driver goes on when it is done.
            (STATUS, _) => self.events.store(at, bytes),
            _ => lock(&self.transport).store(at, bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_in_use_and_no_more() {
        assert_eq!(Pins::plan(0, false), Pins { virtio: vec![], used: vec![], count: 1 });
        assert_eq!(Pins::plan(2, false), Pins { virtio: vec![1, 2], used: vec![1, 2], count: 3 });
        let with_serial = Pins { virtio: vec![1, 2, 3, 5], used: vec![1, 2, 3, 4, 5], count: 6 };
        assert_eq!(Pins::plan(4, true), with_serial);
        assert_eq!(Pins::plan(1, true), Pins { virtio: vec![1], used: vec![1, 4], count: 5 });
    }
}

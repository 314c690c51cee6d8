//! The MMIO transport, virtio 1.2 section 4.2: registers have names; the numbers live in one table.

use std::sync::Arc;

use virtio_queue::{Queue, QueueT};

use crate::bus::Window;
use crate::device::virtio::queue::{Drained, QUEUES_MAX, Rings, Violation};
use crate::device::virtio::status::{Effect, NEEDS_RESET, Phase};
use crate::device::virtio::{Device, F_EVENT_IDX, F_VERSION_1, Spec, Wake};
use crate::events::{Handle, Woken};
use crate::irq::IrqLine;
use crate::journal::Journal;
use crate::memory::GuestRam;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reg {
    MagicValue,
    Version,
    DeviceId,
    VendorId,
    DeviceFeatures,
    DeviceFeaturesSel,
    DriverFeatures,
    DriverFeaturesSel,
    QueueSel,
    QueueNumMax,
    QueueNum,
    QueueReady,
    QueueNotify,
    InterruptStatus,
    InterruptAck,
    Status,
    QueueDescLow,
    QueueDescHigh,
    QueueDriverLow,
    QueueDriverHigh,
    QueueDeviceLow,
    QueueDeviceHigh,
    ShmLenLow,
    ShmLenHigh,
    ConfigGeneration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Read,
    Write,
    Both,
}

/// The two registers that make a device work.
pub(crate) const QUEUE_NOTIFY: u64 = 0x050;
pub(crate) const STATUS: u64 = 0x070;

/// Section 4.2.2, in the order of the standard. All registers are 4 bytes wide.
const REGS: &[(u64, Reg, Access)] = &[
    (0x000, Reg::MagicValue, Access::Read),
    (0x004, Reg::Version, Access::Read),
    (0x008, Reg::DeviceId, Access::Read),
    (0x00c, Reg::VendorId, Access::Read),
    (0x010, Reg::DeviceFeatures, Access::Read),
    (0x014, Reg::DeviceFeaturesSel, Access::Write),
    (0x020, Reg::DriverFeatures, Access::Write),
    (0x024, Reg::DriverFeaturesSel, Access::Write),
    (0x030, Reg::QueueSel, Access::Write),
    (0x034, Reg::QueueNumMax, Access::Read),
    (0x038, Reg::QueueNum, Access::Write),
    (0x044, Reg::QueueReady, Access::Both),
    (QUEUE_NOTIFY, Reg::QueueNotify, Access::Write),
    (0x060, Reg::InterruptStatus, Access::Read),
    (0x064, Reg::InterruptAck, Access::Write),
    (STATUS, Reg::Status, Access::Both),
    (0x080, Reg::QueueDescLow, Access::Write),
    (0x084, Reg::QueueDescHigh, Access::Write),
    (0x090, Reg::QueueDriverLow, Access::Write),
    (0x094, Reg::QueueDriverHigh, Access::Write),
    (0x0a0, Reg::QueueDeviceLow, Access::Write),
    (0x0a4, Reg::QueueDeviceHigh, Access::Write),
    (0x0b0, Reg::ShmLenLow, Access::Read),
    (0x0b4, Reg::ShmLenHigh, Access::Read),
    (0x0fc, Reg::ConfigGeneration, Access::Read),
];

/// Where the device-specific configuration begins.
const CONFIG: u64 = 0x100;

// Sorted, aligned, below the configuration: checked by the compiler, not by a reviewer.
const _: () = {
    let mut i = 0;
    while i < REGS.len() {
        assert!(REGS[i].0.is_multiple_of(4) && REGS[i].0 < CONFIG);
        assert!(i == 0 || REGS[i - 1].0 < REGS[i].0);
        i += 1;
    }
};

const MAGIC: u32 = u32::from_le_bytes(*b"virt");
const VERSION: u32 = 2;
const VENDOR: u32 = u32::from_le_bytes(*b"hull");

/// Bits of the interrupt status, section 4.2.2.
const USED_BUFFER: u32 = 1;
const CONFIG_CHANGE: u32 = 2;

/// `None` for a hole, a wrong width, or an access that the register forbids.
fn lookup(offset: u64, width: usize, allowed: Access) -> Option<Reg> {
    let index = REGS.binary_search_by_key(&offset, |reg| reg.0).ok().filter(|_| width == 4)?;
    let (_, reg, access) = REGS[index];
    (access == Access::Both || access == allowed).then_some(reg)
}

/// The driver's side of the registers: everything that a reset clears.
#[derive(Debug)]
struct State {
    phase: Phase,
    needs_reset: bool,
    device_features_sel: u32,
    driver_features_sel: u32,
    driver_features: u64,
    queue_sel: u32,
    interrupts: u32,
}

impl State {
    const fn new() -> Self {
        Self {
            phase: Phase::Reset,
            needs_reset: false,
            device_features_sel: 0,
            driver_features_sel: 0,
            driver_features: 0,
            queue_sel: 0,
            interrupts: 0,
        }
    }
}

/// What a transport is wired to.
pub(crate) struct Wiring {
    pub ram: Arc<GuestRam>,
    pub irq: IrqLine,
    pub events: Handle,
    /// Where it is said why a device was lost, and what it has done.
    pub journal: Arc<Journal>,
}

/// What has happened since the machine began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counters {
    /// Notifications of the driver's.
    rung: u64,
    interrupts: u64,
    resets: u64,
    /// How often the driver broke the protocol.
    lost: u64,
    /// Accesses that no register allows.
    stray: u64,
}

/// One device behind its registers.
pub(crate) struct Transport {
    spec: Spec,
    device: Box<dyn Device>,
    queues: Vec<Queue>,
    state: State,
    counters: Counters,
    wiring: Wiring,
}

impl Transport {
    pub(crate) fn new(spec: Spec, device: Box<dyn Device>, wiring: Wiring) -> Self {
        let queues = spec
            .queue_sizes
            .iter()
            .map(|size| Queue::new(*size).expect("the sizes of our devices' queues are powers of two"));
        assert!(queues.len() <= QUEUES_MAX, "a device of ours has too many queues");
        Self {
            queues: queues.collect(),
            spec,
            device,
            state: State::new(),
            counters: Counters::default(),
            wiring,
        }
    }

    fn read(&self, reg: Reg) -> u32 {
        let queue = self.queues.get(self.state.queue_sel as usize);
        match reg {
            Reg::MagicValue => MAGIC,
            Reg::Version => VERSION,
            Reg::DeviceId => self.spec.id,
            Reg::VendorId => VENDOR,
            Reg::DeviceFeatures => half(self.spec.features, self.state.device_features_sel),
            Reg::QueueNumMax => queue.map_or(0, |queue| queue.max_size().into()),
            Reg::QueueReady => queue.map_or(0, |queue| queue.ready().into()),
            Reg::InterruptStatus => self.state.interrupts,
            Reg::Status if self.state.needs_reset => self.state.phase.bits() | NEEDS_RESET,
            Reg::Status => self.state.phase.bits(),
            // Section 4.2.2: the length of a region that does not exist.
            Reg::ShmLenLow | Reg::ShmLenHigh => u32::MAX,
            // The configuration never changes.
            _ => 0,
        }
    }

    fn write(&mut self, reg: Reg, value: u32) {
        match reg {
            Reg::DeviceFeaturesSel => self.state.device_features_sel = value,
            Reg::DriverFeaturesSel => self.state.driver_features_sel = value,
            Reg::DriverFeatures => self.write_features(value),
            Reg::QueueSel => self.state.queue_sel = value,
            Reg::QueueNotify => {
                if let Ok(queue) = u16::try_from(value) {
                    self.wake(Wake::Queue(queue));
                }
            }
            Reg::InterruptAck => self.state.interrupts &= !value,
            Reg::Status => self.write_status(value),
            _ => self.write_queue(reg, value),
        }
    }

    fn write_features(&mut self, value: u32) {
        let shift = match self.state.driver_features_sel {
            0 => 0,
            1 => 32,
            _ => return,
        };
        if self.state.phase == Phase::Driver {
            let keep = self.state.driver_features & !(u64::from(u32::MAX) << shift);
            self.state.driver_features = keep | (u64::from(value) << shift);
        }
    }

    /// Queues stand still from DRIVER_OK on: nothing is ever moved under a running device.
    fn write_queue(&mut self, reg: Reg, value: u32) {
        if self.state.phase != Phase::Negotiated {
            return;
        }
        let Some(queue) = self.queues.get_mut(self.state.queue_sel as usize) else { return };
        if reg == Reg::QueueReady {
            queue.set_ready(value == 1);
            let good = queue.is_valid(self.wiring.ram.memory());
            queue.set_ready(value == 1 && good);
            return;
        }
        if queue.ready() {
            return;
        }
        match reg {
            // A size that is not acceptable leaves the old one.
            Reg::QueueNum => queue.set_size(u16::try_from(value).unwrap_or(0)),
            Reg::QueueDescLow => queue.set_desc_table_address(Some(value), None),
            Reg::QueueDescHigh => queue.set_desc_table_address(None, Some(value)),
            Reg::QueueDriverLow => queue.set_avail_ring_address(Some(value), None),
            Reg::QueueDriverHigh => queue.set_avail_ring_address(None, Some(value)),
            Reg::QueueDeviceLow => queue.set_used_ring_address(Some(value), None),
            Reg::QueueDeviceHigh => queue.set_used_ring_address(None, Some(value)),
            _ => (),
        }
    }

    fn write_status(&mut self, value: u32) {
        let Some((phase, effect)) = self.state.phase.on_write(value) else { return };
        match effect {
            Effect::Nothing => (),
            Effect::ResetDevice => self.reset(),
            Effect::CheckFeatures if !self.features_acceptable() => return,
            Effect::CheckFeatures => (),
            Effect::Activate => {
                let event_idx = self.state.driver_features & F_EVENT_IDX != 0;
                self.queues.iter_mut().for_each(|queue| queue.set_event_idx(event_idx));
                self.device.activate(self.state.driver_features, &self.queues);
            }
            // It is woken no more: it must not wait for anything either.
            Effect::GiveUp => self.device.reset(),
        }
        self.state.phase = phase;
    }

    fn features_acceptable(&self) -> bool {
        let chosen = self.state.driver_features;
        chosen & !self.spec.features == 0 && chosen & F_VERSION_1 != 0 && self.device.accepts(chosen)
    }

    fn reset(&mut self) {
        self.counters.resets += 1;
        self.state = State::new();
        self.queues.iter_mut().for_each(QueueT::reset);
        self.device.reset();
    }

    fn serve(&mut self, why: Wake) -> Result<Drained, Violation> {
        let mut rings = Rings::new(&self.wiring.ram, &mut self.queues);
        let drained = self.device.serve(why, &mut rings)?;
        if rings.wants_interrupt()? {
            self.interrupt(USED_BUFFER);
        }
        Ok(drained)
    }

    fn interrupt(&mut self, cause: u32) {
        self.counters.interrupts += 1;
        self.state.interrupts |= cause;
        self.wiring.irq.raise();
    }

    /// The device's life in a line.
    fn sum_up(&self) {
        let Counters { rung, interrupts, resets, lost, stray } = self.counters;
        let own = [
            ("notifications", rung),
            ("interrupts", interrupts),
            ("resets", resets),
            ("losses", lost),
            ("stray accesses", stray),
        ];
        let all = own.into_iter().chain(self.device.counters()).filter(|(_, count)| *count != 0);
        let all: Vec<String> = all.map(|(name, count)| format!("{count} {name}")).collect();
        let name = self.spec.name();
        self.wiring.journal.say_unthrottled(format_args!("{name} device: {}", all.join(", ")));
    }

    /// The driver broke the protocol: the device stops until it is reset, the machine goes on.
    fn poison(&mut self, violation: &Violation) {
        self.counters.lost += 1;
        let name = self.spec.name();
        self.wiring.journal.warn(format_args!("the guest has lost its {name} device: {violation}"));
        self.state.needs_reset = true;
        self.device.reset();
        self.interrupt(CONFIG_CHANGE);
    }
}

impl Woken for Transport {
    fn wake(&mut self, why: Wake) {
        self.counters.rung += u64::from(matches!(why, Wake::Queue(_)));
        let known = !matches!(why, Wake::Queue(queue) if self.queues.len() <= usize::from(queue));
        if self.state.phase == Phase::Live && !self.state.needs_reset && known {
            match self.serve(why) {
                Ok(Drained::Empty) => (),
                Ok(Drained::More) => self.wiring.events.again(),
                Ok(Drained::Later(wait)) => self.wiring.events.later(wait),
                Err(violation) => self.poison(&violation),
            }
        }
        if why == Wake::Last {
            self.device.end();
            self.sum_up();
        }
    }
}

impl Window for Transport {
    fn load(&mut self, at: u64, out: &mut [u8]) {
        out.fill(0);
        if let Some(at) = at.checked_sub(CONFIG) {
            let config = usize::try_from(at).ok().and_then(|at| self.spec.config.get(at..)).unwrap_or(&[]);
            let len = out.len().min(config.len());
            out[..len].copy_from_slice(&config[..len]);
        } else if let Some(reg) = lookup(at, out.len(), Access::Read) {
            out.copy_from_slice(&self.read(reg).to_le_bytes());
        } else {
            self.counters.stray += 1;
        }
    }

    fn store(&mut self, at: u64, bytes: &[u8]) {
        if let (Some(reg), Some(value)) = (lookup(at, bytes.len(), Access::Write), bytes.first_chunk::<4>()) {
            self.write(reg, u32::from_le_bytes(*value));
        } else {
            self.counters.stray += 1;
        }
    }
}

/// The 32 bits of `features` that `select` names; there are none from 64 on.
fn half(features: u64, select: u32) -> u32 {
    match select {
        0 => (features & u64::from(u32::MAX)) as u32,
        1 => (features >> 32) as u32,
        _ => 0,
    }
}

#[cfg(test)]
#[path = "mmio_tests.rs"]
mod tests;

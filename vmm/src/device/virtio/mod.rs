//! Virtio devices (virtio 1.2). A device sees queues and guest RAM; the transport sees registers.
#![forbid(unsafe_code)]

pub(crate) mod balloon;
pub(crate) mod block;
pub(crate) mod fs;
pub(crate) mod mmio;
pub(crate) mod net;
pub(crate) mod pmem;
pub(crate) mod queue;
pub(crate) mod rng;
mod status;
pub(crate) mod vsock;

use virtio_queue::Queue;

use crate::device::virtio::queue::{Drained, Rings, Violation};

/// Feature bits of all devices, section 6.
pub(crate) const F_INDIRECT_DESC: u64 = 1 << 28;
pub(crate) const F_EVENT_IDX: u64 = 1 << 29;
pub(crate) const F_VERSION_1: u64 = 1 << 32;

/// What every device of ours offers.
pub(crate) const F_COMMON: u64 = F_VERSION_1 | F_EVENT_IDX | F_INDIRECT_DESC;

/// What a device is, as the driver finds it in registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spec {
    /// Section 5.
    pub id: u32,
    pub features: u64,
    /// Most entries of each queue; each a power of two.
    pub queue_sizes: &'static [u16],
    /// The device-specific configuration; the driver may only read it.
    pub config: Vec<u8>,
}

impl Spec {
    /// What people call it, section 5.
    fn name(&self) -> &'static str {
        match self.id {
            1 => "network",
            2 => "disk",
            4 => "entropy",
            5 => "balloon",
            19 => "socket",
            26 => "file system",
            27 => "memory",
            _ => "unnamed",
        }
    }
}

/// Why a device is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wake {
    /// The driver rang for this queue.
    Queue(u16),
    /// The device asked to be called once more.
    Again,
    /// A host socket is ready.
    Socket { socket: u32, hung_up: bool },
    /// The machine is over: finish what the driver has handed over.
    Last,
}

/// A device behind a transport.
pub(crate) trait Device: Send {
    /// Whether a driver that takes these features of those on offer can be served.
    fn accepts(&self, _features: u64) -> bool {
        true
    }

    /// The driver says DRIVER_OK, having taken these features and set these queues up.
    fn activate(&mut self, _features: u64, _queues: &[Queue]) {}

    /// Does a bounded amount of work. Called only while the driver says DRIVER_OK. An error costs the
    /// device: DEVICE_NEEDS_RESET.
    fn serve(&mut self, why: Wake, rings: &mut Rings<'_>) -> Result<Drained, Violation>;

    /// Forgets everything about the driver.
    fn reset(&mut self);

    /// What has happened since the machine began, by name.
    fn counters(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }

    /// The machine is over: lets go of what somebody on the host may be waiting for. Called last, in any
    /// state of the driver.
    fn end(&mut self) {}
}

//! Interrupts: an edge on an IOAPIC pin becomes a message to a local APIC, which KVM emulates.
#![forbid(unsafe_code)]

use std::sync::{Arc, Mutex};

use kvm_bindings::kvm_msi;
use kvm_ioctls::VmFd;

use crate::bus::{Window, lock};
use crate::device::ioapic::{Msi, Pins};

/// Where messages to local APICs go.
pub(crate) trait Messages: Send + Sync {
    fn send(&self, msi: Msi);
}

impl Messages for VmFd {
    fn send(&self, msi: Msi) {
        let msi = kvm_msi { address_lo: msi.address, data: msi.data, ..Default::default() };
        // KVM refuses what the guest has set up wrongly: such an interrupt reaches nobody.
        let _ = self.signal_msi(msi);
    }
}

/// The IOAPIC and the way out of it. A leaf in the lock order: nothing is locked while its pins are.
pub(crate) struct Ioapic {
    pins: Mutex<Pins>,
    messages: Arc<dyn Messages>,
}

impl Ioapic {
    pub(crate) fn new(messages: Arc<dyn Messages>, pin_count: u8, id: u8) -> Arc<Self> {
        Arc::new(Self { pins: Mutex::new(Pins::new(pin_count, id)), messages })
    }

    pub(crate) fn line(self: &Arc<Self>, pin: u8) -> IrqLine {
        IrqLine { ioapic: Arc::clone(self), pin }
    }

    pub(crate) fn window(self: &Arc<Self>) -> Arc<Mutex<dyn Window>> {
        Arc::new(Mutex::new(IoapicWindow(Arc::clone(self))))
    }

    fn send(&self, msi: Option<Msi>) {
        if let Some(msi) = msi {
            self.messages.send(msi);
        }
    }
}

/// A device's wire to one pin.
#[derive(Clone)]
pub(crate) struct IrqLine {
    ioapic: Arc<Ioapic>,
    pin: u8,
}

impl IrqLine {
    pub(crate) fn raise(&self) {
        let msi = lock(&self.ioapic.pins).raise(self.pin);
        self.ioapic.send(msi);
    }
}

struct IoapicWindow(Arc<Ioapic>);

impl Window for IoapicWindow {
    fn load(&mut self, at: u64, out: &mut [u8]) {
        let value = lock(&self.0.pins).load(at);
        out.fill(0);
        let len = out.len().min(4);
        out[..len].copy_from_slice(&value.to_le_bytes()[..len]);
    }

    fn store(&mut self, at: u64, bytes: &[u8]) {
        let Some(bytes) = bytes.first_chunk::<4>() else { return };
        let msi = lock(&self.0.pins).store(at, u32::from_le_bytes(*bytes));
        self.0.send(msi);
    }
}

//! The IOAPIC's registers (Intel 82093AA data sheet, section 3), with only the pins that are wired: the
//! kernel walks all pins there are, and each step of the walk is an exit. All pins are edge triggered.

use crate::boot::IOAPIC_VERSION;

/// Windows within the device, section 3.1.
const SELECT: u64 = 0x00;
const DATA: u64 = 0x10;

/// Registers behind the window, section 3.2.
const ID: u8 = 0x00;
const VERSION: u8 = 0x01;
const ARBITRATION: u8 = 0x02;
const ENTRIES: u8 = 0x10;

/// Fields of a redirection entry, section 3.2.4.
const MASKED: u64 = 1 << 16;
/// Delivery status and remote IRR are the hardware's own.
const READ_ONLY: u64 = (1 << 12) | (1 << 14);
const VECTOR_AND_MODE: u64 = 0x7ff;
const LOGICAL: u64 = 1 << 11;
const DESTINATION_SHIFT: u32 = 56;

/// Intel SDM volume 3, section 11.11 "Message Signalled Interrupts".
const MSI_ADDRESS: u32 = 0xfee0_0000;
const MSI_DESTINATION_SHIFT: u32 = 12;
const MSI_REDIRECTION_HINT: u32 = 1 << 3;
const MSI_LOGICAL: u32 = 1 << 2;
const LOWEST_PRIORITY: u64 = 1 << 8;
const DELIVERY_MODE: u64 = 7 << 8;

/// A message to a local APIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Msi {
    pub address: u32,
    pub data: u32,
}

#[derive(Clone, Copy, Debug)]
struct Pin {
    entry: u64,
    /// An edge came while the pin was masked; it is delivered when the mask goes.
    pending: bool,
}

/// All state of the device.
#[derive(Clone, Debug)]
pub(crate) struct Pins {
    select: u8,
    id: u8,
    pins: Vec<Pin>,
}

impl Pins {
    pub(crate) fn new(pin_count: u8, id: u8) -> Self {
        Self { select: 0, id, pins: vec![Pin { entry: MASKED, pending: false }; pin_count.into()] }
    }

    /// An edge on `pin`; the message to send for it, if the guest wants one now.
    pub(crate) fn raise(&mut self, pin: u8) -> Option<Msi> {
        let pin = self.pins.get_mut(usize::from(pin))?;
        pin.pending = true;
        pin.deliver()
    }

    pub(crate) fn load(&self, at: u64) -> u32 {
        match (at, self.select) {
            (SELECT, select) => select.into(),
            (DATA, ID | ARBITRATION) => u32::from(self.id) << 24,
            (DATA, VERSION) => {
                let last = self.pins.len().saturating_sub(1);
                u32::from(IOAPIC_VERSION) | (u32::try_from(last).unwrap_or(0) << 16)
            }
            (DATA, select) => self.half(select).map_or(0, |(pin, shift)| {
                let half = self.pins[pin].entry >> shift;
                (half & u64::from(u32::MAX)) as u32
            }),
            _ => 0,
        }
    }

    /// A write; it may unmask a pin with an edge waiting.
    pub(crate) fn store(&mut self, at: u64, value: u32) -> Option<Msi> {
        match at {
            SELECT => self.select = (value & 0xff) as u8,
            DATA if self.select == ID => self.id = (value >> 24 & 0xf) as u8,
            DATA => {
                let (index, shift) = self.half(self.select)?;
                let pin = &mut self.pins[index];
                let keep = !(u64::from(u32::MAX) << shift) | READ_ONLY;
                pin.entry = (pin.entry & keep) | ((u64::from(value) << shift) & !READ_ONLY);
                return pin.deliver();
            }
            _ => (),
        }
        None
    }

    /// The pin, and the bit its selected half begins at.
    fn half(&self, select: u8) -> Option<(usize, u32)> {
        let offset = usize::from(select.checked_sub(ENTRIES)?);
        let index = offset / 2;
        (index < self.pins.len()).then_some((index, if offset % 2 == 0 { 0 } else { 32 }))
    }
}

impl Pin {
    fn deliver(&mut self) -> Option<Msi> {
        if !self.pending || self.entry & MASKED != 0 {
            return None;
        }
        self.pending = false;
        let destination = (self.entry >> DESTINATION_SHIFT) as u32;
        let mut address = MSI_ADDRESS | (destination << MSI_DESTINATION_SHIFT);
        if self.entry & LOGICAL != 0 {
            address |= MSI_LOGICAL;
        }
        if self.entry & DELIVERY_MODE == LOWEST_PRIORITY {
            address |= MSI_REDIRECTION_HINT;
        }
        Some(Msi { address, data: (self.entry & VECTOR_AND_MODE) as u32 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn write(pins: &mut Pins, register: u8, value: u32) -> Option<Msi> {
        assert_eq!(pins.store(SELECT, register.into()), None);
        pins.store(DATA, value)
    }

    fn read(pins: &mut Pins, register: u8) -> u32 {
        pins.store(SELECT, register.into());
        pins.load(DATA)
    }

    #[test]
    fn the_kernel_sees_the_pins_in_use_and_no_more() {
        let mut pins = Pins::new(5, 1);
        assert_eq!(read(&mut pins, VERSION), 0x0004_0020);
        assert_eq!(read(&mut pins, ID), 1 << 24);
        assert_eq!(read(&mut pins, ENTRIES), 1 << 16);
        // Behind the last pin there is nothing to write to.
        assert_eq!(write(&mut pins, ENTRIES + 10, 0x30), None);
        assert_eq!(read(&mut pins, ENTRIES + 10), 0);
    }

    #[test]
    fn an_edge_is_a_message_as_the_entry_says() {
        let mut pins = Pins::new(3, 1);
        write(&mut pins, ENTRIES + 3, 0x0200_0000);
        write(&mut pins, ENTRIES + 2, 0x0000_0931);
        assert_eq!(pins.raise(1), Some(Msi { address: 0xfee0_200c, data: 0x131 }));
        write(&mut pins, ENTRIES + 2, 0x0000_0031);
        assert_eq!(pins.raise(1), Some(Msi { address: 0xfee0_2000, data: 0x31 }));
        assert_eq!(pins.raise(3), None);
    }

    #[test]
    fn an_edge_under_the_mask_waits_and_comes_once() {
        let mut pins = Pins::new(2, 1);
        write(&mut pins, ENTRIES + 2, 0x1_0031);
        assert_eq!(pins.raise(1), None);
        assert_eq!(pins.raise(1), None);
        assert_eq!(write(&mut pins, ENTRIES + 2, 0x31), Some(Msi { address: 0xfee0_0000, data: 0x31 }));
        assert_eq!(write(&mut pins, ENTRIES + 2, 0x31), None);
    }

    proptest! {
        #[test]
        fn no_access_panics(
            count in 0_u8..30,
            accesses in prop::collection::vec((0_u64..0x20, any::<u32>(), any::<u8>()), 0..64),
        ) {
            let mut pins = Pins::new(count, 1);
            for (at, value, pin) in accesses {
                pins.store(at, value);
                pins.load(at);
                pins.raise(pin);
            }
        }
    }
}

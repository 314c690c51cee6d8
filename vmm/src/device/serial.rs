//! COM1, output only: what the kernel and PID 1 print, for whoever asked for a console (16550 data sheet;
//! the parts that Linux' 8250 driver looks at).

use std::fs::File;
use std::io::Write;

use crate::bus::Window;
use crate::irq::IrqLine;

/// Register offsets.
const DATA: u64 = 0;
const INTERRUPT_ENABLE: u64 = 1;
const INTERRUPT_ID: u64 = 2;
const LINE_CONTROL: u64 = 3;
const MODEM_CONTROL: u64 = 4;
const LINE_STATUS: u64 = 5;
const MODEM_STATUS: u64 = 6;
const SCRATCH: u64 = 7;

/// Interrupt enable: the transmitter is empty.
const ENABLE_TRANSMITTER_EMPTY: u8 = 1 << 1;
/// Interrupt id: none pending; transmitter empty; FIFOs present.
const NONE_PENDING: u8 = 1;
const TRANSMITTER_EMPTY: u8 = 2;
const FIFOS: u8 = 0xc0;
/// Line control: the first two registers are the divisor.
const DIVISOR_ACCESS: u8 = 1 << 7;
/// Line status: holding register and transmitter are empty, always.
const ALL_SENT: u8 = 0x60;
/// Modem control: outputs are wired to inputs.
const LOOPBACK: u8 = 1 << 4;
/// Modem status: carrier, data set ready, clear to send.
const CONNECTED: u8 = 0xb0;

/// All state of the device, and where its output goes.
pub(crate) struct Serial {
    out: File,
    irq: IrqLine,
    divisor: [u8; 2],
    interrupt_enable: u8,
    line_control: u8,
    modem_control: u8,
    scratch: u8,
    transmitter_interrupt: bool,
}

impl Serial {
    pub(crate) fn new(out: File, irq: IrqLine) -> Self {
        Self {
            out,
            irq,
            divisor: [0; 2],
            interrupt_enable: 0,
            line_control: 0,
            modem_control: 0,
            scratch: 0,
            transmitter_interrupt: false,
        }
    }

    fn read(&mut self, at: u64) -> u8 {
        match at {
            DATA if self.divisor_access() => self.divisor[0],
            INTERRUPT_ENABLE if self.divisor_access() => self.divisor[1],
            INTERRUPT_ENABLE => self.interrupt_enable,
            INTERRUPT_ID if std::mem::take(&mut self.transmitter_interrupt) => FIFOS | TRANSMITTER_EMPTY,
            INTERRUPT_ID => FIFOS | NONE_PENDING,
            LINE_CONTROL => self.line_control,
            MODEM_CONTROL => self.modem_control,
            LINE_STATUS => ALL_SENT,
            MODEM_STATUS if self.modem_control & LOOPBACK != 0 => loop_back(self.modem_control),
            MODEM_STATUS => CONNECTED,
            SCRATCH => self.scratch,
            // Nothing is ever received.
            _ => 0,
        }
    }

    fn write(&mut self, at: u64, byte: u8) {
        match at {
            DATA if self.divisor_access() => self.divisor[0] = byte,
            DATA => self.transmit(byte),
            INTERRUPT_ENABLE if self.divisor_access() => self.divisor[1] = byte,
            INTERRUPT_ENABLE => {
                self.interrupt_enable = byte & 0x0f;
                self.say_empty();
            }
            LINE_CONTROL => self.line_control = byte,
            MODEM_CONTROL => self.modem_control = byte & 0x1f,
            SCRATCH => self.scratch = byte,
            _ => (),
        }
    }

    fn divisor_access(&self) -> bool {
        self.line_control & DIVISOR_ACCESS != 0
    }

    fn transmit(&mut self, byte: u8) {
        if self.modem_control & LOOPBACK == 0 {
            // Whoever asked for the console has gone: the guest shall not notice.
            let _ = self.out.write_all(&[byte]);
        }
        self.say_empty();
    }

    fn say_empty(&mut self) {
        self.transmitter_interrupt = self.interrupt_enable & ENABLE_TRANSMITTER_EMPTY != 0;
        if self.transmitter_interrupt {
            self.irq.raise();
        }
    }
}

/// Data terminal ready, request to send and the two outputs come back as the four inputs.
fn loop_back(control: u8) -> u8 {
    let bit = |from: u8, to: u8| if control & (1 << from) != 0 { 1 << to } else { 0 };
    bit(0, 5) | bit(1, 4) | bit(2, 6) | bit(3, 7)
}

impl Window for Serial {
    fn load(&mut self, at: u64, out: &mut [u8]) {
        for (at, byte) in (at..).zip(out) {
            *byte = self.read(at);
        }
    }

    /// A string of bytes comes from one `rep outsb`: all of it is for the first port.
    fn store(&mut self, at: u64, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write(at, *byte));
    }
}

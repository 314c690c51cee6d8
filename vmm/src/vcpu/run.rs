//! The life of a vCPU thread: guest code until an exit needs us, then the bus, then guest code again.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kvm_ioctls::{VcpuExit, VcpuFd};

use crate::bus::Bus;
use crate::layout::DOORBELL_PORT;
use crate::machine::Halt;

/// What all vCPUs share.
pub(crate) struct Shared {
    pub mmio: Bus,
    pub pio: Bus,
    /// The machine is over: whoever is kicked out of KVM_RUN does not go back.
    pub over: AtomicBool,
}

/// Runs guest code until the machine ends.
pub(crate) fn run(vcpu: &mut VcpuFd, shared: &Arc<Shared>) -> Halt {
    while !shared.over.load(Ordering::Acquire) {
        if let Some(halt) = step(vcpu, shared) {
            return halt;
        }
    }
    Halt::Stopped
}

/// One exit.
fn step(vcpu: &mut VcpuFd, shared: &Shared) -> Option<Halt> {
    let fault = match vcpu.run() {
        Ok(VcpuExit::IoOut(DOORBELL_PORT, &[code])) => return Some(Halt::PowerOff { code }),
        Ok(VcpuExit::IoOut(port, bytes)) => {
            shared.pio.store(port.into(), bytes);
            return None;
        }
        Ok(VcpuExit::IoIn(port, bytes)) => {
            shared.pio.load(port.into(), bytes);
            return None;
        }
        Ok(VcpuExit::MmioRead(address, bytes)) => {
            shared.mmio.load(address, bytes);
            return None;
        }
        Ok(VcpuExit::MmioWrite(address, bytes)) => {
            shared.mmio.store(address, bytes);
            return None;
        }
        Ok(VcpuExit::Shutdown) => return Some(Halt::Reset),
        Ok(exit) => format!("KVM cannot go on: {exit:?}"),
        // A signal; the loop looks whether it was meant for us.
        Err(err) if matches!(err.errno(), libc::EINTR | libc::EAGAIN) => return None,
        Err(err) => format!("KVM_RUN fails: {err}"),
    };
    Some(Halt::Fault(format!("{fault}{}", place(vcpu))))
}

/// Where the vCPU stands, for whoever has to find out why.
fn place(vcpu: &VcpuFd) -> String {
    vcpu.get_regs().map_or_else(|_| String::new(), |regs| format!(" (at rip {:#x})", regs.rip))
}

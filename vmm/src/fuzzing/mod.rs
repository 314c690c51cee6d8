//! Ways in for the fuzzer: each reads bytes as what a guest does, or as a file or a table from outside,
//! and asserts what must hold whatever they are. Nothing else may use this module.
#![expect(clippy::unwrap_used, reason = "a finding is a panic, and so is a host that cannot search")]

mod block;
mod boot;
mod fs;
mod input;
mod limits;
mod net;
mod queues;
mod registers;
mod vsock;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use vmm_sys_util::tempfile::TempFile;

use crate::device::ioapic::Msi;
use crate::irq::{Ioapic, IrqLine, Messages};
use crate::layout::Region;
use crate::memory::GuestRam;

pub use block::block;
pub use boot::{boot_tables, command_line, cpuid, initramfs, kernel};
pub use fs::file_server;
pub use limits::limits;
pub use net::net;
pub use queues::{balloon, pmem, queue, rng};
pub use registers::{ioapic, mmio, serial};
pub use vsock::{vsock_packets, vsock_queues};

/// RAM of the searched machine: enough for three queues and some buffers.
const RAM_SIZE: u64 = 0x2_0000;

fn ram() -> Arc<GuestRam> {
    Arc::new(GuestRam::new(&[Region { first: 0, size: RAM_SIZE }]).unwrap())
}

/// Interrupts without a machine to take them.
struct Nobody;

impl Messages for Nobody {
    fn send(&self, msi: Msi) {
        assert_eq!(msi.address >> 20, 0xfee, "every message goes to a local APIC: {msi:?}");
    }
}

fn line() -> IrqLine {
    Ioapic::new(Arc::new(Nobody), 2, 1).line(1)
}

/// A file with these contents that has no name.
fn file(bytes: &[u8]) -> File {
    let file = TempFile::new().unwrap();
    // The name goes with `TempFile`, the file stays.
    let open = file.as_file().try_clone().unwrap();
    open.write_all_at(bytes, 0).unwrap();
    open
}

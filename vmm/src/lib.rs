//! hull's virtual machine monitor: one small Linux guest on KVM, for x86-64.
//!
//! A machine is built in steps that consume each other: [`VmConfig`] -> [`Machine`]`<Cold>` (KVM, RAM,
//! devices) -> `<Loaded>` (kernel and boot data are in RAM) ->
//! `<Live>` (vCPU threads run guest code) -> [`Halt`].
//!
//! The crate knows no pods, no images and no agent. What the guest does is hostile input from its first
//! instruction on: a broken protocol costs the device, at most the machine, never the process.

mod assembly;
mod boot;
mod bus;
mod calls;
mod config;
mod confinement;
mod device;
mod error;
mod events;
#[doc(hidden)]
pub mod fuzzing;
mod host;
mod irq;
mod journal;
mod layout;
mod machine;
mod memory;
mod probe;
mod sys;
mod tap;
mod undertaker;
mod vcpu;
mod volatile_io;

pub use boot::initramfs::InitramfsFile;
#[doc(hidden)]
pub use calls::{Files, Role};
pub use config::{Asked, Disk, Filesystem, Net, VmConfig, Vsock, VsockPort};
pub use confinement::enter;
pub use device::limit::{Limits, Rate};
pub use error::{Error, Kind};
pub use host::HostFiles;
pub use layout::{DOORBELL_PORT, GUEST_CID, HOST_CID, RAM_MIB_MAX, RAM_MIB_MIN, VCPUS_MAX};
pub use machine::{Cold, Halt, Live, Loaded, Machine, Stopper};
pub use probe::probe;
pub use tap::open_tap;

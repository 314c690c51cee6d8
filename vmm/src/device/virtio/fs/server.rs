//! The front end of vhost-user (QEMU's `docs/interop/vhost-user.rst`): what the server is told, and what it answers.
//! It may have been taken over by a guest, so that its answers are waited for only so long and say only yes or no.

use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use hull_errors::Doing;
use vhost::vhost_user::message::{VhostUserHeaderFlag, VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use virtio_queue::{Queue, QueueT};
use vmm_sys_util::eventfd::EventFd;

use super::{ID, QUEUE_SIZES, TAG_MAX};
use crate::device::virtio::{F_COMMON, F_VERSION_1, Spec};
use crate::error::{Error, Kind};
use crate::memory::GuestRam;

/// How long the server may take for an answer. It has nothing to do but to map memory.
const PATIENCE: Duration = Duration::from_secs(10);

/// A server that has been told which memory the guest has, and its bells.
pub(crate) struct Server {
    frontend: Frontend,
    /// For its number only: the front end reads and writes.
    socket: UnixStream,
    features: u64,
    kicks: Vec<EventFd>,
    calls: Vec<EventFd>,
}

impl Server {
    /// Says hello and hands the RAM over, which has to be a file.
    pub(crate) fn greet(socket: UnixStream, tag: &str, ram: &Arc<GuestRam>) -> Result<Self, Error> {
        let doing = || format!("talk to the file server of {tag}");
        socket.set_read_timeout(Some(PATIENCE)).doing(Kind::Host, doing)?;
        socket.set_write_timeout(Some(PATIENCE)).doing(Kind::Host, doing)?;
        let ours = socket.try_clone().doing(Kind::Host, doing)?;
        let mut frontend = Frontend::from_stream(socket, QUEUE_SIZES.len() as u64);
        let features = agree(&mut frontend).doing(Kind::Host, doing)?;
        if features & F_VERSION_1 == 0 {
            return Err(Error::new(Kind::Host, format!("{}: it is none of virtio 1", doing())));
        }
        frontend.set_mem_table(&regions(ram)).doing(Kind::Host, doing)?;
        let bells = || QUEUE_SIZES.iter().map(|_| EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC));
        let kicks = bells().collect::<Result<_, _>>().doing(Kind::Host, doing)?;
        let calls = bells().collect::<Result<_, _>>().doing(Kind::Host, doing)?;
        Ok(Self { frontend, socket: ours, features, kicks, calls })
    }

    /// What the driver finds.
    pub(crate) fn spec(&self, tag: &str) -> Spec {
        // `struct virtio_fs_config`: tag, num_request_queues.
        let mut config = tag.as_bytes().to_vec();
        config.resize(TAG_MAX, 0);
        config.extend(1_u32.to_le_bytes());
        Spec { id: ID, features: F_COMMON & self.features, queue_sizes: &QUEUE_SIZES, config }
    }

    pub(crate) fn socket(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// What the driver rings, queue by queue.
    pub(crate) fn kicks(&self) -> &[EventFd] {
        &self.kicks
    }

    /// What the server rings.
    pub(crate) fn calls(&self) -> &[EventFd] {
        &self.calls
    }

    /// Hands the queues over: those that the driver has set up.
    pub(crate) fn start(&mut self, features: u64, queues: &[Queue]) -> Result<(), String> {
        self.try_start(features, queues).map_err(|why| why.to_string())
    }

    fn try_start(&mut self, features: u64, queues: &[Queue]) -> vhost::Result<()> {
        let protocol = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
        self.frontend.set_features(features | (self.features & protocol))?;
        let bells = self.calls.iter().zip(&self.kicks);
        for (index, (queue, (call, kick))) in
            queues.iter().zip(bells).enumerate().filter(|(_, (q, _))| q.ready())
        {
            self.frontend.set_vring_num(index, queue.size())?;
            self.frontend.set_vring_addr(index, &addresses(queue))?;
            self.frontend.set_vring_base(index, 0)?;
            self.frontend.set_vring_call(index, call)?;
            self.frontend.set_vring_kick(index, kick)?;
            self.frontend.set_vring_enable(index, true)?;
        }
        Ok(())
    }

    /// Takes the queues back: from now on the server touches none of them.
    pub(crate) fn stop(&mut self) -> Result<(), String> {
        for index in 0..QUEUE_SIZES.len() {
            // The answer says where the server stands; the driver begins anew anyway.
            self.frontend.get_vring_base(index).map_err(|why| why.to_string())?;
        }
        // What was rung for the old queues says nothing about new ones.
        self.kicks.iter().chain(&self.calls).for_each(|bell| drop(bell.read()));
        Ok(())
    }
}

/// What both can do.
fn agree(frontend: &mut Frontend) -> vhost::Result<u64> {
    frontend.set_owner()?;
    let features = frontend.get_features()?;
    if features & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() != 0 {
        let acknowledged = VhostUserProtocolFeatures::REPLY_ACK;
        let known = frontend.get_protocol_features()? & acknowledged;
        frontend.set_protocol_features(known)?;
        if known.contains(acknowledged) {
            frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        }
    }
    Ok(features)
}

/// Both sides call the guest's addresses what the guest calls them: ours are nobody's business.
fn regions(ram: &GuestRam) -> Vec<VhostUserMemoryRegionInfo> {
    let Some((file, parts)) = ram.file() else { return Vec::new() };
    let region = |part: &crate::memory::Part| VhostUserMemoryRegionInfo {
        guest_phys_addr: part.region.first,
        memory_size: part.region.size,
        userspace_addr: part.region.first,
        mmap_offset: part.offset,
        mmap_handle: file.as_raw_fd(),
    };
    parts.iter().map(region).collect()
}

/// The transport has checked that all of it is RAM.
fn addresses(queue: &Queue) -> VringConfigData {
    VringConfigData {
        queue_max_size: queue.max_size(),
        queue_size: queue.size(),
        flags: 0,
        desc_table_addr: queue.desc_table(),
        used_ring_addr: queue.used_ring(),
        avail_ring_addr: queue.avail_ring(),
        log_addr: None,
    }
}

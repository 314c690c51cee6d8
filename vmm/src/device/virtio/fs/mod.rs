//! The file system device, virtio 1.2 section 5.11: its queues are served by another process, which maps the
//! guest's RAM. Here they are only handed over: a ring of the driver's becomes a ring of an eventfd, and the other
//! way round.

mod server;

use std::os::fd::AsRawFd;

use virtio_queue::Queue;
use vmm_sys_util::eventfd::EventFd;

pub(crate) use self::server::Server;
use crate::device::virtio::queue::{Drained, Rings, Violation};
use crate::device::virtio::{Device, Wake};
use crate::events::{Handle, Interest};

const ID: u32 = 26;

/// Longest tag, in bytes (section 5.11.4).
pub(crate) const TAG_MAX: usize = 36;

/// What goes first, and the one queue of requests (section 5.11.2). A request has as many pages as fit in its queue.
const QUEUE_SIZES: [u16; 2] = [64, 1024];

/// How the server's own socket is told from the eventfds of the queues, which have their numbers.
const SERVER: u32 = QUEUE_SIZES.len() as u32;

const READABLE: Interest = Interest { readable: true, writable: false };
const NOTHING: Interest = Interest { readable: false, writable: false };

pub(crate) struct Fs {
    server: Server,
    tag: String,
    events: Handle,
    /// The driver says DRIVER_OK, and the server knows.
    running: bool,
}

impl Fs {
    pub(crate) fn new(server: Server, tag: String, events: Handle) -> Self {
        Self { server, tag, events, running: false }
    }

    /// What is watched is served only while the driver says DRIVER_OK.
    fn watch(&self, old: Interest, new: Interest) {
        let calls = self.server.calls().iter().map(AsRawFd::as_raw_fd);
        for (socket, fd) in (0..).zip(calls.chain([self.server.socket()])) {
            if let Err(why) = self.events.watch(fd, socket, old, new) {
                self.fail(&why.to_string());
            }
        }
    }

    /// A guest whose requests nobody answers would hang, and what it had written might be lost: that ends the
    /// machine, and says why.
    fn fail(&self, why: &str) {
        self.events.fail(format!("the file server of {} failed: {why}", self.tag));
    }
}

impl Device for Fs {
    fn activate(&mut self, features: u64, queues: &[Queue]) {
        match self.server.start(features, queues) {
            Ok(()) => {
                self.running = true;
                self.watch(NOTHING, READABLE);
            }
            Err(why) => self.fail(&why),
        }
    }

    fn serve(&mut self, why: Wake, rings: &mut Rings<'_>) -> Result<Drained, Violation> {
        match why {
            // A counter that is full has rung already.
            Wake::Queue(queue) => drop(self.server.kicks().get(usize::from(queue)).map(|bell| bell.write(1))),
            Wake::Socket { socket: SERVER, .. } => self.fail("it has gone, or broke the protocol"),
            Wake::Socket { socket, .. } => {
                // Only to make it unready: how often it rang says nothing.
                drop(self.server.calls().get(socket as usize).map(EventFd::read));
                rings.interrupt();
            }
            Wake::Again | Wake::Last => (),
        }
        Ok(Drained::Empty)
    }

    fn reset(&mut self) {
        if std::mem::take(&mut self.running) {
            self.watch(READABLE, NOTHING);
            if let Err(why) = self.server.stop() {
                self.fail(&why);
            }
        }
    }
}

#[cfg(test)]
mod tests;

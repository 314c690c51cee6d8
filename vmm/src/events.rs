//! The one thread beside the vCPUs: a ready host socket, or work that a device was too busy to finish,
//! becomes a wake-up of that device.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hull_errors::Doing;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

use crate::bus::lock;
use crate::device::virtio::Wake;
use crate::error::{Error, Kind};
use crate::layout::DEVICES_MAX;

/// Epoll data of the eventfd; sockets have the device in the upper and the socket in the lower half.
const WAKE: u64 = u64::MAX;
/// Bit of `owed` that ends the thread; the bits below it are devices.
const END: u32 = 63;
/// Events taken by one system call.
const BATCH: usize = 16;

const _: () = assert!(DEVICES_MAX <= END as usize);

/// Something that wants to be woken: a device behind its transport.
pub(crate) trait Woken: Send {
    fn wake(&mut self, why: Wake);
}

/// What devices know of the thread.
pub(crate) struct Events {
    epoll: Epoll,
    wake: EventFd,
    owed: AtomicU64,
    /// Why the machine cannot go on.
    fault: Mutex<Option<String>>,
    /// When devices want to be woken again.
    due: Mutex<[Option<Instant>; DEVICES_MAX]>,
}

impl Events {
    pub(crate) fn new() -> Result<Arc<Self>, Error> {
        let doing = || "create the event loop".to_owned();
        let epoll = Epoll::new().doing(Kind::Host, doing)?;
        let wake = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC).doing(Kind::Host, doing)?;
        let event = EpollEvent::new(EventSet::IN, WAKE);
        epoll.ctl(ControlOperation::Add, wake.as_raw_fd(), event).doing(Kind::Host, doing)?;
        Ok(Arc::new(Self {
            epoll,
            wake,
            owed: AtomicU64::new(0),
            fault: Mutex::default(),
            due: Mutex::default(),
        }))
    }

    pub(crate) fn handle(self: &Arc<Self>, device: u8) -> Handle {
        Handle { events: Arc::clone(self), device }
    }

    /// Ends the thread, after it has told each device that the machine is over.
    pub(crate) fn end(&self) {
        self.owe(END);
    }

    /// What ended the thread, if it was a device.
    pub(crate) fn fault(&self) -> Option<String> {
        lock(&self.fault).take()
    }

    fn owe(&self, bit: u32) {
        self.owed.fetch_or(1 << bit, Ordering::Release);
        // A full counter has woken the thread already.
        let _ = self.wake.write(1);
    }

    /// The thread. `devices` are in the order of their numbers.
    pub(crate) fn run(&self, devices: &[Arc<Mutex<dyn Woken>>]) {
        let mut batch = [EpollEvent::default(); BATCH];
        loop {
            let count = match self.epoll.wait(self.serve_due(devices), &mut batch) {
                Ok(count) => count,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
                Err(err) => unreachable!("waiting on our own epoll descriptor: {err}"),
            };
            for event in &batch[..count] {
                if event.data() == WAKE {
                    if self.serve_owed(devices) {
                        devices.iter().for_each(|device| lock(device).wake(Wake::Last));
                        return;
                    }
                } else if let Some(device) = devices.get((event.data() >> 32) as usize) {
                    let hung_up = event.event_set().contains(EventSet::HANG_UP);
                    lock(device).wake(Wake::Socket { socket: event.data() as u32, hung_up });
                }
            }
        }
    }

    /// One bounded round for each device whose time has come; how long the next has to wait, for epoll.
    fn serve_due(&self, devices: &[Arc<Mutex<dyn Woken>>]) -> i32 {
        for (index, device) in devices.iter().enumerate() {
            if lock(&self.due)[index].take_if(|at| *at <= Instant::now()).is_some() {
                lock(device).wake(Wake::Again);
            }
        }
        let next = lock(&self.due).iter().flatten().min().copied();
        // Up to the next millisecond: too early is for nothing.
        let wait = next.map(|at| at.saturating_duration_since(Instant::now()).as_millis() + 1);
        wait.map_or(-1, |ms| i32::try_from(ms).unwrap_or(i32::MAX))
    }

    /// One bounded round for each device that asked; true if the machine is over.
    fn serve_owed(&self, devices: &[Arc<Mutex<dyn Woken>>]) -> bool {
        // Only to make it unready: the bits say what is to be done.
        let _ = self.wake.read();
        let owed = self.owed.swap(0, Ordering::Acquire);
        for (index, device) in devices.iter().enumerate() {
            if owed & (1 << index) != 0 {
                lock(device).wake(Wake::Again);
            }
        }
        owed & (1 << END) != 0
    }
}

/// One device's access to the thread.
#[derive(Clone)]
pub(crate) struct Handle {
    events: Arc<Events>,
    device: u8,
}

/// What a device waits for on a socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Interest {
    pub readable: bool,
    pub writable: bool,
}

impl Interest {
    fn any(self) -> bool {
        self.readable || self.writable
    }

    fn events(self) -> EventSet {
        let mut events = EventSet::empty();
        events.set(EventSet::IN | EventSet::READ_HANG_UP, self.readable);
        events.set(EventSet::OUT, self.writable);
        events
    }
}

impl Handle {
    /// The device has more to do than one wake-up may take.
    pub(crate) fn again(&self) {
        self.events.owe(self.device.into());
    }

    /// The device cannot do its work any more, and the guest could not do without: the machine ends.
    pub(crate) fn fail(&self, why: String) {
        lock(&self.events.fault).get_or_insert(why);
        self.events.end();
    }

    /// The device has more to do, but not before so much time has passed.
    pub(crate) fn later(&self, wait: Duration) {
        let at = Instant::now() + wait;
        let mut due = lock(&self.events.due);
        let due = &mut due[usize::from(self.device)];
        if due.is_none_or(|other| at < other) {
            *due = Some(at);
            // The thread waits for something else.
            let _ = self.events.wake.write(1);
        }
    }

    /// Changes what is waited for. Nothing is a removal: epoll reports a hang-up whether asked or not.
    pub(crate) fn watch(&self, fd: RawFd, socket: u32, old: Interest, new: Interest) -> io::Result<()> {
        if old == new {
            return Ok(());
        }
        let operation = match (old.any(), new.any()) {
            (false, _) => ControlOperation::Add,
            (true, true) => ControlOperation::Modify,
            (true, false) => ControlOperation::Delete,
        };
        let data = (u64::from(self.device) << 32) | u64::from(socket);
        self.events.epoll.ctl(operation, fd, EpollEvent::new(new.events(), data))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};

    struct Probe(Sender<Wake>);

    impl Woken for Probe {
        fn wake(&mut self, why: Wake) {
            self.0.send(why).unwrap();
        }
    }

    fn probe() -> (Arc<Mutex<dyn Woken>>, Receiver<Wake>) {
        let (sender, wakes) = channel();
        (Arc::new(Mutex::new(Probe(sender))), wakes)
    }

    const DEADLINE: Duration = Duration::from_secs(10);

    #[test]
    fn who_waits_is_woken_in_time_and_once() {
        let events = Events::new().unwrap();
        let ((first, first_wakes), (second, second_wakes)) = (probe(), probe());
        let devices = [first, second];
        std::thread::scope(|scope| {
            scope.spawn(|| events.run(&devices));
            let asked = Instant::now();
            let late = events.handle(1);
            late.later(Duration::from_secs(3600));
            late.later(Duration::from_millis(20));
            // Later than what is due already: it comes sooner.
            late.later(Duration::from_secs(3600));
            assert_eq!(second_wakes.recv_timeout(DEADLINE), Ok(Wake::Again));
            assert!(Duration::from_millis(20) <= asked.elapsed());
            events.end();
            assert_eq!(second_wakes.recv_timeout(DEADLINE), Ok(Wake::Last));
        });
        assert_eq!(first_wakes.try_iter().collect::<Vec<_>>(), [Wake::Last]);
    }
}

//! The one thread beside the vCPUs, and the only one in which devices work: a queue that the guest rang for, a ready
//! host socket, or work that a device was too busy to finish, becomes a wake-up of that device. vCPU threads
//! touch no file and no socket, so that their list of system calls is short.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use hull_errors::Doing;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

use crate::bus::{Window, lock};
use crate::device::virtio::Wake;
use crate::error::{Error, Kind};
use crate::layout::DEVICES_MAX;

/// Epoll data of the eventfd; sockets have the device in the upper and the socket in the lower half.
const WAKE: u64 = u64::MAX;
/// Bit of `owed` that ends the thread; the bits below it are devices.
const END: u32 = 63;
/// Bit of a device's calls that asks for [`Wake::Again`]; the bits below it are queues.
const AGAIN: u32 = 63;
/// Events taken by one system call.
const BATCH: usize = 16;
/// Longest access to a window, in bytes.
const ACCESS_MAX: usize = 8;

const _: () = assert!(DEVICES_MAX <= END as usize);

/// Something that wants to be woken: a device behind its transport.
pub(crate) trait Woken: Window {
    fn wake(&mut self, why: Wake);
}

/// What devices know of the thread.
pub(crate) struct Events {
    epoll: Epoll,
    wake: EventFd,
    /// The devices that have calls.
    owed: AtomicU64,
    /// Why the machine cannot go on.
    fault: Mutex<Option<String>>,
    /// When devices want to be woken again.
    due: Mutex<[Option<Instant>; DEVICES_MAX]>,
    /// Of each device, what for.
    calls: [AtomicU64; DEVICES_MAX],
    desk: Mutex<Desk>,
    served: Condvar,
}

/// Where vCPUs wait while the thread does something for them.
#[derive(Default)]
struct Desk {
    /// At most one of each vCPU: it waits.
    asked: Vec<Store>,
    /// How many have asked and how many have been served, in the machine's life.
    tickets: u64,
    served: u64,
    /// Nobody serves any more.
    closed: bool,
}

/// A write to a device's window.
struct Store {
    device: u8,
    at: u64,
    bytes: [u8; ACCESS_MAX],
    len: usize,
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
            calls: [const { AtomicU64::new(0) }; DEVICES_MAX],
            desk: Mutex::default(),
            served: Condvar::new(),
        }))
    }

    pub(crate) fn handle(self: &Arc<Self>, device: u8) -> Handle {
        Handle { events: Arc::clone(self), device }
    }

    /// What wakes the thread.
    pub(crate) fn waker(&self) -> RawFd {
        self.wake.as_raw_fd()
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
        // Whoever was first has woken the thread, or is about to.
        if self.owed.fetch_or(1 << bit, Ordering::AcqRel) == 0 {
            // A full counter has woken the thread already.
            let _ = self.wake.write(1);
        }
    }

    fn call(&self, device: u8, bit: u32) {
        self.calls[usize::from(device)].fetch_or(1 << bit, Ordering::AcqRel);
        self.owe(device.into());
    }

    /// Has the thread write to a window, and waits for that.
    fn store(&self, store: Store) {
        let mut desk = lock(&self.desk);
        let ticket = desk.tickets;
        desk.tickets += 1;
        desk.asked.push(store);
        // Always: the thread may have looked at the desk already in a round that was owed to another.
        let _ = self.wake.write(1);
        while desk.served <= ticket && !desk.closed {
            desk = self.served.wait(desk).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
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
                        lock(&self.desk).closed = true;
                        self.served.notify_all();
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
        // Before the bits, and served after them: what a vCPU did before it asked is done first.
        let asked = std::mem::take(&mut lock(&self.desk).asked);
        let owed = self.owed.swap(0, Ordering::AcqRel);
        for (index, device) in devices.iter().enumerate().filter(|(index, _)| owed & (1 << index) != 0) {
            let calls = self.calls[index].swap(0, Ordering::AcqRel);
            for queue in (0..AGAIN).filter(|queue| calls & (1 << queue) != 0) {
                let queue = u16::try_from(queue).expect("there are 63 bits");
                lock(device).wake(Wake::Queue(queue));
            }
            if calls & (1 << AGAIN) != 0 {
                lock(device).wake(Wake::Again);
            }
        }
        self.serve_desk(devices, &asked);
        owed & (1 << END) != 0
    }

    fn serve_desk(&self, devices: &[Arc<Mutex<dyn Woken>>], asked: &[Store]) {
        if asked.is_empty() {
            return;
        }
        for Store { device, at, bytes, len } in asked {
            if let Some(device) = devices.get(usize::from(*device)) {
                lock(device).store(*at, &bytes[..*len]);
            }
        }
        lock(&self.desk).served += asked.len() as u64;
        self.served.notify_all();
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
        self.events.call(self.device, AGAIN);
    }

    /// The guest rang for a queue. No device has as many queues as there are bits.
    pub(crate) fn ring(&self, queue: u32) {
        if queue < AGAIN {
            self.events.call(self.device, queue);
        }
    }

    /// Has the thread write to the device's window, and waits until that is done.
    pub(crate) fn store(&self, at: u64, written: &[u8]) {
        let mut bytes = [0; ACCESS_MAX];
        if let Some(room) = bytes.get_mut(..written.len()) {
            room.copy_from_slice(written);
            self.events.store(Store { device: self.device, at, bytes, len: written.len() });
        }
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

    /// Says what was written to it.
    impl Window for Probe {
        fn load(&mut self, _: u64, _: &mut [u8]) {}

        fn store(&mut self, at: u64, bytes: &[u8]) {
            let socket = u32::from_le_bytes(bytes.try_into().unwrap());
            self.0.send(Wake::Socket { socket, hung_up: at == STORED }).unwrap();
        }
    }

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
    const STORED: u64 = 0x70;

    #[test]
    fn a_write_is_done_when_it_returns_and_after_what_was_rung_before() {
        let events = Events::new().unwrap();
        let (device, wakes) = probe();
        let devices = [device];
        std::thread::scope(|scope| {
            scope.spawn(|| events.run(&devices));
            let handle = events.handle(0);
            for number in 0..1000_u32 {
                handle.ring(number % 7);
                handle.store(STORED, &number.to_le_bytes());
                let want = [
                    Wake::Queue(u16::try_from(number % 7).unwrap()),
                    Wake::Socket { socket: number, hung_up: true },
                ];
                assert_eq!(wakes.try_iter().collect::<Vec<_>>(), want);
            }
            // No queue of any device's: nobody is woken.
            handle.ring(AGAIN);
            handle.ring(u32::MAX);
            events.end();
        });
        assert_eq!(wakes.try_iter().collect::<Vec<_>>(), [Wake::Last]);
        // Whoever writes when all is over does not wait.
        events.handle(0).store(STORED, &[0; 4]);
        assert_eq!(wakes.try_iter().count(), 0);
    }

    #[test]
    fn several_vcpus_write_at_once_and_each_is_served() {
        let events = Events::new().unwrap();
        let (device, wakes) = probe();
        let devices = [device];
        std::thread::scope(|scope| {
            scope.spawn(|| events.run(&devices));
            let vcpus: Vec<_> = (0..4)
                .map(|_| {
                    let handle = events.handle(0);
                    scope.spawn(move || (0..500_u32).for_each(|n| handle.store(STORED, &n.to_le_bytes())))
                })
                .collect();
            vcpus.into_iter().for_each(|vcpu| vcpu.join().unwrap());
            events.end();
        });
        assert_eq!(wakes.try_iter().count(), 4 * 500 + 1);
    }

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

//! The machine: each call consumes one state and returns the next.
#![forbid(unsafe_code)]

use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use hull_errors::Doing;
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

use crate::assembly::{self, Board};
use crate::boot::initramfs::InitramfsFile;
use crate::boot::{self, BootData};
use crate::config::VmConfig;
use crate::error::{Error, Kind};
use crate::events::{Events, Woken};
use crate::layout::{image_regions, ram_regions};
use crate::memory::GuestRam;
use crate::probe;
use crate::undertaker::Undertaker;
use crate::vcpu::run::{Shared, run};
use crate::vcpu::{self, regs};

/// Stack of a vCPU or event thread, in bytes: the deepest path is a block request.
const STACK_SIZE: usize = 128 << 10;
/// How long a vCPU may take to notice that the machine is over before it is told again. The signal is
/// lost if it comes just before KVM_RUN.
const KICK_AGAIN: Duration = Duration::from_millis(1);

/// How a machine ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Halt {
    /// The guest rang the doorbell with this code.
    PowerOff { code: u8 },
    /// A triple fault: the guest's kernel panicked (`panic=-1 reboot=t`), or PID 1 asked for a reboot.
    Reset,
    /// KVM could not go on, or the server of a file system has gone.
    Fault(String),
    /// [`Stopper::stop`] was called.
    Stopped,
}

/// A machine in the state `S`.
pub struct Machine<S>(S);

/// KVM, RAM and devices exist; no guest code does.
pub struct Cold {
    board: Board,
    ram: Arc<GuestRam>,
    vcpus: Vec<VcpuFd>,
    vm: Arc<VmFd>,
    undertaker: Undertaker,
    kernel: File,
    initramfs: Vec<InitramfsFile>,
    cmdline: String,
    entropy: File,
}

/// Kernel and boot data are in RAM; nothing runs, and nothing opens a path any more.
pub struct Loaded {
    parts: Parts,
    vcpus: Vec<VcpuFd>,
    kernel_bytes: u64,
}

/// vCPU threads run guest code.
pub struct Live {
    vcpus: Vec<JoinHandle<()>>,
    event_thread: Option<JoinHandle<()>>,
    halts: Receiver<Halt>,
    stopper: Stopper,
    parts: Parts,
}

/// What has to live as long as the machine.
struct Parts {
    shared: Arc<Shared>,
    events: Arc<Events>,
    devices: Vec<Arc<Mutex<dyn Woken>>>,
    _undertaker: Undertaker,
    // In this order: the VM goes before the RAM that it maps.
    _vm: Arc<VmFd>,
    _ram: Arc<GuestRam>,
}

/// Ends a machine from any thread.
#[derive(Clone, Debug)]
pub struct Stopper(Sender<Halt>);

impl Stopper {
    /// The machine ends with [`Halt::Stopped`] unless it has ended already. Takes effect once
    /// [`Machine::wait`] is called.
    pub fn stop(&self) {
        // Nobody waits any more: the machine is gone.
        let _ = self.0.send(Halt::Stopped);
    }
}

impl Machine<Cold> {
    /// Creates the VM, its RAM, its devices and its vCPUs.
    ///
    /// # Errors
    /// `NoKvm`, `NotPermitted`, `UnfitKvm`; `Host` for what the host refuses.
    pub fn new(config: VmConfig) -> Result<Self, Error> {
        let kvm = probe::open()?;
        let vm = Arc::new(assembly::create_vm(&kvm)?);
        // RAM comes before the interrupt controller: the other way round KVM takes milliseconds for it.
        let regions = ram_regions(config.ram_mib);
        // Huge pages are easier to have for what nobody else sees.
        let mut ram = match config.filesystems.is_empty() {
            true => GuestRam::new(&regions),
            false => GuestRam::shared(&regions),
        }?;
        let sizes: Vec<u64> = config.images.iter().map(|image| image.bytes).collect();
        let images = image_regions(config.ram_mib, &sizes);
        for (image, region) in config.images.iter().zip(&images) {
            ram.add_image(&image.file, *region)?;
        }
        ram.register(&vm)?;
        let ram = Arc::new(ram);
        assembly::create_irqchip(&vm)?;
        assembly::disable_pmu(&vm)?;
        let entropy = File::open("/dev/urandom").doing(Kind::Host, || "open /dev/urandom".to_owned())?;
        let VmConfig { vcpus, kernel, initramfs, cmdline, .. } = config;
        let wanted = assembly::Wanted {
            vcpus,
            disks: config.disks,
            images,
            vsock: config.vsock,
            rng: config.rng,
            net: config.net,
            balloon: config.balloon,
            filesystems: config.filesystems,
            console: config.console,
        };
        let board = assembly::attach(wanted, &vm, &ram, &entropy)?;
        let vcpus = create_vcpus(&kvm, &vm, vcpus)?;
        let undertaker = Undertaker::engage(&vm, &vcpus);
        Ok(Self(Cold { board, ram, vcpus, vm, undertaker, kernel, initramfs, cmdline, entropy }))
    }

    /// Puts the kernel, the initramfs and the boot data into RAM.
    ///
    /// # Errors
    /// `BadKernel` with what is wrong with the file, whose name the caller knows; `Config`; `Host`.
    pub fn load(self) -> Result<Machine<Loaded>, Error> {
        let Cold { board, ram, vcpus, vm, undertaker, kernel, initramfs, cmdline, entropy } = self.0;
        let cmdline = boot::cmdline::build(board.serial, &board.mmio_devices, &cmdline);
        let data = BootData {
            cmdline: &cmdline,
            initramfs: &initramfs,
            vcpus: u8::try_from(vcpus.len()).expect("the configuration limits the vCPUs"),
            pins_used: &board.pins_used,
            pin_count: board.pin_count,
            entropy: &entropy,
        };
        let entry = boot::load(&ram, &kernel, &data)?;
        regs::set_up(&vcpus[0], entry.rip)?;
        let parts = Parts {
            shared: Arc::new(Shared { mmio: board.mmio, pio: board.pio, over: AtomicBool::new(false) }),
            events: board.events,
            devices: board.devices,
            _undertaker: undertaker,
            _vm: vm,
            _ram: ram,
        };
        Ok(Machine(Loaded { parts, vcpus, kernel_bytes: entry.kernel_bytes }))
    }
}

impl Machine<Loaded> {
    /// How many bytes of the kernel file were copied, each once, in bytes.
    pub fn kernel_bytes_copied(&self) -> u64 {
        self.0.kernel_bytes
    }

    /// Starts the threads; from here on there is a guest.
    ///
    /// # Errors
    /// `Host`, if threads cannot be made. No guest code has run then.
    pub fn boot(self) -> Result<Machine<Live>, Error> {
        let Loaded { parts, vcpus, .. } = self.0;
        handle_signals()?;
        let (sender, halts) = channel();
        let mut live = Live { vcpus: Vec::new(), event_thread: None, halts, stopper: Stopper(sender), parts };
        live.start_events()?;
        // The first vCPU wakes the others: it comes last, so that a failure leaves no guest behind.
        for (id, vcpu) in vcpus.into_iter().enumerate().rev() {
            live.start_vcpu(id, vcpu)?;
        }
        Ok(Machine(live))
    }
}

impl Machine<Live> {
    /// A handle that ends the machine.
    pub fn stopper(&self) -> Stopper {
        self.0.stopper.clone()
    }

    /// Waits until the machine has ended and its threads are gone. Whatever the guest has written to its
    /// vsock connections is in the sockets then, unless a reader stood still for seconds. The sockets are
    /// closed when the guest ends, waited for or not.
    pub fn wait(mut self) -> Halt {
        let halt = self.0.halts.recv().expect("the machine itself holds a sender");
        self.0.end();
        halt
    }
}

impl Live {
    fn start_events(&mut self) -> Result<(), Error> {
        let (events, devices) = (Arc::clone(&self.parts.events), self.parts.devices.clone());
        let halts = self.stopper.0.clone();
        let body = move || {
            events.run(&devices);
            if let Some(why) = events.fault() {
                // Nobody waits: a vCPU was first.
                let _ = halts.send(Halt::Fault(why));
            }
        };
        self.event_thread = Some(spawn("events".to_owned(), body)?);
        Ok(())
    }

    fn start_vcpu(&mut self, id: usize, mut vcpu: VcpuFd) -> Result<(), Error> {
        let shared = Arc::clone(&self.parts.shared);
        let events = Arc::clone(&self.parts.events);
        let last_words = LastWords { halts: self.stopper.0.clone(), events, halt: None };
        let thread = spawn(format!("vcpu{id}"), move || last_words.say(run(&mut vcpu, &shared)))?;
        self.vcpus.push(thread);
        Ok(())
    }

    /// Joins all threads: first the vCPUs, then the event thread, which hands over what devices hold.
    fn end(&mut self) {
        self.parts.shared.over.store(true, Ordering::Release);
        for vcpu in self.vcpus.drain(..) {
            while !vcpu.is_finished() {
                // Fails if the thread has just ended, which is what is wanted.
                let _ = vcpu.kill(kick_signal());
                let next = self.halts.recv_timeout(KICK_AGAIN);
                debug_assert_ne!(next, Err(RecvTimeoutError::Disconnected), "we hold a sender ourselves");
            }
            join(vcpu);
        }
        self.parts.events.end();
        if let Some(thread) = self.event_thread.take() {
            join(thread);
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.end();
    }
}

/// Sends a vCPU's verdict when its thread ends, in whatever way, and closes the guest's sockets: whoever
/// listens to them hears that the machine is over, and comes to wait.
struct LastWords {
    halts: Sender<Halt>,
    events: Arc<Events>,
    halt: Option<Halt>,
}

impl LastWords {
    fn say(mut self, halt: Halt) {
        self.halt = Some(halt);
    }
}

impl Drop for LastWords {
    fn drop(&mut self) {
        let halt = self.halt.take().unwrap_or_else(|| Halt::Fault("a vCPU thread panicked".to_owned()));
        // Nobody waits: another vCPU was first.
        let _ = self.halts.send(halt);
        self.events.end();
    }
}

fn create_vcpus(kvm: &Kvm, vm: &VmFd, count: u8) -> Result<Vec<VcpuFd>, Error> {
    let cpuid = vcpu::HostCpuid::new(kvm)?;
    (0..count)
        .map(|id| {
            let vcpu =
                vm.create_vcpu(id.into()).doing(Kind::Host, || format!("create vCPU {id} of {count}"))?;
            cpuid.apply(&vcpu, id, count)?;
            regs::set_msrs(&vcpu)?;
            Ok(vcpu)
        })
        .collect()
}

fn spawn(name: String, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Error> {
    let doing = format!("start the thread {name}");
    std::thread::Builder::new().name(name).stack_size(STACK_SIZE).spawn(body).doing(Kind::Host, || doing)
}

fn join(thread: JoinHandle<()>) {
    // A panic has been reported as a fault, or ended the process.
    let _ = thread.join();
}

/// The signal that takes a vCPU out of KVM_RUN.
fn kick_signal() -> libc::c_int {
    SIGRTMIN()
}

/// Neither signal ends the process. SIGPIPE comes from a vsock connection whose reader has gone, just when a
/// guest writes: a program whose `main` is not Rust's would die of it.
pub(crate) fn handle_signals() -> Result<(), Error> {
    for signal in [kick_signal(), libc::SIGPIPE] {
        register_signal_handler(signal, on_signal)
            .doing(Kind::Host, || "handle the signals that end vCPUs and pipes".to_owned())?;
    }
    Ok(())
}

extern "C" fn on_signal(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

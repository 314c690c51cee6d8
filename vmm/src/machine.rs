//! The machine: each call consumes one state and returns the next.
#![forbid(unsafe_code)]

use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Barrier, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use hull_errors::Doing;
use hull_jail::{Door, Entered, Filter, Sealed};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

use crate::assembly::{self, Board};
use crate::boot::initramfs::InitramfsFile;
use crate::boot::{self, BootData};
use crate::bus::lock;
use crate::calls::{Files, Role};
use crate::config::VmConfig;
use crate::error::{Error, Kind};
use crate::events::{Events, Woken};
use crate::host::HostFiles;
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

/// Kernel and boot data are in RAM; nothing runs.
pub struct Loaded {
    parts: Parts,
    vcpus: Vec<VcpuFd>,
    kernel_bytes: u64,
    console: Option<RawFd>,
    /// Whether file systems are served from outside.
    servers: bool,
}

/// vCPU threads run guest code.
pub struct Live {
    vcpus: Vec<Thread>,
    event_thread: Option<Thread>,
    halts: Receiver<Halt>,
    stopper: Stopper,
    doors: Option<Arc<Doors>>,
    parts: Parts,
}

/// A thread of the machine's.
struct Thread {
    handle: JoinHandle<()>,
    /// Comes, or ends, when the thread touches neither guest nor device any more.
    ended: Receiver<()>,
}

/// What threads pass on their way to work in a machine that is sealed. None does before all have their lists.
struct Doors {
    door: Door,
    vcpu: Filter,
    events: Filter,
    barrier: Barrier,
    refused: Mutex<Option<hull_jail::Error>>,
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
    /// `UnfitKvm`; `Host` for what the host refuses.
    pub fn new(config: VmConfig) -> Result<Self, Error> {
        let HostFiles { kvm, entropy } = config.host;
        let kvm = probe::check(kvm)?;
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
        let cmdline = boot::cmdline::build(board.console.is_some(), &board.mmio_devices, &cmdline);
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
        Ok(Machine(Loaded {
            parts,
            vcpus,
            kernel_bytes: entry.kernel_bytes,
            console: board.console,
            servers: board.servers,
        }))
    }
}

impl Machine<Loaded> {
    /// How many bytes of the kernel file were copied, each once, in bytes.
    pub fn kernel_bytes_copied(&self) -> u64 {
        self.0.kernel_bytes
    }

    /// Starts the threads; from here on there is a guest. The process keeps every system call.
    ///
    /// # Errors
    /// `Host`, if threads cannot be made. No guest code has run then.
    pub fn boot(self) -> Result<Machine<Live>, Error> {
        self.0.start(None).map(Machine)
    }

    /// The same in a jail, which is sealed before there is a guest: each thread has a list of system calls, this one
    /// too. It may still wait for the machine, speak to `report`, a connected socket, and end the process, which ends
    /// with the machine.
    ///
    /// # Errors
    /// `Host`, if threads cannot be made or sealed. No guest code has run then, and the process must end.
    pub fn boot_sealed(
        self,
        entered: Entered,
        report: BorrowedFd<'_>,
    ) -> Result<(Machine<Live>, Sealed), Error> {
        let doing = || "seal the virtual machine's jail".to_owned();
        let files = Files {
            wake: self.0.parts.events.waker(),
            console: self.0.console,
            report: report.as_raw_fd(),
            servers: self.0.servers,
        };
        let compile = |role: Role| role.calls(files).compile().doing(Kind::Host, doing);
        let own = compile(Role::Main)?;
        let doors = Arc::new(Doors {
            door: entered.door(),
            vcpu: compile(Role::Vcpu)?,
            events: compile(Role::Events)?,
            // The vCPUs, the event thread, and this one.
            barrier: Barrier::new(self.0.vcpus.len() + 2),
            refused: Mutex::new(None),
        });
        let live = self.0.start(Some(Arc::clone(&doors)))?;
        doors.barrier.wait();
        if let Some(why) = lock(&doors.refused).take() {
            // Its threads wait for ever.
            std::mem::forget(live);
            return Err(Error::because(Kind::Host, doing(), why));
        }
        let sealed = match entered.seal_last(&own) {
            Ok(sealed) => sealed,
            Err(why) => {
                std::mem::forget(live);
                return Err(Error::because(Kind::Host, doing(), why));
            }
        };
        doors.barrier.wait();
        Ok((Machine(live), sealed))
    }
}

impl Loaded {
    fn start(self, doors: Option<Arc<Doors>>) -> Result<Live, Error> {
        let Loaded { parts, vcpus, .. } = self;
        handle_signals()?;
        let (sender, halts) = channel();
        let stopper = Stopper(sender);
        let mut live = Live { vcpus: Vec::new(), event_thread: None, halts, stopper, doors, parts };
        // The first vCPU wakes the others: it comes last, so that a failure leaves no guest behind.
        let mut vcpus = vcpus.into_iter().enumerate().rev();
        let started =
            live.start_events().and_then(|()| vcpus.try_for_each(|(id, vcpu)| live.start_vcpu(id, vcpu)));
        match started {
            Ok(()) => Ok(live),
            Err(why) => {
                if live.doors.is_some() {
                    // Those that there are wait for ever.
                    std::mem::forget(live);
                }
                Err(why)
            }
        }
    }
}

impl Doors {
    /// Seals the calling thread and waits for the others; false if one could not be sealed.
    fn pass(&self, role: Role) -> bool {
        let filter = if role == Role::Vcpu { &self.vcpu } else { &self.events };
        if let Err(why) = self.door.shut(filter) {
            *lock(&self.refused) = Some(why);
        }
        self.barrier.wait();
        // The last one seals itself, or does not come back.
        self.barrier.wait();
        lock(&self.refused).is_none()
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
        if self.0.doors.is_some() {
            // The process ends with it, which takes fewer system calls.
            std::mem::forget(self);
        }
        halt
    }
}

impl Live {
    fn start_events(&mut self) -> Result<(), Error> {
        let (events, devices) = (Arc::clone(&self.parts.events), self.parts.devices.clone());
        let halts = self.stopper.0.clone();
        let body = move |door: &dyn Fn() -> bool| {
            if !door() {
                return;
            }
            events.run(&devices);
            if let Some(why) = events.fault() {
                // Nobody waits: a vCPU was first.
                let _ = halts.send(Halt::Fault(why));
            }
        };
        self.event_thread = Some(self.spawn("events".to_owned(), Role::Events, body)?);
        Ok(())
    }

    fn start_vcpu(&mut self, id: usize, mut vcpu: VcpuFd) -> Result<(), Error> {
        let shared = Arc::clone(&self.parts.shared);
        let events = Arc::clone(&self.parts.events);
        let mut last_words = LastWords { halts: self.stopper.0.clone(), events, said: false };
        let body = move |door: &dyn Fn() -> bool| {
            warm_up(&mut vcpu);
            if door() {
                last_words.say(run(&mut vcpu, &shared));
            }
        };
        let thread = self.spawn(format!("vcpu{id}"), Role::Vcpu, body)?;
        self.vcpus.push(thread);
        Ok(())
    }

    /// Starts a thread, which goes through its door before it works, and not on if that is not opened.
    fn spawn(
        &self,
        name: String,
        role: Role,
        mut body: impl FnMut(&dyn Fn() -> bool) + Send + 'static,
    ) -> Result<Thread, Error> {
        let doing = format!("start the thread {name}");
        let doors = self.doors.clone();
        let (sender, ended) = channel();
        let work = move || {
            body(&|| doors.as_ref().is_none_or(|doors| doors.pass(role)));
            // Fails if nobody waits.
            let _ = sender.send(());
            // What a thread does at its end takes system calls that a sealed one has not; the process ends soon.
            while doors.is_some() {
                std::thread::park();
            }
        };
        let builder = std::thread::Builder::new().name(name).stack_size(STACK_SIZE);
        let handle = builder.spawn(work).doing(Kind::Host, || doing)?;
        Ok(Thread { handle, ended })
    }

    /// Ends all threads: first the vCPUs, then the event thread, which hands over what devices hold.
    fn end(&mut self) {
        self.parts.shared.over.store(true, Ordering::Release);
        for vcpu in std::mem::take(&mut self.vcpus) {
            loop {
                // Fails if the thread has just ended, which is what is wanted.
                let _ = vcpu.handle.kill(kick_signal());
                if vcpu.ended.recv_timeout(KICK_AGAIN) != Err(RecvTimeoutError::Timeout) {
                    break;
                }
            }
            self.join(vcpu);
        }
        self.parts.events.end();
        if let Some(thread) = self.event_thread.take() {
            // It comes, or ends.
            let _ = thread.ended.recv();
            self.join(thread);
        }
    }

    fn join(&self, thread: Thread) {
        if self.doors.is_none() {
            // A panic has been reported as a fault, or ended the process.
            let _ = thread.handle.join();
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.end();
    }
}

/// Sends a vCPU's verdict when its work ends, in whatever way, and closes the guest's sockets: whoever
/// listens to them hears that the machine is over, and comes to wait.
struct LastWords {
    halts: Sender<Halt>,
    events: Arc<Events>,
    said: bool,
}

impl LastWords {
    fn say(&mut self, halt: Halt) {
        self.said = true;
        // Nobody waits: another vCPU was first.
        let _ = self.halts.send(halt);
        self.events.end();
    }
}

impl Drop for LastWords {
    fn drop(&mut self) {
        if !self.said {
            self.say(Halt::Fault("a vCPU thread panicked".to_owned()));
        }
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

/// Enters KVM without a step of the guest's. Since Linux 6.14 the first to do so makes a thread of KVM's
/// (`kvm_mmu_start_lpage_recovery` in arch/x86/kvm/mmu/mmu.c), which nobody can once the jail is sealed.
fn warm_up(vcpu: &mut VcpuFd) {
    vcpu.set_kvm_immediate_exit(1);
    // Always interrupted. Whatever else is wrong is still wrong when the guest is to run.
    let _ = vcpu.run();
    vcpu.set_kvm_immediate_exit(0);
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

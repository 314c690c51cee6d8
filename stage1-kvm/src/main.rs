//! `hull-kvm`: the VM stage1. A pod directory becomes a machine, the agent in it gets its orders, the
//! apps' ends become the exit code. What isolates is in `hull-vmm`, what relays in `hull-stage1`.
#![forbid(unsafe_code)]

mod network;
mod plan;

use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use hull_agent_protocol::{ImageSource, VolumeSource};
use hull_errors::Doing;
use hull_pod::volumes::Used;
use hull_pod::{Flavour, Verdict, dir, wire};
use hull_stage1::{Kind, Pod, Session, Signals, conclude, connect, terminal};
use hull_vmm::{Halt, Live, Machine, Net};

type Error = hull_stage1::Error;

fn main() -> ExitCode {
    let verdict = take_over().unwrap_or_else(|why| Verdict::Failed(hull_errors::chain(&why)));
    conclude(&verdict)
}

fn take_over() -> Result<Verdict, Error> {
    let pod = Pod::take_over(&[Flavour::Kvm])?;
    run(&pod).or_else(|why| pod.fail(&why))
}

fn run(pod: &Pod) -> Result<Verdict, Error> {
    let signals = Signals::take()?;
    let (link, agents_end) = UnixStream::pair().doing(Kind::Host, || "make the agent's link".into())?;
    let networks = connect(pod)?;
    let machine = boot(pod, agents_end, network::interfaces(&networks)?)?;
    let mut spec = wire::pod_spec(&pod.manifest, &pod.contract, &Devices, terminal::size())
        .doing(Kind::Contract, || "tell the agent what to run".into())?;
    spec.interfaces = networks.interfaces();
    let mut session = Session::start(pod, &spec, link)?;
    let end = {
        let _raw = if pod.contract.interactive { terminal::Raw::enter()? } else { None };
        session.run(&signals)?
    };
    let mut machine = Some(machine);
    let verdict =
        session.conclude(end, || machine.take().map_or_else(String::new, |m| why_it_ended(pod, m.wait())));
    // Where the agent did finish, nothing in the guest is worth waiting for. This process ends now, and
    // the kernel takes the machine apart faster than we could.
    std::mem::forget(machine);
    verdict
}

fn boot(pod: &Pod, agents_end: UnixStream, interfaces: Vec<Net>) -> Result<Machine<Live>, Error> {
    let doing = || "start the virtual machine".to_owned();
    let config = plan::plan(pod, agents_end, interfaces)?;
    let machine = Machine::new(config).doing(Kind::Host, doing)?;
    let machine = machine.load().doing(Kind::Host, || format!("load guest kernel {}", plan::kernel(pod)))?;
    if pod.contract.debug {
        eprintln!("hull-kvm: {} bytes of kernel copied", machine.kernel_bytes_copied());
    }
    dir::write(&pod.path, dir::PID, std::process::id().to_string().as_bytes()).doing(Kind::Host, doing)?;
    machine.boot().doing(Kind::Host, doing)
}

struct Devices;

impl wire::Places for Devices {
    /// The guest names its disks in the order in which it finds them, which is the order of the plan.
    fn image(&self, index: usize) -> ImageSource {
        let letter = char::from(b'a' + u8::try_from(index).expect("plan refuses more disks than letters"));
        ImageSource::Device { path: format!("/dev/vd{letter}") }
    }

    fn volume(&self, index: usize, _: &Used) -> VolumeSource {
        VolumeSource::Shared { tag: plan::tag(index), read_only: false }
    }
}

fn why_it_ended(pod: &Pod, halt: Halt) -> String {
    match halt {
        Halt::PowerOff { code } => format!("the agent gave up and switched the machine off (code {code})"),
        Halt::Reset => format!("guest kernel {} crashed; --debug shows its last words", plan::kernel(pod)),
        Halt::Stopped => "the virtual machine was stopped".into(),
        Halt::Fault(why) => format!("the virtual machine stopped: {why}"),
    }
}

//! `hull-kvm`: the VM stage1. A pod directory becomes a machine, the agent in it gets its orders, the
//! apps' ends become the exit code. What isolates is in `hull-vmm`, what relays in `hull-stage1`.
//!
//! Two processes: the supervisor, which the user's command has become and which holds the pod, and its child, this
//! program once more, which holds the machine and nothing else.
#![forbid(unsafe_code)]

mod ids;
mod limits;
mod machine;
mod network;
mod order;
mod plan;
mod servers;
mod vmm;
mod volumes;
mod walls;

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;

use hull_agent_protocol::{ImageSource, VolumeSource};
use hull_errors::Doing;
use hull_pod::volumes::Used;
use hull_pod::{Flavour, Verdict, contract, dir, wire};
use hull_stage1::{Kind, Pod, Session, Signals, cgroup, conclude, connect, terminal};
use nix::unistd::geteuid;

use crate::ids::OwnId;
use crate::vmm::Vmm;

use crate::volumes::Brought;

type Error = hull_stage1::Error;

fn main() -> ExitCode {
    let word = std::env::args().nth(1).unwrap_or_default();
    match &*word {
        vmm::WORD => return machine::main(),
        contract::WALLS => return walls::main(),
        _ => (),
    }
    let verdict = take_over().unwrap_or_else(|why| Verdict::Failed(hull_errors::chain(&why)));
    conclude(&verdict)
}

fn take_over() -> Result<Verdict, Error> {
    let pod = Pod::take_over(&[Flavour::Kvm])?;
    run(&pod).or_else(|why| pod.fail(&why))
}

fn run(pod: &Pod) -> Result<Verdict, Error> {
    let signals = Signals::take()?;
    let cgroup = cgroup::make(pod)?;
    let verdict = converse(pod, &signals, cgroup.as_deref());
    if let Some(Err(why)) = cgroup.as_deref().map(hull_pod::cgroup::remove) {
        eprintln!("hull-kvm: {}; hull gc tries again", hull_errors::chain(&why));
    }
    verdict
}

fn converse(pod: &Pod, signals: &Signals, cgroup: Option<&Path>) -> Result<Verdict, Error> {
    let machine = plan::machine(pod)?;
    let mut brought = Brought::open(pod, cgroup)?;
    let limited = cgroup.map_or(Ok(false), |cgroup| limits::set(cgroup, machine, brought.servers.len()))?;
    if !limited && pod.contract.debug {
        eprintln!("hull-kvm: this host's cgroups cannot limit the virtual machine, going on without");
    }
    let id = geteuid().is_root().then(|| OwnId::take(machine.ids, &pod.contract.pod)).transpose()?;
    let (link, agents_end) = UnixStream::pair().doing(Kind::Host, || "make the agent's link".into())?;
    // Taken away after the machine, which holds their ends.
    let networks = connect(pod)?;
    let interfaces = network::interfaces(&networks)?;
    let asked = plan::plan(pod, agents_end, interfaces, std::mem::take(&mut brought.disks))?;
    let mut vmm = Vmm::start(pod, asked, brought.filesystems()?, id, cgroup)?;
    dir::write(&pod.path, dir::PID, vmm.pid().to_string().as_bytes())
        .doing(Kind::Host, || "record the virtual machine's pid".into())?;
    let mut spec = wire::pod_spec(&pod.manifest, &pod.contract, &Devices(&brought), terminal::size())
        .doing(Kind::Contract, || "tell the agent what to run".into())?;
    spec.interfaces = networks.interfaces();
    spec.resolver = spec.resolver.or_else(|| networks.resolver());
    let mut session = Session::start(pod, &spec, link)?;
    let end = {
        let _raw = if pod.contract.interactive { terminal::Raw::enter()? } else { None };
        session.run(signals)?
    };
    session.conclude(end, || vmm.why_it_ended(pod))
}

struct Devices<'a>(&'a Brought);

impl wire::Places for Devices<'_> {
    fn image(&self, index: usize) -> ImageSource {
        ImageSource::Device { path: plan::disk(index).expect("plan has named it already") }
    }

    fn volume(&self, index: usize, _: &Used) -> VolumeSource {
        self.0.sources[index].clone().expect("the host's volumes have been brought")
    }
}

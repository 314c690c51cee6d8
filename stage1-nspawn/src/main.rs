//! `hull-nspawn`: the stage1 that needs no virtual machine. `nspawn` pods live in namespaces of their
//! own, `fly` pods in a private mount namespace only; the agent in them is the same as everywhere.

mod agent;
mod image;
mod sys;
mod world;

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;

use hull_agent_protocol::{ImageSource, VolumeSource};
use hull_errors::{Doing, chain};
use hull_pod::volumes::Used;
use hull_pod::{Flavour, Verdict, dir, wire};
use hull_stage1::{Kind, Networks, Pod, Session, Signals, cgroup, conclude, connect, terminal};

use crate::agent::Agent;

type Error = hull_stage1::Error;

fn main() -> ExitCode {
    let verdict = take_over().unwrap_or_else(|why| Verdict::Failed(chain(&why)));
    conclude(&verdict)
}

fn take_over() -> Result<Verdict, Error> {
    let pod = Pod::take_over(&[Flavour::Nspawn, Flavour::Fly])?;
    run(&pod).or_else(|why| pod.fail(&why))
}

fn run(pod: &Pod) -> Result<Verdict, Error> {
    if pod.contract.flavour == Flavour::Fly && pod.manifest.apps.len() > 1 {
        let why = "a fly pod has one app; give every app a pod of its own, or use --stage1=kvm or nspawn";
        return Err(Error::new(Kind::Contract, why));
    }
    let signals = Signals::take()?;
    let networks = connect(pod)?;
    let cgroup = cgroup::make(pod)?;
    if cgroup.is_none() && pod.contract.debug {
        eprintln!("hull-nspawn: no cgroup of version 2 to be had, going on without");
    }
    let verdict = converse(pod, &signals, cgroup.as_deref(), &networks);
    if let Some(Err(why)) = cgroup.as_deref().map(hull_pod::cgroup::remove) {
        eprintln!("hull-nspawn: {}; hull gc tries again", chain(&why));
    }
    verdict
}

fn converse(
    pod: &Pod,
    signals: &Signals,
    cgroup: Option<&Path>,
    networks: &Networks,
) -> Result<Verdict, Error> {
    let (link, agents_end) = UnixStream::pair().doing(Kind::Host, || "make the agent's link".into())?;
    let mut spec = wire::pod_spec(&pod.manifest, &pod.contract, &InTheWorld, terminal::size())
        .doing(Kind::Contract, || "tell the agent what to run".into())?;
    spec.resolver = spec.resolver.or_else(|| networks.resolver());
    let mut agent = Agent::start(pod, agents_end, cgroup, networks.namespace())?;
    dir::write(&pod.path, dir::PID, agent.pid().to_string().as_bytes())
        .doing(Kind::Host, || "record the agent's pid".into())?;
    let mut session = Session::start(pod, &spec, link)?;
    let end = {
        let _raw = if pod.contract.interactive { terminal::Raw::enter()? } else { None };
        session.run(signals)?
    };
    session.conclude(end, || agent.why_it_ended())
}

/// Everything is mounted before the agent starts.
struct InTheWorld;

impl wire::Places for InTheWorld {
    fn image(&self, index: usize) -> ImageSource {
        ImageSource::Mounted { path: world::image(index) }
    }

    fn volume(&self, index: usize, _: &Used) -> VolumeSource {
        VolumeSource::Mounted { path: world::volume(index) }
    }
}

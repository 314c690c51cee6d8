//! `hull run` and `hull run-prepared`: this process becomes the stage1 that holds the pod.

use std::convert::Infallible;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use hull_errors::Doing;
use hull_pod::contract::LOCK_FD;
use hull_pod::dir::CONTRACT;
use hull_pod::{Contract, PodDir, PodId, Prepared, Running, State, Waived};

use super::prepare::{discard, prepare_pod};
use crate::cli::insecure;
use crate::cli::pod::{RunArgs, RunPreparedArgs};
use crate::host::Host;
use crate::{Error, Kind};

pub(crate) fn run(args: &RunArgs, host: &Host) -> Result<ExitCode, Error> {
    let (pod, stage1) = prepare_pod(&args.pod, args.interactive, host)?;
    match save_uuid(args, pod.id()) {
        Ok(()) => start(pod, &stage1),
        Err(why) => {
            discard(pod);
            Err(why)
        }
    }
}

pub(crate) fn run_prepared(args: &RunPreparedArgs, host: &Host) -> Result<ExitCode, Error> {
    let pods = host.pods()?;
    let found = pods.find(&args.uuid).doing(Kind::User, || "find the pod".into())?;
    if found.state != State::Prepared {
        return Err(Error::new(
            Kind::User,
            format!("pod {} is {}, not prepared", found.id, found.state.as_str()),
        ));
    }
    let doing = || format!("start pod {}", found.id);
    let contract = found.contract().doing(Kind::Host, doing)?;
    let stage1 = host.stage1(contract.flavour)?;
    let pod = PodDir::<Prepared>::open(&pods, found.id.clone()).doing(Kind::User, doing)?;
    let asked = insecure::of_run(&host.insecure_options);
    let waived = Waived {
        capabilities: contract.waived.capabilities || asked.capabilities,
        paths: contract.waived.paths || asked.paths,
        seccomp: contract.waived.seccomp || asked.seccomp,
    };
    let contract = Contract { interactive: args.interactive, debug: host.debug, waived, ..contract };
    pod.write_json(CONTRACT, &contract).doing(Kind::Host, doing)?;
    start(pod, &stage1)
}

/// Comes back only with a reason why not.
fn start(pod: PodDir<Prepared>, stage1: &Path) -> Result<ExitCode, Error> {
    let doing = format!("start pod {}", pod.id());
    let pod = pod.start().doing(Kind::Host, || doing)?;
    match become_stage1(&pod, stage1) {
        Ok(never) => match never {},
        Err(why) => {
            discard(pod);
            Err(why)
        }
    }
}

fn save_uuid(args: &RunArgs, id: &PodId) -> Result<(), Error> {
    match &args.uuid_file_save {
        Some(file) => fs::write(file, id.as_str())
            .doing(Kind::User, || format!("save the pod's id to {}", file.display())),
        None => Ok(()),
    }
}

fn become_stage1(pod: &PodDir<Running>, stage1: &Path) -> Result<Infallible, Error> {
    let doing = || format!("start {}", stage1.display());
    let lock = pod.hand_over().doing(Kind::Host, doing)?;
    let why = Command::new(stage1)
        .arg(pod.id().as_str())
        .current_dir(pod.path())
        .env(LOCK_FD, lock.to_string())
        .exec();
    Err(Error::because(Kind::Host, doing(), why))
}

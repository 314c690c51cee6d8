//! `hull run` and `hull run-prepared`: this process becomes the stage1 that holds the pod, or starts it
//! beside itself with `--detach`.

use std::convert::Infallible;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use hull_errors::Doing;
use hull_pod::contract::LOCK_FD;
use hull_pod::control::{Answer, Request};
use hull_pod::dir::{CONTRACT, STAGE1_LOG};
use hull_pod::{Contract, Flavour, Found, PodDir, PodId, Pods, Prepared, Running, State, Waived};

use super::call::{ask, call};
use super::prepare::{Standing, check_interactive, discard, parents_ipc, prepare_pod};
use super::{metadata, names, net};
use crate::cli::insecure;
use crate::cli::pod::{RunArgs, RunPreparedArgs};
use crate::host::Host;
use crate::{Error, Kind};

pub(crate) fn run(args: &RunArgs, host: &Host) -> Result<ExitCode, Error> {
    let standing = Standing {
        interactive: args.interactive,
        detached: args.detach,
        names: Some(&args.names),
        nets: Some(&args.nets),
        keeping: args.keeping,
    };
    let (pod, stage1) = prepare_pod(&args.pod, standing, host)?;
    match save_uuid(args, pod.id()) {
        Ok(()) => start(pod, &stage1, args.detach, host),
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
    let (interactive, detached) = (args.interactive, args.detach);
    check_interactive(interactive, contract.roots.len())?;
    if args.hostname.is_some() && contract.flavour == Flavour::Fly {
        let why = "--hostname: a chroot (--stage1=fly) has the host's name";
        return Err(Error::new(Kind::User, why));
    }
    let hostname = args.hostname.clone().unwrap_or_else(|| contract.hostname.clone());
    let register = args.keeping.mds_register;
    let manifest = found.manifest().doing(Kind::Host, doing)?;
    let metadata = register.then(|| metadata::service(&manifest, host, &host.images()?)).transpose()?;
    let parents_ipc = parents_ipc(args.keeping, contract.flavour)?;
    let log_bytes = args.keeping.log_size.or(contract.log_bytes);
    let hosts = names::hosts(&args.names, contract.flavour, &hostname)?;
    let resolver = names::resolver(&args.names)?;
    let network = net::networking(&args.nets, contract.flavour, &manifest, &host.settings)?;
    let network = net::with_names(network, args.names.says_nothing());
    let contract = Contract {
        interactive,
        detached,
        hostname,
        parents_ipc,
        metadata,
        log_bytes,
        hosts,
        resolver,
        network,
        debug: host.debug,
        waived,
        ..contract
    };
    pod.write_json(CONTRACT, &contract).doing(Kind::Host, doing)?;
    start(pod, &stage1, args.detach, host)
}

/// Where this process becomes the pod's, it comes back only with a reason why not.
fn start(pod: PodDir<Prepared>, stage1: &Path, detach: bool, host: &Host) -> Result<ExitCode, Error> {
    let doing = format!("start pod {}", pod.id());
    let pod = pod.start().doing(Kind::Host, || doing)?;
    if detach {
        return start_detached(pod, stage1, host);
    }
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

/// Starts the stage1 beside this process, and waits until the apps run or the pod has failed.
fn start_detached(pod: PodDir<Running>, stage1: &Path, host: &Host) -> Result<ExitCode, Error> {
    let id = pod.id().clone();
    let doing = || format!("start {} for pod {id}", stage1.display());
    let spawned = stage1_command(&pod, stage1).and_then(|mut command| {
        // With --debug a guest's kernel writes there too, as much as it likes: that is not kept.
        let errors = match host.debug {
            true => Stdio::null(),
            false => fs::File::create(pod.path().join(STAGE1_LOG)).doing(Kind::Host, doing)?.into(),
        };
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
        command.spawn().doing(Kind::Host, doing)
    });
    if let Err(why) = spawned {
        discard(pod);
        return Err(why);
    }
    pod.leave().doing(Kind::Host, doing)?;
    let pods = host.pods()?;
    let find = || pods.find(id.as_str()).doing(Kind::Host, || "find the pod that was started".into());
    let found = find()?;
    if !has_started(&pods, &found)? {
        // It has ended, in good order or not.
        found.wait().doing(Kind::Host, || "wait".into())?;
        let status = find()?.status().doing(Kind::Host, || format!("read how pod {id} went"))?;
        let silent = || match find().map(|found| found.stage1_said().join("; ")) {
            Ok(said) if !said.is_empty() => said,
            _ => "its stage1 ended without a word; run it without --detach to see more".to_owned(),
        };
        let failure = status.failure.or_else(|| status.apps.is_empty().then(silent));
        if let Some(why) = failure {
            return Err(Error::new(Kind::Host, why));
        }
    }
    println!("{id}");
    Ok(ExitCode::SUCCESS)
}

/// Waits until the apps run. False if the pod has ended, which it may have done after a start that was too short
/// to be seen.
pub(super) fn has_started(pods: &Pods, found: &Found) -> Result<bool, Error> {
    let Some(client) = call(pods, found)? else { return Ok(false) };
    ask(&client, &Request::AwaitStart)?;
    let answer = client.answer().doing(Kind::Host, || format!("wait for the start of pod {}", found.id))?;
    Ok(answer == Some(Answer::Started))
}

fn become_stage1(pod: &PodDir<Running>, stage1: &Path) -> Result<Infallible, Error> {
    let why = stage1_command(pod, stage1)?.exec();
    Err(Error::because(Kind::Host, format!("start {}", stage1.display()), why))
}

fn stage1_command(pod: &PodDir<Running>, stage1: &Path) -> Result<Command, Error> {
    let lock = pod.hand_over().doing(Kind::Host, || format!("start {}", stage1.display()))?;
    let mut command = Command::new(stage1);
    command.arg(pod.id().as_str()).current_dir(pod.path()).env(LOCK_FD, lock.to_string());
    Ok(command)
}

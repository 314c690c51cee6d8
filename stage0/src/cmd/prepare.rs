//! `hull prepare`: image and wishes become a pod directory that a stage1 can run.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use hull_errors::Doing;
use hull_image::{Image, PullPolicy};
use hull_pod::contract::{self, Machine};
use hull_pod::dir::{CONTRACT, MANIFEST};
use hull_pod::manifest::{App, Isolator, NameValue, RuntimeApp, RuntimeImage, STOP_SIGNAL};
use hull_pod::wire;
use hull_pod::{AppName, Contract, Flavour, Manifest, PodDir, PodId, Prepared, Preparing};

use super::fetch::Wanted;
use crate::cli::insecure;
use crate::cli::pod::{PodArgs, Strictness};
use crate::host::kvm::Kvm;
use crate::host::{AGENT, Host, KERNEL};
use crate::{Error, Kind};

/// A VM's memory where nobody says how much, in MiB.
const RAM_MIB: u32 = 256;

pub(crate) fn prepare(args: &PodArgs, host: &Host) -> Result<ExitCode, Error> {
    let (pod, _) = prepare_pod(args, Standing::default(), host)?;
    println!("{}", pod.id());
    Ok(ExitCode::SUCCESS)
}

/// How a pod stands to whoever starts it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Standing {
    pub(super) interactive: bool,
    pub(super) detached: bool,
}

/// A pod that is ready, and the stage1 to give it to. Almost everything that can go wrong before a stage1
/// runs goes wrong here, and leaves nothing.
pub(super) fn prepare_pod(
    args: &PodArgs,
    standing: Standing,
    host: &Host,
) -> Result<(PodDir<Prepared>, PathBuf), Error> {
    let flavour = choose(args.stage1.map(Flavour::from), Kvm::look, nix::unistd::geteuid().is_root())?;
    let stage1 = host.stage1(flavour)?;
    let id = PodId::random().doing(Kind::Host, || "name the pod".into())?;
    let store = host.images()?;
    // From the look at the image until the pod's directory names it, nothing else keeps it from being collected.
    let _hold = store.hold().doing(Kind::Host, || "keep the image".into())?;
    let image = Wanted::new(&args.fetch, PullPolicy::New, host).fetch(&args.image, &store)?;
    let manifest = Manifest::new(vec![runtime_app(args, &image)?]);
    let Standing { interactive, detached } = standing;
    let contract = Contract { interactive, detached, ..contract(args, host, flavour, &id, &image)? };
    let doing = || format!("prepare pod {id}");
    for warning in wire::check(&manifest, &contract).doing(Kind::User, doing)? {
        eprintln!("{warning}");
    }
    let pod = PodDir::create(&host.pods()?, id.clone()).doing(Kind::Host, doing)?;
    if let Err(why) = fill(&pod, &manifest, &contract) {
        discard(pod);
        return Err(Error::because(Kind::Host, doing(), why));
    }
    Ok((pod.commit().doing(Kind::Host, doing)?, stage1))
}

fn fill(pod: &PodDir<Preparing>, manifest: &Manifest, contract: &Contract) -> Result<(), hull_pod::Error> {
    pod.write_json(CONTRACT, contract)?;
    pod.write_json(MANIFEST, manifest)
}

/// Removes a pod that came to nothing.
pub(super) fn discard<S>(pod: PodDir<S>) {
    if let Err(why) = pod.discard() {
        eprintln!("{}; hull gc will try again", hull_errors::chain(&why));
    }
}

/// Never weaker than what was asked for: without `--stage1` it is a VM or nothing.
fn choose(asked: Option<Flavour>, kvm: impl Fn() -> Kvm, is_root: bool) -> Result<Flavour, Error> {
    let flavour = asked.unwrap_or(Flavour::Kvm);
    match (flavour, is_root) {
        (Flavour::Kvm, _) => match kvm() {
            Kvm::Usable => Ok(flavour),
            unusable => Err(Error::new(
                Kind::Host,
                format!(
                    "cannot run a pod in a VM: {}; {}, or ask for less isolation with --stage1=nspawn \
                     (hull doctor shows all checks)",
                    unusable.problem(),
                    unusable.way_out()
                ),
            )),
        },
        (Flavour::Nspawn | Flavour::Fly, true) => Ok(flavour),
        (Flavour::Nspawn | Flavour::Fly, false) => Err(Error::new(
            Kind::User,
            format!("cannot run as unprivileged user: --stage1={} needs root", flavour.as_str()),
        )),
    }
}

fn runtime_app(args: &PodArgs, image: &Image) -> Result<RuntimeApp, Error> {
    let config = &image.config;
    let exec = exec(args, image)?;
    let name = args.name.clone().unwrap_or_else(|| AppName::from_image_name(&image.name));
    // What the user sets replaces what the image sets, in the image's place.
    let mut environment = config.environment.clone();
    for (name, value) in &args.set_env {
        environment.retain(|(known, _)| known != name);
        environment.push((name.clone(), value.clone()));
    }
    let named = |(name, value): (String, String)| NameValue { name, value };
    Ok(RuntimeApp {
        name,
        image: RuntimeImage {
            name: image.name.clone(),
            id: image.id.to_string(),
            labels: config.labels.clone().into_iter().map(named).collect(),
        },
        app: App {
            exec,
            user: args.user.clone().unwrap_or_else(|| config.user.clone()),
            group: args.group.clone().or_else(|| config.group.clone()).unwrap_or_default(),
            supplementary_gids: config.supplementary_gids.clone(),
            working_directory: args.working_dir.clone().unwrap_or_else(|| config.working_directory.clone()),
            environment: environment.into_iter().map(named).collect(),
            event_handlers: vec![],
            isolators: isolators(&config.isolators)?,
            mount_points: vec![],
            ports: vec![],
            user_annotations: vec![],
            user_labels: vec![],
        },
        read_only_root_fs: false,
        mounts: vec![],
        annotations: stop_signal(config.stop_signal.as_deref())?,
    })
}

fn isolators(of_image: &[serde_json::Value]) -> Result<Vec<Isolator>, Error> {
    let read = |value: &serde_json::Value| serde_json::from_value(value.clone());
    let isolators: Result<_, _> = of_image.iter().map(read).collect();
    isolators.doing(Kind::User, || "understand the image's isolators".into())
}

/// The image's whole command line, with the user's arguments in their place.
fn exec(args: &PodArgs, image: &Image) -> Result<Vec<String>, Error> {
    let config = &image.config;
    let mut exec = match &args.exec {
        Some(program) => vec![program.clone()],
        None => config.entrypoint.clone(),
    };
    match args.args.is_empty() && args.exec.is_none() {
        true => exec.extend(config.command.iter().cloned()),
        false => exec.extend(args.args.iter().cloned()),
    }
    if exec.is_empty() {
        let name = &image.name;
        return Err(Error::new(
            Kind::User,
            format!("image {name:?} has an empty \"exec\" (try --exec=BINARY, or a command behind --)"),
        ));
    }
    Ok(exec)
}

fn stop_signal(name: Option<&str>) -> Result<Vec<NameValue>, Error> {
    let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(vec![]) };
    hull_pod::wire::parse_signal(name).doing(Kind::User, || "use the image's stop signal".into())?;
    Ok(vec![NameValue { name: STOP_SIGNAL.into(), value: name.into() }])
}

fn contract(
    args: &PodArgs,
    host: &Host,
    flavour: Flavour,
    id: &PodId,
    image: &Image,
) -> Result<Contract, Error> {
    let machine = match flavour {
        Flavour::Kvm => Some(machine(args, host)?),
        Flavour::Nspawn | Flavour::Fly => no_machine(args, flavour)?,
    };
    Ok(Contract {
        version: contract::VERSION,
        pod: id.clone(),
        flavour,
        hostname: args.hostname.clone().unwrap_or_else(|| format!("hull-{id}")),
        roots: vec![image.erofs.clone()],
        agent: host.installed(AGENT)?,
        machine,
        interactive: false,
        detached: false,
        lenient: args.isolators == Strictness::Lenient,
        waived: insecure::of_run(&host.insecure_options),
        debug: host.debug,
    })
}

fn machine(args: &PodArgs, host: &Host) -> Result<Machine, Error> {
    let kernel = match &args.kernel {
        Some(path) => {
            fs::canonicalize(path).doing(Kind::User, || format!("use guest kernel {}", path.display()))?
        }
        None => host.installed(KERNEL)?,
    };
    Ok(Machine { kernel, vcpus: args.vm_cpus.unwrap_or(1), ram_mib: args.vm_memory.unwrap_or(RAM_MIB) })
}

/// An option that would have no effect is a misunderstanding, not a wish.
fn no_machine(args: &PodArgs, flavour: Flavour) -> Result<Option<Machine>, Error> {
    let meant = [
        ("--kernel", args.kernel.is_some()),
        ("--vm-memory", args.vm_memory.is_some()),
        ("--vm-cpus", args.vm_cpus.is_some()),
        ("--hostname", args.hostname.is_some() && flavour == Flavour::Fly),
    ];
    match meant.into_iter().find(|(_, given)| *given) {
        None => Ok(None),
        Some((option, _)) => Err(Error::new(
            Kind::User,
            format!(
                "{option} means nothing to --stage1={}, whose pods share that with the host",
                flavour.as_str()
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_weaker_is_chosen_silently() {
        let unfit = || Kvm::NoDevice { cpu_could: true };
        let why = choose(None, unfit, true).unwrap_err().to_string();
        assert!(
            why.contains("no /dev/kvm") && why.contains("modprobe") && why.contains("--stage1=nspawn"),
            "{why}"
        );
        assert_eq!(choose(None, || Kvm::Usable, false).unwrap(), Flavour::Kvm);
        assert_eq!(choose(Some(Flavour::Fly), unfit, true).unwrap(), Flavour::Fly);
        let why = choose(Some(Flavour::Nspawn), unfit, false).unwrap_err().to_string();
        assert!(why.contains("unprivileged"), "{why}");
    }
}

//! `hull prepare`: image and wishes become a pod directory that a stage1 can run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use hull_errors::Doing;
use hull_image::{Image, ImageKind, PullPolicy, Settings, Store};
use hull_network::Networking;
use hull_pod::contract::{self, IdRange, Machine};
use hull_pod::dir::{CONTRACT, MANIFEST};
use hull_pod::manifest::{
    App, COPY_UP, Event, EventHandler, Isolator, MountPoint, NameValue, Port, RuntimeApp, RuntimeImage,
    STOP_SIGNAL,
};
use hull_pod::{AppName, Contract, Flavour, Manifest, PodDir, PodId, Prepared, Preparing};
use hull_pod::{size, wire};

use super::environment::{self, Environment};
use super::fetch::Wanted;
use super::{manifest, metadata, names, net};
use crate::cli::app::AppWish;
use crate::cli::insecure;
use crate::cli::names::NameArgs;
use crate::cli::net::NetArgs;
use crate::cli::pod::{Ipc, KeepingArgs, PodArgs, Strictness};
use crate::host::kvm::Kvm;
use crate::host::{AGENT, Host, KERNEL};
use crate::{Error, Kind};

/// Most virtual CPUs that `--vm-cpus` takes.
const VCPUS_MAX: usize = 32;

/// Most apps of one pod: in a VM each has a disk, and those have letters.
const APPS_MAX: usize = 26;

pub(crate) fn prepare(args: &PodArgs, host: &Host) -> Result<ExitCode, Error> {
    let (pod, _) = prepare_pod(args, Standing::default(), host)?;
    println!("{}", pod.id());
    Ok(ExitCode::SUCCESS)
}

/// How a pod stands to whoever starts it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Standing<'a> {
    pub(super) interactive: bool,
    pub(super) detached: bool,
    pub(super) names: Option<&'a NameArgs>,
    pub(super) nets: Option<&'a NetArgs>,
    pub(super) keeping: KeepingArgs,
}

/// A pod that is ready, and the stage1 to give it to. Almost everything that can go wrong before a stage1
/// runs goes wrong here, and leaves nothing.
pub(super) fn prepare_pod(
    args: &PodArgs,
    standing: Standing<'_>,
    host: &Host,
) -> Result<(PodDir<Prepared>, PathBuf), Error> {
    let flavour = choose(args.stage1.map(Flavour::from), Kvm::look, nix::unistd::geteuid().is_root())?;
    if args.private_users {
        let why = "--private-users: there are no user namespaces for pods; a VM (--stage1=kvm) keeps its users apart \
                   from the host's, and --user runs an app as another than root";
        return Err(Error::new(Kind::User, why));
    }
    let stage1 = host.stage1(flavour)?;
    let id = PodId::random().doing(Kind::Host, || "name the pod".into())?;
    let store = host.images()?;
    // From the look at the image until the pod's directory names it, nothing else keeps it from being collected.
    let _hold = store.hold().doing(Kind::Host, || "keep the image".into())?;
    let (manifest, roots) = match &args.pod_manifest {
        Some(path) => described(path, args, host, &store)?,
        None => asked_for(args, host, &store)?,
    };
    check_apps(&manifest, flavour, standing.interactive)?;
    check_activation(&manifest)?;
    let network =
        standing.nets.map(|nets| net::networking(nets, flavour, &manifest, &host.settings)).transpose()?;
    let names = standing.names.is_some_and(|names| names.says_nothing());
    let network = net::with_names(network.unwrap_or_default(), names);
    let register = standing.keeping.mds_register;
    let metadata = register.then(|| metadata::service(&manifest, host, &store)).transpose()?;
    let contract =
        Contract { roots, network, metadata, ..contract(args, standing, host, &manifest, (flavour, &id))? };
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

/// The pod of the images and options on the command line, and the file system of each app.
fn asked_for(args: &PodArgs, host: &Host, store: &Store) -> Result<(Manifest, Vec<PathBuf>), Error> {
    let wanted = Wanted::new(&args.fetch, PullPolicy::New, host);
    let of_pod = PodEnvironment::read(args)?;
    let (mut apps, mut roots) = (vec![], vec![]);
    for wish in &args.apps {
        let image = wanted.fetch(&wish.image, wish.flags.signature.as_deref(), store)?;
        apps.push(runtime_app(wish, &of_pod, &image)?);
        roots.push(image.erofs);
    }
    let (volumes, ports) = (args.volume.clone(), args.port.clone());
    Ok((Manifest { volumes, ports, ..Manifest::new(apps) }, roots))
}

/// The pod of a manifest, likewise. Its images are in the store, or nowhere.
fn described(
    path: &Path,
    args: &PodArgs,
    host: &Host,
    store: &Store,
) -> Result<(Manifest, Vec<PathBuf>), Error> {
    let wanted = Wanted::new(&args.fetch, PullPolicy::Never, host);
    let manifest = manifest::of_file(path, |id| {
        let image = wanted.fetch(id, None, store)?;
        let app = image_app(&image)?;
        Ok((image.name, serde_json::to_value(app).doing(Kind::Host, || "read the image's app".into())?))
    })?;
    let root = |app: &RuntimeApp| Ok(wanted.fetch(&app.image.id, None, store)?.erofs);
    let roots = manifest.apps.iter().map(root).collect::<Result<_, Error>>()?;
    Ok((manifest, roots))
}

/// What must hold for the apps together.
fn check_apps(manifest: &Manifest, flavour: Flavour, interactive: bool) -> Result<(), Error> {
    let refuse = |text: String| Err(Error::new(Kind::User, text));
    let apps = &manifest.apps;
    if apps.is_empty() || apps.len() > APPS_MAX {
        return refuse(format!("a pod has 1 to {APPS_MAX} apps, not {}", apps.len()));
    }
    for (index, app) in apps.iter().enumerate() {
        if let Some(other) = apps[..index].iter().find(|other| other.name == app.name) {
            return refuse(format!(
                "two apps are named {}: those of image {} and image {}; give one of them another name with --name",
                app.name, other.image.name, app.image.name
            ));
        }
        if app.app.exec.is_empty() {
            let name = &app.image.name;
            return refuse(format!(
                "image {name:?} has an empty \"exec\" (try --exec=BINARY, or a command behind --)"
            ));
        }
    }
    if apps.len() > 1 && flavour == Flavour::Fly {
        return refuse("--stage1=fly runs exactly one app in a pod".into());
    }
    check_interactive(interactive, apps.len())
}

/// Sockets of a service manager (sd_listen_fds(3)) reach no app. One that expects them must not run without.
fn check_activation(manifest: &Manifest) -> Result<(), Error> {
    let number = |name| std::env::var(name).ok().and_then(|value| value.parse::<u32>().ok());
    let is_ours = number("LISTEN_PID") == Some(std::process::id());
    let given = is_ours && number("LISTEN_FDS").is_some_and(|count| count > 0);
    let expects = |app: &&RuntimeApp| app.app.ports.iter().any(|port| port.socket_activated);
    match manifest.apps.iter().find(expects).filter(|_| given) {
        None => Ok(()),
        Some(app) => {
            let text = format!(
                "app {} expects the sockets that the service manager listens on, which cannot be handed to a pod; let \
                 the app listen itself (--port), with systemd-socket-proxyd(8) in front if it is to start on demand",
                app.name
            );
            Err(Error::new(Kind::User, text))
        }
    }
}

/// Whether the pod uses the caller's IPC objects; never where it was asked for what it would not get.
pub(super) fn parents_ipc(keeping: KeepingArgs, flavour: Flavour) -> Result<bool, Error> {
    let refuse = |text: &str| Err(Error::new(Kind::User, text));
    match (keeping.ipc, flavour) {
        (Some(Ipc::Parent), Flavour::Kvm) => {
            refuse("--ipc=parent: a VM shares no memory with the host; --stage1=nspawn or fly can")
        }
        (Some(Ipc::Private), Flavour::Fly) => refuse(
            "--ipc=private: a chroot (--stage1=fly) uses the host's; --stage1=kvm or nspawn have their own",
        ),
        (asked, Flavour::Nspawn) => Ok(asked == Some(Ipc::Parent)),
        (_, Flavour::Kvm | Flavour::Fly) => Ok(false),
    }
}

/// There is one terminal, and nobody to say whose it is.
pub(super) fn check_interactive(interactive: bool, apps: usize) -> Result<(), Error> {
    match interactive && apps > 1 {
        true => {
            Err(Error::new(Kind::User, format!("--interactive needs a pod of exactly one app, not {apps}")))
        }
        false => Ok(()),
    }
}

/// What the pod's options say about every app's environment.
struct PodEnvironment {
    own: Vec<(String, String)>,
    files: Vec<(String, String)>,
    set: Vec<(String, String)>,
}

impl PodEnvironment {
    fn read(args: &PodArgs) -> Result<Self, Error> {
        let mut files = vec![];
        for path in &args.set_env_file {
            files.extend(environment::of_file(path)?);
        }
        let own = if args.inherit_env { environment::own() } else { vec![] };
        Ok(Self { own, files, set: args.set_env.clone() })
    }
}

fn named(pairs: impl IntoIterator<Item = (String, String)>) -> Vec<NameValue> {
    pairs.into_iter().map(|(name, value)| NameValue { name, value }).collect()
}

fn runtime_app(wish: &AppWish, of_pod: &PodEnvironment, image: &Image) -> Result<RuntimeApp, Error> {
    let flags = &wish.flags;
    let of_image = image_app(image)?;
    let environment = Environment::default()
        .set(&of_pod.own)
        .set(&image.config.environment)
        .set(&flags.environment)
        .set(&of_pod.files)
        .set(&of_pod.set);
    let gids = Some(&flags.supplementary_gids).filter(|gids| !gids.is_empty());
    let mut annotations = stop_signal(image.config.stop_signal.as_deref())?;
    annotations.extend(flags.annotations());
    annotations.extend(copy_up(image));
    annotations.extend(named(flags.annotation.clone()));
    let mut app = App {
        exec: exec(wish, image),
        user: flags.user.clone().unwrap_or(of_image.user),
        group: flags.group.clone().unwrap_or(of_image.group),
        supplementary_gids: gids.cloned().unwrap_or(of_image.supplementary_gids),
        working_directory: flags.working_dir.clone().unwrap_or(of_image.working_directory),
        environment: named(environment.into_pairs()),
        user_annotations: named(flags.user_annotation.clone()),
        user_labels: named(flags.user_label.clone()),
        ..of_image
    };
    flags.isolators().into_iter().for_each(|isolator| app.set_isolator(isolator));
    Ok(RuntimeApp {
        name: flags.name.clone().unwrap_or_else(|| AppName::from_image_name(&image.name)),
        image: RuntimeImage {
            name: image.name.clone(),
            id: image.id.to_string(),
            labels: named(image.config.labels.clone()),
        },
        app,
        read_only_root_fs: flags.readonly_rootfs.unwrap_or(false),
        mounts: flags.mount.clone(),
        annotations,
    })
}

/// Images of Docker and OCI expect an empty volume to begin with what they have in its place.
fn copy_up(image: &Image) -> Option<NameValue> {
    let is_dockers = image.kind != ImageKind::Aci && !image.config.mount_points.is_empty();
    is_dockers.then(|| NameValue { name: COPY_UP.into(), value: "true".into() })
}

/// What an image says about its app.
fn image_app(image: &Image) -> Result<App, Error> {
    let config = &image.config;
    Ok(App {
        exec: config.entrypoint.iter().chain(&config.command).cloned().collect(),
        user: config.user.clone(),
        group: config.group.clone().unwrap_or_default(),
        supplementary_gids: config.supplementary_gids.clone(),
        working_directory: config.working_directory.clone(),
        environment: named(config.environment.clone()),
        event_handlers: config.event_handlers.iter().filter_map(event_handler).collect(),
        isolators: isolators(&config.isolators)?,
        mount_points: config.mount_points.iter().map(mount_point).collect(),
        ports: config.ports.iter().map(port).collect(),
        user_annotations: vec![],
        user_labels: vec![],
    })
}

/// appc has no other names than these two, and an image of another name has been refused.
fn event_handler(handler: &hull_image::EventHandler) -> Option<EventHandler> {
    let name = match handler.name.as_str() {
        "pre-start" => Event::PreStart,
        "post-stop" => Event::PostStop,
        _ => return None,
    };
    Some(EventHandler { name, exec: handler.exec.clone() })
}

fn mount_point(point: &hull_image::MountPoint) -> MountPoint {
    MountPoint { name: point.name.clone(), path: point.path.clone(), read_only: point.read_only }
}

fn port(port: &hull_image::Port) -> Port {
    Port {
        name: port.name.clone(),
        protocol: port.protocol.clone(),
        port: port.port,
        count: port.count,
        socket_activated: port.socket_activated,
    }
}

fn isolators(of_image: &[serde_json::Value]) -> Result<Vec<Isolator>, Error> {
    let read = |value: &serde_json::Value| serde_json::from_value(value.clone());
    let isolators: Result<_, _> = of_image.iter().map(read).collect();
    isolators.doing(Kind::User, || "understand the image's isolators".into())
}

/// The image's whole command line, with the user's arguments in their place.
fn exec(wish: &AppWish, image: &Image) -> Vec<String> {
    let config = &image.config;
    let mut exec = match &wish.flags.exec {
        Some(program) => vec![program.clone()],
        None => config.entrypoint.clone(),
    };
    match wish.args.is_empty() && wish.flags.exec.is_none() {
        true => exec.extend(config.command.iter().cloned()),
        false => exec.extend(wish.args.iter().cloned()),
    }
    exec
}

fn stop_signal(name: Option<&str>) -> Result<Vec<NameValue>, Error> {
    let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(vec![]) };
    hull_pod::wire::parse_signal(name).doing(Kind::User, || "use the image's stop signal".into())?;
    Ok(vec![NameValue { name: STOP_SIGNAL.into(), value: name.into() }])
}

fn contract(
    args: &PodArgs,
    standing: Standing<'_>,
    host: &Host,
    manifest: &Manifest,
    (flavour, id): (Flavour, &PodId),
) -> Result<Contract, Error> {
    let hostname = args.hostname.clone().unwrap_or_else(|| format!("hull-{id}"));
    let names = standing.names;
    let machine = match flavour {
        Flavour::Kvm => Some(machine(args, host, manifest)?),
        Flavour::Nspawn | Flavour::Fly => no_machine(args, flavour)?,
    };
    Ok(Contract {
        version: contract::VERSION,
        pod: id.clone(),
        flavour,
        hosts: names.map(|names| names::hosts(names, flavour, &hostname)).transpose()?.flatten(),
        resolver: names.map(names::resolver).transpose()?.flatten(),
        hostname,
        roots: vec![],
        network: Networking::default(),
        agent: host.installed(AGENT)?,
        machine,
        interactive: standing.interactive,
        detached: standing.detached,
        log_bytes: standing.keeping.log_size,
        metadata: None,
        parents_ipc: parents_ipc(standing.keeping, flavour)?,
        lenient: args.isolators == Strictness::Lenient,
        waived: insecure::of_run(&host.insecure_options),
        debug: host.debug,
    })
}

fn machine(args: &PodArgs, host: &Host, manifest: &Manifest) -> Result<Machine, Error> {
    let kernel = match &args.kernel {
        Some(path) => {
            fs::canonicalize(path).doing(Kind::User, || format!("use guest kernel {}", path.display()))?
        }
        None => host.installed(KERNEL)?,
    };
    let settings = Settings::load_places(&host.settings).doing(Kind::Host, || "read the settings".into())?;
    let ids = settings.ids().map(|ids| IdRange { first: ids.first, count: ids.count }).unwrap_or_default();
    let processors = std::thread::available_parallelism().map_or(1, |count| count.get().min(VCPUS_MAX));
    let processors = u8::try_from(processors).expect("no more than the most");
    let lenient = args.isolators == Strictness::Lenient;
    let size = size::of_machine(manifest, lenient, processors);
    let size = size.doing(Kind::User, || "find out how large the virtual machine has to be".into())?;
    let ram_mib = args.vm_memory.unwrap_or(size.ram_mib);
    check_memory(ram_mib)?;
    Ok(Machine { kernel, vcpus: args.vm_cpus.unwrap_or(size.vcpus), ram_mib, ids })
}

/// A machine that is larger than its host ends with it.
fn check_memory(ram_mib: u32) -> Result<(), Error> {
    let text = fs::read_to_string("/proc/meminfo").doing(Kind::Host, || "read /proc/meminfo".into())?;
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
    let total_mib = total.and_then(|number| number.parse::<u64>().ok()).map(|kib| kib / 1024);
    match total_mib.filter(|total| *total < u64::from(ram_mib)) {
        None => Ok(()),
        Some(total) => Err(Error::new(
            Kind::User,
            format!(
                "give the virtual machine {ram_mib} MiB of memory: this host has {total}; lower the apps' memory \
                 limits, or say --vm-memory"
            ),
        )),
    }
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

//! Manifest and contract become what the agent is told.

use hull_agent_protocol::TerminalSize;
use hull_agent_protocol::{
    AppMetadata, AppSpec, ImageSource, Metadata, PodSpec, Restart, StandardStreams, VolumeSource, VolumeSpec,
};
use hull_errors::Doing;
use hull_network::Networking;
use nix::sys::signal::Signal;

use crate::isolators::{self, Capabilities, Isolated, Seccomp, Strictness};
use crate::manifest::{Event, NameValue, RESTART, ROOTFS_SIZE, RuntimeApp, STOP_SIGNAL};
use crate::seccomp::Filter;
use crate::streams::{Input, Streams};
use crate::volumes::{self, Used};
use crate::{Contract, Error, Flavour, Kind, Manifest};

/// What an app may do as root: rkt's default set without [`DEVICE_MAKER`].
pub const DEFAULT_CAPABILITIES: &[&str] = &[
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// Of rkt's default set in a VM only: a VM's devices are the pod's own, while elsewhere a node in `/dev`
/// would open any disk of the host.
pub const DEVICE_MAKER: &str = "CAP_MKNOD";

/// Where the agent of a stage1 finds what stage1 brings.
pub trait Places {
    /// The read-only root of app number `index`.
    fn image(&self, index: usize) -> ImageSource;

    /// Volume number `index` of [`volumes::Volumes::used`], which is one of the host's.
    fn volume(&self, index: usize, volume: &Used) -> VolumeSource;
}

/// Builds the agent's orders. `terminal` is the size of the user's terminal in an interactive pod.
///
/// # Errors
/// A stop signal that no signal has for a name, an isolator that cannot be applied, or a volume that is none.
pub fn pod_spec(
    manifest: &Manifest,
    contract: &Contract,
    places: &dyn Places,
    terminal: TerminalSize,
) -> Result<PodSpec, Error> {
    build(manifest, contract, places, terminal).map(|(spec, _)| spec)
}

/// Finds out whether [`pod_spec`] will succeed, and gives what the user should know about the pod.
///
/// # Errors
/// As [`pod_spec`].
pub fn check(manifest: &Manifest, contract: &Contract) -> Result<Vec<String>, Error> {
    build(manifest, contract, &Nowhere, TerminalSize { rows: 0, columns: 0 }).map(|(_, warnings)| warnings)
}

/// What the pod may send in a second, in bits, if each of its apps has a limit; otherwise those without could not be told
/// from the others.
pub fn network_limit(manifest: &Manifest) -> Option<u64> {
    let mut strictness = Strictness { lenient: true, warnings: vec![] };
    let mut limit = |app: &RuntimeApp| {
        let isolated = isolators::of_app(app.name.as_str(), &app.app.isolators, &mut strictness).ok()?;
        isolated.limits.network_bits_per_second
    };
    manifest
        .apps
        .iter()
        .map(&mut limit)
        .try_fold(0u64, |sum, bits| sum.checked_add(bits?))
        .filter(|sum| *sum > 0)
}

struct Nowhere;

impl Places for Nowhere {
    fn image(&self, _: usize) -> ImageSource {
        ImageSource::Mounted { path: String::new() }
    }

    fn volume(&self, _: usize, _: &Used) -> VolumeSource {
        VolumeSource::Mounted { path: String::new() }
    }
}

fn build(
    manifest: &Manifest,
    contract: &Contract,
    places: &dyn Places,
    terminal: TerminalSize,
) -> Result<(PodSpec, Vec<String>), Error> {
    let mut strictness = Strictness { lenient: contract.lenient, warnings: vec![] };
    let volumes = volumes::resolve(manifest, contract.flavour)?;
    let volume = |(index, used): (usize, &Used)| VolumeSpec {
        name: used.name.clone(),
        source: used.made_by_agent().unwrap_or_else(|| places.volume(index, used)),
    };
    let mut spec = PodSpec {
        hostname: contract.hostname.clone(),
        hosts: contract.hosts.clone(),
        resolver: contract.resolver.clone(),
        lenient: contract.lenient,
        metadata: metadata(manifest, contract)?,
        sysctls: isolators::of_pod(&manifest.isolators, &mut strictness)?,
        volumes: volumes.used.iter().enumerate().map(volume).collect(),
        ..PodSpec::default()
    };
    for ((index, app), mounts) in manifest.apps.iter().enumerate().zip(volumes.mounts) {
        let isolated = isolators::of_app(app.name.as_str(), &app.app.isolators, &mut strictness)?;
        let streams = streams(index, Streams::of(app)?, contract.interactive, terminal);
        let mut words = app_spec(app, places.image(index), streams)?;
        words.mounts = mounts;
        words.protect_paths = !contract.waived.paths;
        isolate(&mut words, isolated, contract, &mut spec.seccomp);
        if limits_network(contract) {
            words.limits.network_bits_per_second = None;
        }
        spec.apps.push(words);
    }
    strictness.warnings.extend(volumes.warnings);
    Ok((spec, strictness.warnings))
}

fn metadata(manifest: &Manifest, contract: &Contract) -> Result<Option<Box<Metadata>>, Error> {
    let Some(service) = &contract.metadata else { return Ok(None) };
    let pairs = |pairs: &[NameValue]| pairs.iter().map(|p| (p.name.clone(), p.value.clone())).collect();
    let app = |(app, image): (&RuntimeApp, &String)| AppMetadata {
        name: app.name.to_string(),
        annotations: pairs(&app.annotations),
        image_id: app.image.id.clone(),
        image_manifest: image.clone(),
    };
    let text = serde_json::to_string(manifest).doing(Kind::Host, || "encode the pod manifest".into())?;
    Ok(Some(Box::new(Metadata {
        token: service.token.clone(),
        uuid: contract.pod.to_string(),
        manifest: text,
        annotations: pairs(&manifest.annotations),
        apps: manifest.apps.iter().zip(&service.images).map(app).collect(),
    })))
}

/// Whether the host limits what the pod sends.
fn limits_network(contract: &Contract) -> bool {
    matches!(&contract.network, Networking::Own(plan) if plan.bits_per_second.is_some())
}

/// Gives an app its rights and limits; a program of its filter that the pod has already is shared.
fn isolate(app: &mut AppSpec, isolated: Isolated, contract: &Contract, programs: &mut Vec<Vec<u64>>) {
    app.limits = isolated.limits;
    app.no_new_privileges = isolated.no_new_privileges;
    app.capabilities = match isolated.capabilities {
        Some(Capabilities::Retain(set)) => set,
        Some(Capabilities::Remove(set)) => {
            let mut all = default_capabilities(contract);
            all.retain(|name| !set.contains(name));
            all
        }
        None => default_capabilities(contract),
    };
    let filter = match isolated.seccomp {
        _ if contract.waived.seccomp => None,
        Seccomp::Off => None,
        Seccomp::Filter(filter) => Some(filter),
        // A chroot is for programs that manage the host, as in rkt.
        Seccomp::Default if contract.flavour == Flavour::Fly => None,
        Seccomp::Default => Some(Filter::default_for(&app.capabilities)),
    };
    app.seccomp = filter.map(|filter| {
        let program = filter.compile();
        let known = programs.iter().position(|known| *known == program).unwrap_or_else(|| {
            programs.push(program);
            programs.len() - 1
        });
        u16::try_from(known).expect("a pod has at most 256 apps")
    });
}

fn default_capabilities(contract: &Contract) -> Vec<String> {
    if contract.waived.capabilities {
        // A VM's kernel has them all; elsewhere nobody has more than the host gives.
        let own = caps::read(None, caps::CapSet::Bounding).ok().filter(|_| contract.flavour != Flavour::Kvm);
        return own.unwrap_or_else(caps::all).iter().map(ToString::to_string).collect();
    }
    let maker = (contract.flavour == Flavour::Kvm).then_some(DEVICE_MAKER);
    DEFAULT_CAPABILITIES.iter().copied().chain(maker).map(String::from).collect()
}

/// Channels 3n+1 to 3n+3 belong to app n.
fn streams(index: usize, modes: Streams, interactive: bool, size: TerminalSize) -> StandardStreams {
    let first = u32::try_from(index).expect("a pod has at most 256 apps") * 3 + 1;
    let stdin = match modes.stdin {
        // One standard input cannot feed two apps: the first has it.
        Input::Usual => index == 0,
        Input::Stream => true,
        Input::Null | Input::Terminal => false,
    };
    match interactive || modes.has_terminal() {
        true => StandardStreams::Terminal { channel: first, size },
        false => {
            StandardStreams::Pipes { stdin: stdin.then_some(first), stdout: first + 1, stderr: first + 2 }
        }
    }
}

fn app_spec(app: &RuntimeApp, image: ImageSource, streams: StandardStreams) -> Result<AppSpec, Error> {
    let environment = app.app.environment.iter().map(|pair| (pair.name.clone(), pair.value.clone()));
    Ok(AppSpec {
        exec: app.app.exec.clone(),
        environment: environment.collect(),
        user: app.app.user.clone(),
        group: Some(app.app.group.clone()).filter(|group| !group.is_empty()),
        supplementary_gids: app.app.supplementary_gids.clone(),
        working_directory: app.app.working_directory.clone(),
        read_only_root: app.read_only_root_fs,
        pre_start: handlers(app, Event::PreStart),
        post_stop: handlers(app, Event::PostStop),
        upper_size_bytes: app.annotation(ROOTFS_SIZE).map(parse_size).transpose()?,
        restart: app.annotation(RESTART).map_or(Ok(Restart::Never), parse_restart)?,
        stop_signal: app.annotation(STOP_SIGNAL).map_or(Ok(libc_sigterm()), parse_signal)?,
        ..AppSpec::new(app.name.as_str(), image, &[], streams)
    })
}

fn handlers(app: &RuntimeApp, event: Event) -> Vec<Vec<String>> {
    let handlers = app.app.event_handlers.iter().filter(|handler| handler.name == event);
    handlers.map(|handler| handler.exec.clone()).collect()
}

fn libc_sigterm() -> i32 {
    Signal::SIGTERM as i32
}

/// A number of bytes: `64Mi`.
///
/// # Errors
/// Anything else, and nothing at all.
pub fn parse_size(text: &str) -> Result<u64, Error> {
    isolators::bytes(text).map_err(|why| Error::new(Kind::BadFile, format!("read the size {text:?}: {why}")))
}

/// `SIGQUIT`, `QUIT` or `3`.
///
/// # Errors
/// Anything else.
pub fn parse_signal(text: &str) -> Result<i32, Error> {
    let upper = text.to_ascii_uppercase();
    let name = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    let number = text.parse::<i32>().ok().and_then(|n| Signal::try_from(n).ok());
    number
        .or_else(|| name.parse::<Signal>().ok())
        .map(|signal| signal as i32)
        .ok_or_else(|| Error::new(Kind::BadName, format!("parse stop signal {text:?}: no such signal")))
}

/// `never`, `on-failure`, `on-failure:MAX` or `always`.
///
/// # Errors
/// Anything else.
pub fn parse_restart(text: &str) -> Result<Restart, Error> {
    let refuse = || {
        let why = format!("parse {text:?}: must be never, on-failure, on-failure:MAX or always");
        Error::new(Kind::BadName, why)
    };
    match text.split_once(':') {
        None if text == "never" => Ok(Restart::Never),
        None if text == "on-failure" => Ok(Restart::OnFailure { max: None }),
        None if text == "always" => Ok(Restart::Always),
        Some(("on-failure", max)) => {
            max.parse().map(|max| Restart::OnFailure { max: Some(max) }).map_err(|_| refuse())
        }
        _ => Err(refuse()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts_have_few_words() {
        assert_eq!(parse_restart("never").unwrap(), Restart::Never);
        assert_eq!(parse_restart("on-failure").unwrap(), Restart::OnFailure { max: None });
        assert_eq!(parse_restart("on-failure:3").unwrap(), Restart::OnFailure { max: Some(3) });
        assert_eq!(parse_restart("always").unwrap(), Restart::Always);
        for text in ["", "no", "always:3", "on-failure:", "on-failure:-1", "on-failure:x"] {
            assert!(parse_restart(text).is_err(), "{text}");
        }
    }

    #[test]
    fn signals_have_names_and_numbers() {
        for text in ["SIGQUIT", "quit", "3"] {
            assert_eq!(parse_signal(text).unwrap(), 3, "{text}");
        }
        for text in ["", "0", "SIGNOPE", "99", "-1"] {
            assert!(parse_signal(text).is_err(), "{text}");
        }
    }
}

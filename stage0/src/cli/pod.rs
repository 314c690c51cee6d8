//! The words of the commands about pods.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::{ArgAction, Args, ValueEnum, ValueHint};
use hull_pod::manifest::{ExposedPort, Volume};
use hull_pod::{AppName, Flavour};

use super::Format;
use super::app::{AppFlags, AppWish};
use super::fetch::FetchWishes;
use super::names::NameArgs;
use super::net::{NetArgs, exposed_port};
use super::values::{Wait, hostname, pair, since, wait};
use super::volumes::volume;
use crate::complete::{any_image, any_pod, idle_pod, prepared_pod, running_pod};

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Connect the app to this terminal
    #[arg(long)]
    pub(crate) interactive: bool,
    /// Print the pod's UUID once its apps run, and leave it to itself
    #[arg(short, long, conflicts_with = "interactive")]
    pub(crate) detach: bool,
    /// Write the pod's UUID to a file before the pod starts
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) uuid_file_save: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) names: NameArgs,
    #[command(flatten)]
    pub(crate) nets: NetArgs,
    #[command(flatten)]
    pub(crate) keeping: KeepingArgs,
    #[command(flatten)]
    pub(crate) pod: PodArgs,
}

/// What a pod shares with whoever starts it, and what is kept of it.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct KeepingArgs {
    /// Let the apps ask what their pod is: $AC_METADATA_URL says where
    #[arg(long)]
    pub(crate) mds_register: bool,
    /// Whose System V IPC and POSIX message queues: the pod's own (auto, private), or the caller's (parent)
    #[arg(long, value_enum, value_name = "WHOSE")]
    pub(crate) ipc: Option<Ipc>,
    /// Longest log file of an app; it has two of them [default: 8Mi]
    #[arg(long, value_name = "SIZE", value_parser = hull_pod::log::parse_size)]
    pub(crate) log_size: Option<u64>,
}

/// As `--ipc=` spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Ipc {
    Auto,
    Private,
    Parent,
}

#[derive(Debug, Args)]
pub(crate) struct RunPreparedArgs {
    /// Connect the app to this terminal
    #[arg(long)]
    pub(crate) interactive: bool,
    /// Print the pod's UUID once its apps run, and leave it to itself
    #[arg(short, long, conflicts_with = "interactive")]
    pub(crate) detach: bool,
    /// Host name of the pod [default: as it was prepared]
    #[arg(long, value_name = "NAME", value_parser = hostname)]
    pub(crate) hostname: Option<String>,
    #[command(flatten)]
    pub(crate) names: NameArgs,
    #[command(flatten)]
    pub(crate) nets: NetArgs,
    #[command(flatten)]
    pub(crate) keeping: KeepingArgs,
    /// The pod, or an unambiguous prefix of its id
    #[arg(value_name = "UUID", add = prepared_pod())]
    pub(crate) uuid: String,
}

/// What a pod is made of.
#[derive(Debug, Args)]
pub(crate) struct PodArgs {
    /// What isolates the pod [default: kvm]
    #[arg(long, value_enum)]
    pub(crate) stage1: Option<Stage1>,
    /// Host name of the pod [default: hull-UUID]
    #[arg(long, value_name = "NAME", value_parser = hostname)]
    pub(crate) hostname: Option<String>,
    /// Guest kernel of a VM pod, an ELF vmlinux
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub(crate) kernel: Option<PathBuf>,
    /// Memory of a VM pod, in MiB [default: the apps' limits and what the machine takes, 256 without limits]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(48..=262_144))]
    pub(crate) vm_memory: Option<u32>,
    /// Virtual CPUs of a VM pod [default: the apps' limits rounded up, 1 without limits]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=32))]
    pub(crate) vm_cpus: Option<u8>,
    /// rkt's user namespaces, which this version has not: refused
    #[arg(long, hide = true)]
    pub(crate) private_users: bool,
    /// What becomes of an isolator that cannot be applied: an error, or a warning
    #[arg(long, value_enum, default_value = "strict")]
    pub(crate) isolators: Strictness,
    /// Publish a port of an image on the host; NUMBER-tcp and NUMBER-udp are ports of any image
    #[arg(long, value_name = "NAME:[HOSTIP:]HOSTPORT", value_parser = exposed_port)]
    pub(crate) port: Vec<ExposedPort>,
    /// Set an environment variable of every app, whatever else says
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) set_env: Vec<(String, String)>,
    /// Set the environment variables of a file, which only --set-env overrides
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) set_env_file: Vec<PathBuf>,
    /// Pass on hull's own environment where nothing else sets a variable
    #[arg(long)]
    pub(crate) inherit_env: bool,
    /// A volume of the pod: NAME,kind=host,source=PATH[,readOnly=BOOL][,recursive=BOOL], or
    /// NAME,kind=empty[,size=SIZE][,mode=MODE][,uid=UID][,gid=GID]
    #[arg(long, value_name = "VOLUME", value_parser = volume)]
    pub(crate) volume: Vec<Volume>,
    /// Make the pod that an appc pod manifest describes, of images in the store
    #[arg(
        long, value_name = "FILE", value_hint = ValueHint::FilePath,
        conflicts_with_all = ["images", "set_env", "set_env_file", "inherit_env", "volume", "port"]
    )]
    pub(crate) pod_manifest: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) fetch: FetchWishes,
    /// docker://NAME, NAME[:VERSION], a URL, oci:PATH[:TAG], oci-archive:PATH[:TAG], docker-archive:PATH[:REF],
    /// a path, or an image id; each with its own options, and arguments behind -- which take the place of an OCI
    /// or Docker image's default ones and follow an ACI's; --- ends them
    #[arg(value_name = "IMAGE", required_unless_present = "pod_manifest", add = any_image())]
    images: Vec<String>,
    /// For help; each app's own are in `apps`.
    #[command(flatten)]
    _of_apps: AppFlags,
    /// In the order of the images.
    #[arg(skip)]
    pub(crate) apps: Vec<AppWish>,
}

/// As `--isolators=` spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Strictness {
    Strict,
    Lenient,
}

/// As `--stage1=` spells a flavour.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Stage1 {
    /// A virtual machine
    Kvm,
    /// Linux namespaces
    Nspawn,
    /// A chroot: packaging, not isolation
    Fly,
}

impl From<Stage1> for Flavour {
    fn from(stage1: Stage1) -> Self {
        match stage1 {
            Stage1::Kvm => Self::Kvm,
            Stage1::Nspawn => Self::Nspawn,
            Stage1::Fly => Self::Fly,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Print no headings
    #[arg(long)]
    pub(crate) no_legend: bool,
    /// Print whole ids and times
    #[arg(long)]
    pub(crate) full: bool,
    #[arg(long, value_enum)]
    pub(crate) format: Option<Format>,
}

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Wait until the pod has ended, or fail after a while
    #[arg(
        long, value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value = "false", hide_default_value = true, value_parser = wait
    )]
    pub(crate) wait: Wait,
    /// Wait until the pod's apps run, or fail after a while
    #[arg(
        long, value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value = "false", hide_default_value = true, value_parser = wait
    )]
    pub(crate) wait_ready: Wait,
    #[arg(long, value_enum)]
    pub(crate) format: Option<Format>,
    #[command(flatten)]
    pub(crate) pod: OnePod,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct OnePod {
    /// The pod, or an unambiguous prefix of its id
    #[arg(value_name = "UUID", add = any_pod())]
    pub(crate) uuid: Option<String>,
    /// Read the id from a file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) uuid_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct CatManifestArgs {
    /// Indent it; without, it is printed byte for byte
    #[arg(
        long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_value_t = true, default_missing_value = "true"
    )]
    pub(crate) pretty_print: bool,
    #[command(flatten)]
    pub(crate) pod: OnePod,
}

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// Print what is written from now on too, until the pod has ended
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only what was written since then: a time like 2026-01-31T12:00:00Z, or how long ago, like 10m
    #[arg(long, value_name = "TIME", value_parser = since)]
    pub(crate) since: Option<SystemTime>,
    /// Only so many of the last lines
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) tail: Option<usize>,
    /// Print the time before each line
    #[arg(short, long)]
    pub(crate) timestamps: bool,
    /// Whose; needed where the pod has several
    #[arg(long, value_name = "APP")]
    pub(crate) app: Option<AppName>,
    #[command(flatten)]
    pub(crate) pod: OnePod,
}

#[derive(Debug, Args)]
pub(crate) struct ExportPodArgs {
    /// The app; needed where the pod has several
    #[arg(long, value_name = "APP")]
    pub(crate) app: Option<AppName>,
    /// Replace what is at the output
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// The pod, or an unambiguous prefix of its id
    #[arg(value_name = "UUID", add = running_pod())]
    pub(crate) uuid: String,
    /// The App Container Image to write
    #[arg(value_name = "OUTPUT", value_hint = ValueHint::FilePath)]
    pub(crate) output: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// The pods, or unambiguous prefixes of their ids
    #[arg(value_name = "UUID", add = idle_pod(), required_unless_present = "uuid_file", conflicts_with = "uuid_file")]
    pub(crate) uuids: Vec<String>,
    /// Read the id from a file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) uuid_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct GcArgs {
    /// How long an exited pod is kept
    #[arg(long, value_name = "DURATION", default_value = "30m", value_parser = humantime::parse_duration)]
    pub(crate) grace_period: Duration,
    /// How long a prepared pod may wait for its start
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = humantime::parse_duration)]
    pub(crate) expire_prepared: Duration,
    /// Only mark exited pods, remove nothing
    #[arg(long)]
    pub(crate) mark_only: bool,
}

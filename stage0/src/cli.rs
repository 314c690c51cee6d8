//! The command line, one to one. What it means is decided in `cmd`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use hull_pod::{AppName, Flavour};

#[derive(Debug, Parser)]
#[command(
    name = "hull",
    version,
    about = "Runs images as pods, each in a machine of its own",
    infer_subcommands = true,
    arg_required_else_help = true,
    after_help = "Exit codes: the pod's own; 128+n for an app that signal n ended; 254 when hull itself failed."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Data directory
    #[arg(long, global = true, value_name = "PATH", default_value = "/var/lib/hull", env = "HULL_DIR")]
    pub(crate) dir: PathBuf,
    /// Where hull's other programs, the agent and the guest kernel are [default: beside hull, or ../libexec/hull]
    #[arg(long, global = true, value_name = "PATH", env = "HULL_LIBEXEC")]
    pub(crate) libexec: Option<PathBuf>,
    /// Say more on standard error; a VM's kernel messages among it
    #[arg(long, global = true)]
    pub(crate) debug: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run an image as a pod
    Run(Box<RunArgs>),
    /// Prepare a pod without starting it
    Prepare(Box<PodArgs>),
    /// Start a prepared pod
    RunPrepared(RunPreparedArgs),
    /// List pods
    List(ListArgs),
    /// Show the state of a pod
    Status(StatusArgs),
    /// Remove pods that do not run
    Rm(RmArgs),
    /// Collect what exited pods left
    Gc(GcArgs),
    /// Check whether this host can run pods, and say what to do where it cannot
    Doctor(DoctorArgs),
    /// Print the version
    Version,
}

impl Command {
    /// The prefix of its errors.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Run(_) => "run",
            Self::Prepare(_) => "prepare",
            Self::RunPrepared(_) => "run-prepared",
            Self::List(_) => "list",
            Self::Status(_) => "status",
            Self::Rm(_) => "rm",
            Self::Gc(_) => "gc",
            Self::Doctor(_) => "doctor",
            Self::Version => "version",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Connect the app to this terminal
    #[arg(long)]
    pub(crate) interactive: bool,
    /// Write the pod's UUID to a file before the pod starts
    #[arg(long, value_name = "FILE")]
    pub(crate) uuid_file_save: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) pod: PodArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RunPreparedArgs {
    /// Connect the app to this terminal
    #[arg(long)]
    pub(crate) interactive: bool,
    /// The pod, or an unambiguous prefix of its id
    #[arg(value_name = "UUID")]
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
    #[arg(long, value_name = "PATH")]
    pub(crate) kernel: Option<PathBuf>,
    /// Memory of a VM pod, in MiB
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(64..=262_144))]
    pub(crate) vm_memory: Option<u32>,
    /// Virtual CPUs of a VM pod
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=32))]
    pub(crate) vm_cpus: Option<u8>,
    /// Set an environment variable, whatever the image says
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) set_env: Vec<(String, String)>,
    /// Replace the image's command by this program; ARGS are its arguments
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) exec: Option<String>,
    /// Name of the app [default: from the image's name]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<AppName>,
    /// User of the app: a name, an id, or a path whose owner is meant
    #[arg(long, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// Group of the app, likewise
    #[arg(long, value_name = "GROUP")]
    pub(crate) group: Option<String>,
    /// Working directory of the app
    #[arg(long, value_name = "DIR", value_parser = absolute)]
    pub(crate) working_dir: Option<String>,
    /// oci:PATH[:TAG], oci-archive:PATH[:TAG], docker-archive:PATH[:REF], a path, or an image id
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// Arguments of the app: in place of an OCI or Docker image's default ones, after an ACI's
    #[arg(last = true, value_name = "ARGS")]
    pub(crate) args: Vec<String>,
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
    /// Wait until the pod has ended
    #[arg(long)]
    pub(crate) wait: bool,
    #[arg(long, value_enum)]
    pub(crate) format: Option<Format>,
    #[command(flatten)]
    pub(crate) pod: OnePod,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct OnePod {
    /// The pod, or an unambiguous prefix of its id
    #[arg(value_name = "UUID")]
    pub(crate) uuid: Option<String>,
    /// Read the id from a file
    #[arg(long, value_name = "FILE")]
    pub(crate) uuid_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// The pods, or unambiguous prefixes of their ids
    #[arg(value_name = "UUID", required_unless_present = "uuid_file", conflicts_with = "uuid_file")]
    pub(crate) uuids: Vec<String>,
    /// Read the id from a file
    #[arg(long, value_name = "FILE")]
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

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    #[arg(long, value_enum)]
    pub(crate) format: Option<Format>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Json,
    JsonPretty,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("must be NAME=VALUE".into()),
    }
}

fn absolute(text: &str) -> Result<String, String> {
    match text.starts_with('/') {
        true => Ok(text.to_owned()),
        false => Err("must be an absolute path".into()),
    }
}

/// As hostname(7): labels of letters, digits and dashes, and at most 64 bytes in all, the kernel's limit.
fn hostname(text: &str) -> Result<String, String> {
    let label = |label: &str| {
        let inner = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        inner && !label.is_empty() && !label.starts_with('-') && !label.ends_with('-')
    };
    match text.len() <= 64 && text.split('.').all(label) {
        true => Ok(text.to_owned()),
        false => Err("must be letters, digits, dashes and dots, at most 64 of them".into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn commands_may_be_shortened() {
        assert!(matches!(Cli::parse_from(["hull", "li"]).command, Command::List(_)));
    }

    #[test]
    fn what_follows_the_dashes_is_the_apps() {
        let cli = Cli::parse_from(["hull", "run", "--stage1=fly", "img", "--user=7", "--", "-x", "--user=8"]);
        let Command::Run(args) = cli.command else { panic!("{cli:?}") };
        assert_eq!((args.pod.image.as_str(), args.pod.user.as_deref()), ("img", Some("7")));
        assert_eq!(args.pod.args, ["-x", "--user=8"]);
    }

    #[test]
    fn host_names_are_host_names() {
        for name in ["a", "web-1.example", "0"] {
            assert!(hostname(name).is_ok(), "{name}");
        }
        for name in ["", "-a", "a-", "a..b", "a b", &"x".repeat(65)] {
            assert!(hostname(name).is_err(), "{name}");
        }
    }
}

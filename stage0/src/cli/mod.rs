//! The command line, one to one. What it means is decided in `cmd`.

pub(crate) mod app;
pub(crate) mod control;
pub(crate) mod detach;
pub(crate) mod fetch;
mod grammar;
pub(crate) mod image;
pub(crate) mod insecure;
pub(crate) mod names;
pub(crate) mod net;
pub(crate) mod pod;
pub(crate) mod trust;
pub(crate) mod values;
mod volumes;

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum, ValueHint};

use self::control::{AttachArgs, EnterArgs, ExecArgs, StopArgs};
use self::fetch::FetchArgs;
pub(crate) use self::grammar::parse;
use self::image::ImageCommand;
use self::insecure::InsecureOption;
use self::pod::{
    CatManifestArgs, ExportPodArgs, GcArgs, ListArgs, LogsArgs, PodArgs, RmArgs, RunArgs, RunPreparedArgs,
    StatusArgs,
};
use self::trust::TrustArgs;

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
    /// Data directory [default: what the settings say, else /var/lib/hull]
    #[arg(long, global = true, value_name = "PATH", env = "HULL_DIR", value_hint = ValueHint::DirPath)]
    pub(crate) dir: Option<PathBuf>,
    /// Where hull's other programs, the agent and the guest kernel are [default: beside hull, or ../libexec/hull]
    #[arg(long, global = true, value_name = "PATH", env = "HULL_LIBEXEC", value_hint = ValueHint::DirPath)]
    pub(crate) libexec: Option<PathBuf>,
    /// Say more on standard error; a VM's kernel messages among it
    #[arg(long, global = true)]
    pub(crate) debug: bool,
    /// What is not checked, separated by commas
    #[arg(long, global = true, value_name = "LIST", value_delimiter = ',', hide_possible_values = true)]
    pub(crate) insecure_options: Vec<InsecureOption>,
    /// Trust keys that discovery finds, without asking
    #[arg(long, global = true)]
    pub(crate) trust_keys_from_https: bool,
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
}

/// Where settings and trusted keys are; a later folder overrides an earlier one.
#[derive(Debug, Args)]
pub(crate) struct SettingsArgs {
    /// Settings of the system's vendor
    #[arg(
        long, global = true, value_name = "PATH", env = "HULL_SYSTEM_CONFIG", default_value = "/usr/lib/hull",
        value_hint = ValueHint::DirPath
    )]
    pub(crate) system_config: PathBuf,
    /// Settings of the administrator; they override the vendor's
    #[arg(
        long, global = true, value_name = "PATH", env = "HULL_LOCAL_CONFIG", default_value = "/etc/hull",
        value_hint = ValueHint::DirPath
    )]
    pub(crate) local_config: PathBuf,
    /// More settings; they override the others
    #[arg(long, global = true, value_name = "PATH", env = "HULL_USER_CONFIG", value_hint = ValueHint::DirPath)]
    pub(crate) user_config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run images as the apps of a pod
    #[command(override_usage = "hull run [OPTIONS] IMAGE [APP OPTIONS] [-- ARGS... [---]] [IMAGE ...]")]
    Run(Box<RunArgs>),
    /// Prepare a pod without starting it
    #[command(override_usage = "hull prepare [OPTIONS] IMAGE [APP OPTIONS] [-- ARGS... [---]] [IMAGE ...]")]
    Prepare(Box<PodArgs>),
    /// Start a prepared pod
    RunPrepared(RunPreparedArgs),
    /// List pods
    List(ListArgs),
    /// Show the state of a pod
    Status(StatusArgs),
    /// Print the manifest of a pod
    CatManifest(CatManifestArgs),
    /// Print what an app has written
    Logs(LogsArgs),
    /// End running pods
    Stop(StopArgs),
    /// Run a command in an app of a running pod
    Exec(ExecArgs),
    /// Connect this terminal to the streams of an app of a running pod
    Attach(AttachArgs),
    /// Look into an app of a running pod, with a shell
    Enter(EnterArgs),
    /// Make an image of an app of a running pod, with all that it has written
    Export(ExportPodArgs),
    /// Remove pods that do not run
    Rm(RmArgs),
    /// Collect what exited pods left
    Gc(GcArgs),
    /// Bring images into the store
    Fetch(FetchArgs),
    /// Trust a key that signs App Container Images
    Trust(TrustArgs),
    /// Look after the images of the store
    #[command(subcommand)]
    Image(ImageCommand),
    /// Print the settings, all folders merged and secrets included
    Config(ConfigArgs),
    /// Check whether this host can run pods, and say what to do where it cannot
    Doctor(DoctorArgs),
    /// Print the script that makes a shell complete hull's words
    Completion(CompletionArgs),
    /// Write the manual pages into a folder
    #[command(hide = true)]
    GenerateMan(ManArgs),
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
            Self::CatManifest(_) => "cat-manifest",
            Self::Logs(_) => "logs",
            Self::Stop(_) => "stop",
            Self::Exec(_) => "exec",
            Self::Attach(_) => "attach",
            Self::Enter(_) => "enter",
            Self::Export(_) => "export",
            Self::Config(_) => "config",
            Self::Rm(_) => "rm",
            Self::Gc(_) => "gc",
            Self::Fetch(_) => "fetch",
            Self::Trust(_) => "trust",
            Self::Image(command) => command.name(),
            Self::Doctor(_) => "doctor",
            Self::Completion(_) => "completion",
            Self::GenerateMan(_) => "generate-man",
            Self::Version => "version",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    /// Indent it
    #[arg(
        long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_value_t = true, default_missing_value = "true"
    )]
    pub(crate) pretty_print: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    #[arg(long, value_enum)]
    pub(crate) format: Option<Format>,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionArgs {
    #[arg(value_enum, value_name = "SHELL")]
    pub(crate) shell: Shell,
}

/// Shells whose completion hull speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Zsh,
    Fish,
}

#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) dir: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Json,
    JsonPretty,
}

#[cfg(test)]
mod tests;

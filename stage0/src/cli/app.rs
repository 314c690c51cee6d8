//! The words that belong to one app: behind its image.

use std::path::PathBuf;

use clap::{Args, Parser, ValueHint};
use hull_pod::AppName;
use hull_pod::manifest::{Isolator, Mount, NameValue, RESTART, ROOTFS_SIZE};
use hull_pod::streams::{ANNOTATIONS, Input, Output};
use serde_json::json;

use super::values::{absolute, pair, restart, seccomp, size, stream};
use super::volumes::mount;

/// One app as it was asked for.
#[derive(Debug)]
pub(crate) struct AppWish {
    pub(crate) image: String,
    pub(crate) flags: AppFlags,
    /// What stood behind `--`.
    pub(crate) args: Vec<String>,
}

/// What stands behind an image. With one image it may stand before it too.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Options of an app, behind its image")]
pub(crate) struct AppFlags {
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
    /// More groups of the app, by number, in place of the image's
    #[arg(long, value_name = "GID", value_delimiter = ',')]
    pub(crate) supplementary_gids: Vec<u32>,
    /// Working directory of the app
    #[arg(long, value_name = "DIR", value_parser = absolute)]
    pub(crate) working_dir: Option<String>,
    /// What the app reads: null for nothing, stream or tty for those who attach to it
    #[arg(long, value_name = "null|stream|tty", value_parser = stream::<Input>)]
    pub(crate) stdin: Option<String>,
    /// Where the app's output goes: its log and the caller, nowhere, or to those who attach to it [default: log]
    #[arg(long, value_name = "log|null|stream|tty", value_parser = stream::<Output>)]
    pub(crate) stdout: Option<String>,
    /// Likewise its errors
    #[arg(long, value_name = "log|null|stream|tty", value_parser = stream::<Output>)]
    pub(crate) stderr: Option<String>,
    /// When the app is started again once it has ended: never, on-failure, on-failure:MAX, always [default: never]
    #[arg(long, value_name = "WHEN", value_parser = restart)]
    pub(crate) restart: Option<String>,
    /// Annotate the app in the pod's manifest
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) annotation: Vec<(String, String)>,
    /// Annotate the app for people
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) user_annotation: Vec<(String, String)>,
    /// Label the app for people
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) user_label: Vec<(String, String)>,
    /// Set an environment variable of the app; --set-env and --set-env-file win
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) environment: Vec<(String, String)>,
    /// Limit of the app's memory, in bytes: 64Mi, 1G
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<String>,
    /// Limit of the app's processors: 500m, 2
    #[arg(long, value_name = "PROCESSORS")]
    pub(crate) cpu: Option<String>,
    /// The app's share of processors that are short; 1024 is the usual one
    #[arg(long, value_name = "SHARES")]
    pub(crate) cpu_shares: Option<u64>,
    /// Capabilities that the app has, and no others
    #[arg(
        long,
        alias = "cap-retain",
        value_name = "LIST",
        value_delimiter = ',',
        conflicts_with = "caps_remove"
    )]
    pub(crate) caps_retain: Vec<String>,
    /// Capabilities that the app lacks, of the usual ones
    #[arg(long, alias = "cap-remove", value_name = "LIST", value_delimiter = ',')]
    pub(crate) caps_remove: Vec<String>,
    /// System calls that the app may make, or may not: mode=retain|remove[,errno=NAME],CALL,@SET...
    #[arg(long, value_name = "FILTER", value_parser = seccomp)]
    pub(crate) seccomp: Option<Isolator>,
    /// Whom the kernel ends first where memory is short, -1000 to 1000
    #[arg(long, value_name = "SCORE", allow_hyphen_values = true, value_parser = clap::value_parser!(i32).range(-1000..=1000))]
    pub(crate) oom_score_adj: Option<i32>,
    /// Mount one of the pod's volumes in the app: volume=NAME,target=PATH; before the first of several images, in
    /// every app
    #[arg(long, value_name = "MOUNT", value_parser = mount)]
    pub(crate) mount: Vec<Mount>,
    /// Most that the app may write to its root, in bytes: 64Mi [default: half of the memory]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) rootfs_size: Option<String>,
    /// Let the app write to nothing of its root
    #[arg(
        long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true"
    )]
    pub(crate) readonly_rootfs: Option<bool>,
    /// Detached signature of the App Container Image
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) signature: Option<PathBuf>,
}

impl AppFlags {
    /// What is annotated for the stage1 to act on.
    pub(crate) fn annotations(&self) -> impl Iterator<Item = NameValue> {
        let [stdin, stdout, stderr] = ANNOTATIONS;
        let wished = [
            (stdin, &self.stdin),
            (stdout, &self.stdout),
            (stderr, &self.stderr),
            (RESTART, &self.restart),
            (ROOTFS_SIZE, &self.rootfs_size),
        ];
        let given = |(name, value): (&str, &Option<String>)| {
            Some(NameValue { name: name.into(), value: value.clone()? })
        };
        wished.into_iter().filter_map(given)
    }

    /// The limits and rights among them, each in place of the image's.
    pub(crate) fn isolators(&self) -> Vec<Isolator> {
        let set = |names: &[String]| (!names.is_empty()).then(|| json!({ "set": names }));
        let limit = |value: &Option<String>| value.as_ref().map(|value| json!({ "limit": value }));
        let wished = [
            ("resource/memory", limit(&self.memory)),
            ("resource/cpu", limit(&self.cpu)),
            ("os/linux/cpu-shares", self.cpu_shares.map(Into::into)),
            ("os/linux/oom-score-adj", self.oom_score_adj.map(Into::into)),
            ("os/linux/capabilities-retain-set", set(&self.caps_retain)),
            ("os/linux/capabilities-remove-set", set(&self.caps_remove)),
        ];
        let given = |(name, value): (&str, Option<_>)| Some(Isolator { name: name.into(), value: value? });
        wished.into_iter().filter_map(given).chain(self.seccomp.clone()).collect()
    }
}

/// The words of one app alone.
#[derive(Debug, Parser)]
#[command(name = "hull run", no_binary_name = true, disable_help_flag = true)]
pub(super) struct AppParser {
    #[command(flatten)]
    pub(super) flags: AppFlags,
}

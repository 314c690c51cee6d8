//! The words of the commands that speak to a running pod.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueHint};
use hull_pod::AppName;

use super::detach::DetachKeys;
use crate::complete::running_pod;

#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    /// End the apps at once
    #[arg(long)]
    pub(crate) force: bool,
    /// How long an app may take to end by itself
    #[arg(
        long, value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration,
        conflicts_with = "force"
    )]
    pub(crate) timeout: Duration,
    /// Wait until the pods have ended
    #[arg(long)]
    pub(crate) wait: bool,
    /// The pods, or unambiguous prefixes of their ids
    #[arg(value_name = "UUID", add = running_pod(), required_unless_present = "uuid_file", conflicts_with = "uuid_file")]
    pub(crate) uuids: Vec<String>,
    /// Read the id from a file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) uuid_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// The app to run it in; needed where the pod has several
    #[arg(long, value_name = "APP")]
    pub(crate) app: Option<AppName>,
    /// Give the command this command's standard input
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give the command a terminal of its own
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// The pod, or an unambiguous prefix of its id
    #[arg(value_name = "UUID", add = running_pod())]
    pub(crate) uuid: String,
    /// The command and its arguments
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct AttachArgs {
    /// The app to attach to; needed where the pod has several
    #[arg(long, value_name = "APP")]
    pub(crate) app: Option<AppName>,
    /// What of it: auto for all there is; list to print that; tty, tty-in or tty-out of an app with a terminal; or
    /// some of stdin,stdout,stderr
    #[arg(long, value_name = "MODE", default_value = "auto")]
    pub(crate) mode: AttachMode,
    /// What is typed to leave the app to itself; nothing for no way to
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    pub(crate) detach_keys: DetachKeys,
    /// The pod, or an unambiguous prefix of its id
    #[arg(value_name = "UUID", add = running_pod())]
    pub(crate) uuid: String,
}

/// As `--mode=` spells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AttachMode {
    Auto,
    List,
    /// By their names.
    Endpoints(Vec<&'static str>),
}

impl FromStr for AttachMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => return Ok(Self::Auto),
            "list" => return Ok(Self::List),
            "tty" => return Ok(Self::Endpoints(vec!["tty-in", "tty-out"])),
            "tty-in" => return Ok(Self::Endpoints(vec!["tty-in"])),
            "tty-out" => return Ok(Self::Endpoints(vec!["tty-out"])),
            _ => (),
        }
        let name = |word: &str| ["stdin", "stdout", "stderr"].into_iter().find(|name| *name == word);
        let names: Option<Vec<_>> = text.split(',').map(name).collect();
        names.map(Self::Endpoints).ok_or_else(|| {
            "must be auto, list, tty, tty-in, tty-out, or some of stdin, stdout and stderr with commas between".into()
        })
    }
}

#[derive(Debug, Args)]
pub(crate) struct EnterArgs {
    /// The app to enter; needed where the pod has several
    #[arg(long, value_name = "APP")]
    pub(crate) app: Option<AppName>,
    /// The pod, or an unambiguous prefix of its id
    #[arg(value_name = "UUID", add = running_pod())]
    pub(crate) uuid: String,
    /// The command and its arguments [default: /bin/bash, else /bin/sh]
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
}

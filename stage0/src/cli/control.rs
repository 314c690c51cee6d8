//! The words of the commands that speak to a running pod.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueHint};
use hull_pod::AppName;

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

//! Manifest and contract become what the agent is told.

use hull_agent_protocol::TerminalSize;
use hull_agent_protocol::{AppSpec, ImageSource, PodSpec, StandardStreams};
use nix::sys::signal::Signal;

use crate::manifest::{RuntimeApp, STOP_SIGNAL};
use crate::{Contract, Error, Kind, Manifest};

/// What an app may do as root: rkt's default set without `CAP_MKNOD`, which needs a device policy to be
/// safe outside a VM.
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

/// Builds the agent's orders. `image` says where the agent finds the root of app number n; `terminal`
/// is the size of the user's terminal in an interactive pod.
///
/// # Errors
/// A stop signal that no signal has for a name.
pub fn pod_spec(
    manifest: &Manifest,
    contract: &Contract,
    image: impl Fn(usize) -> ImageSource,
    terminal: TerminalSize,
) -> Result<PodSpec, Error> {
    let apps = manifest.apps.iter().enumerate().map(|(index, app)| {
        let streams = streams(index, contract.interactive, terminal);
        app_spec(app, image(index), streams)
    });
    let apps = apps.collect::<Result<_, _>>()?;
    Ok(PodSpec { hostname: contract.hostname.clone(), apps, ..PodSpec::default() })
}

/// Channels 3n+1 to 3n+3 belong to app n.
fn streams(index: usize, interactive: bool, size: TerminalSize) -> StandardStreams {
    let first = u32::try_from(index).expect("a pod has at most 256 apps") * 3 + 1;
    match interactive {
        true => StandardStreams::Terminal { channel: first, size },
        // One standard input cannot feed two apps: the first has it.
        false => StandardStreams::Pipes {
            stdin: (index == 0).then_some(first),
            stdout: first + 1,
            stderr: first + 2,
        },
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
        capabilities: DEFAULT_CAPABILITIES.iter().map(ToString::to_string).collect(),
        stop_signal: app.annotation(STOP_SIGNAL).map_or(Ok(libc_sigterm()), parse_signal)?,
        ..AppSpec::new(app.name.as_str(), image, &[], streams)
    })
}

fn libc_sigterm() -> i32 {
    Signal::SIGTERM as i32
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

#[cfg(test)]
mod tests {
    use super::*;

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

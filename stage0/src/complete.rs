//! What a shell offers for a word that is not finished: pods and images of this host.
//!
//! A completion says nothing about what goes wrong: it offers less.

use std::ffi::OsStr;

use clap::Parser;
use clap_complete::engine::{
    ArgValueCandidates, ArgValueCompleter, CompletionCandidate, PathCompleter, ValueCompleter,
};
use hull_pod::State;

use crate::cli::Cli;
use crate::host::Host;

/// The environment variable by which a shell asks for candidates; its value names the shell.
pub(crate) const VARIABLE: &str = "HULL_COMPLETE";

/// Any pod.
pub(crate) fn any_pod() -> ArgValueCandidates {
    ArgValueCandidates::new(|| pods(|_| true))
}

/// Pods that can be stopped or joined.
pub(crate) fn running_pod() -> ArgValueCandidates {
    ArgValueCandidates::new(|| pods(|state| state == State::Running))
}

/// Pods that can be started.
pub(crate) fn prepared_pod() -> ArgValueCandidates {
    ArgValueCandidates::new(|| pods(|state| state == State::Prepared))
}

/// Pods that can be removed.
pub(crate) fn idle_pod() -> ArgValueCandidates {
    ArgValueCandidates::new(|| pods(|state| state != State::Running))
}

/// Images of the store.
pub(crate) fn stored_image() -> ArgValueCandidates {
    ArgValueCandidates::new(images)
}

/// Images of the store, or files.
pub(crate) fn any_image() -> ArgValueCompleter {
    ArgValueCompleter::new(|word: &OsStr| {
        let typed = word.to_string_lossy().into_owned();
        let stored =
            images().into_iter().filter(|image| image.get_value().to_string_lossy().starts_with(&typed));
        stored.chain(PathCompleter::any().complete(word)).collect()
    })
}

fn pods(wanted: impl Fn(State) -> bool) -> Vec<CompletionCandidate> {
    let pods = host().and_then(|host| host.pods().ok()?.list().ok()).unwrap_or_default();
    let candidate = |pod: hull_pod::Found| {
        let apps = pod.manifest().map(|manifest| manifest.apps).unwrap_or_default();
        let apps: Vec<_> = apps.iter().map(|app| app.name.as_str()).collect();
        let help = format!("{} {}", pod.state.as_str(), apps.join(", "));
        CompletionCandidate::new(pod.id.as_str()).help(Some(help.into()))
    };
    pods.into_iter().filter(|pod| wanted(pod.state)).map(candidate).collect()
}

fn images() -> Vec<CompletionCandidate> {
    let images = host().and_then(|host| host.images().ok()?.list().ok()).unwrap_or_default();
    let candidate = |image: hull_image::ImageInfo| {
        CompletionCandidate::new(image.name).help(Some(image.id.as_str().to_owned().into()))
    };
    images.into_iter().map(candidate).collect()
}

/// As the environment and the settings say: the rest of the line is not looked at.
fn host() -> Option<Host> {
    let cli = Cli::try_parse_from(["hull", "version"]).ok()?;
    Host::look(&cli.global).ok()
}

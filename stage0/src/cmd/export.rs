//! `hull export`: an app of a running pod, with all it has written, becomes an App Container Image.
//!
//! What an app writes lives as long as its pod: in the memory of a VM, in a tmpfs elsewhere. So its agent sends the
//! files while it runs, and nobody on the host mounts or reads a file system that a guest has written.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, PipeReader, Write, pipe, stderr};
use std::os::fd::AsFd;
use std::process::ExitCode;

use hull_errors::Doing;
use hull_image::{Existing, Staged};
use hull_pod::control::{Answer, Client, Request};
use hull_pod::export::{Entries, Entry, EntryKind};
use hull_pod::manifest::RuntimeApp;
use hull_pod::verdict::exit_code;
use hull_pod::{AppName, Found};
use serde_json::{Value, json};

use super::call::call;
use crate::cli::pod::ExportPodArgs;
use crate::host::Host;
use crate::{Error, Kind};

/// The version of appc's image format that is written.
const AC_VERSION: &str = "0.8.11";

pub(crate) fn export(args: &ExportPodArgs, host: &Host) -> Result<ExitCode, Error> {
    let pods = host.pods()?;
    let found = pods.find(&args.uuid).doing(Kind::User, || "find the pod".into())?;
    let app = app_of(&found, args.app.as_ref())?;
    let doing = || format!("export app {} of pod {}", app.name, found.id);
    let ended = || {
        let why = "it does not run, and what its apps have written is gone with it; export a pod while it runs, \
                   or let it write what is to be kept to a volume";
        Error::new(Kind::User, format!("{}: {why}", doing()))
    };
    let client = call(&pods, &found)?.ok_or_else(ended)?;
    let existing = if args.overwrite { Existing::Replace } else { Existing::Keep };
    let output = Staged::file(&args.output, existing).doing(Kind::User, doing)?;
    let files = ask(&client, &app.name)?;
    let written = write(&app, files, output.handle());
    // Where it broke off, the agent may know why.
    let said = conclude(&client);
    said.and(written).doing(Kind::Host, doing)?;
    output.commit().doing(Kind::User, doing)?;
    Ok(ExitCode::SUCCESS)
}

/// The app that was named; the only one if none was.
fn app_of(found: &Found, name: Option<&AppName>) -> Result<RuntimeApp, Error> {
    let mut apps = found.manifest().doing(Kind::Host, || "read the pod's manifest".into())?.apps;
    let place = match name {
        None if apps.len() == 1 => Some(0),
        None => None,
        Some(name) => apps.iter().position(|app| app.name == *name),
    };
    let names = || apps.iter().map(|app| app.name.as_str()).collect::<Vec<_>>().join(", ");
    match place {
        Some(place) => Ok(apps.swap_remove(place)),
        None => Err(Error::new(Kind::User, format!("choose one of the pod's apps with --app: {}", names()))),
    }
}

fn ask(client: &Client, app: &AppName) -> Result<PipeReader, Error> {
    let doing = || "ask the pod for its files".to_owned();
    let (reader, writer) = pipe().doing(Kind::Host, doing)?;
    let null = File::open("/dev/null").doing(Kind::Host, doing)?;
    let descriptors = [null.as_fd(), writer.as_fd(), stderr().as_fd()].map(|fd| fd.try_clone_to_owned());
    let descriptors = descriptors.into_iter().collect::<io::Result<Vec<_>>>().doing(Kind::Host, doing)?;
    let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
    client.ask(&Request::Export { app: Some(app.clone()) }, &borrowed).doing(Kind::Host, doing)?;
    Ok(reader)
}

fn conclude(client: &Client) -> Result<(), Error> {
    loop {
        match client.answer().doing(Kind::Host, || "hear from the pod".into())? {
            Some(Answer::Exited { outcome }) if exit_code(outcome) == 0 => return Ok(()),
            Some(Answer::Exited { .. }) => return Err(Error::new(Kind::Host, "the agent broke off")),
            Some(Answer::Refused { text }) => return Err(Error::new(Kind::User, text)),
            Some(Answer::Started | Answer::Done | Answer::Endpoints { .. }) => (),
            None => return Err(Error::new(Kind::Host, "the pod ended before its files were there")),
        }
    }
}

fn write(app: &RuntimeApp, files: PipeReader, output: &File) -> Result<(), Error> {
    let doing = || "write the image".to_owned();
    let mut entries = Entries::new(BufReader::new(files));
    let mut tar = tar::Builder::new(BufWriter::new(output));
    let manifest = manifest(app).to_string();
    let mut header = owned(0o644, 0, 0, 0);
    header.set_size(manifest.len() as u64);
    tar.append_data(&mut header, "manifest", manifest.as_bytes()).doing(Kind::Host, doing)?;
    while let Some(entry) = entries.next_entry().doing(Kind::Host, doing)? {
        append(&mut tar, &entry, &mut entries).doing(Kind::Host, doing)?;
    }
    let finished = tar.into_inner().and_then(|mut buffered| buffered.flush());
    finished.and_then(|()| output.sync_all()).doing(Kind::Host, doing)
}

fn append<R: io::Read>(
    tar: &mut tar::Builder<impl Write>,
    entry: &Entry,
    files: &mut Entries<R>,
) -> io::Result<()> {
    let mut header = owned(entry.mode, entry.uid, entry.gid, entry.modified);
    let path = inside(&entry.path);
    let mut plain = |kind: tar::EntryType, numbers: Option<(u32, u32)>| {
        header.set_entry_type(kind);
        if let Some((major, minor)) = numbers {
            header.set_device_major(major)?;
            header.set_device_minor(minor)?;
        }
        tar.append_data(&mut header, &path, io::empty())
    };
    match &entry.kind {
        EntryKind::Directory => plain(tar::EntryType::Directory, None),
        EntryKind::Fifo => plain(tar::EntryType::Fifo, None),
        EntryKind::Character { major, minor } => plain(tar::EntryType::Char, Some((*major, *minor))),
        EntryKind::Block { major, minor } => plain(tar::EntryType::Block, Some((*major, *minor))),
        EntryKind::File { size } => {
            header.set_size(*size);
            tar.append_data(&mut header, &path, files.content())
        }
        EntryKind::Symlink { target } => {
            header.set_entry_type(tar::EntryType::Symlink);
            tar.append_link(&mut header, &path, as_path(target))
        }
        EntryKind::HardLink { target } => {
            header.set_entry_type(tar::EntryType::Link);
            tar.append_link(&mut header, &path, inside(target))
        }
    }
}

fn owned(mode: u32, uid: u32, gid: u32, modified: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_uid(uid.into());
    header.set_gid(gid.into());
    header.set_mtime(modified);
    header.set_size(0);
    header
}

/// The place of a path of the app's in the archive.
fn inside(path: &[u8]) -> std::path::PathBuf {
    std::path::Path::new("rootfs").join(as_path(path))
}

fn as_path(bytes: &[u8]) -> &std::path::Path {
    use std::os::unix::ffi::OsStrExt;
    std::path::Path::new(std::ffi::OsStr::from_bytes(bytes))
}

/// The image manifest (appc spec 0.8.11, `spec/aci.md`) of an app as it ran.
pub(super) fn manifest(app: &RuntimeApp) -> Value {
    let mut labels = app.image.labels.clone();
    labels.retain(|label| !matches!(label.name.as_str(), "os" | "arch"));
    let mut labels = json!(labels);
    let machine = [json!({ "name": "os", "value": "linux" }), json!({ "name": "arch", "value": "amd64" })];
    labels.as_array_mut().expect("a list").extend(machine);
    json!({
        "acKind": "ImageManifest",
        "acVersion": AC_VERSION,
        "name": identifier(&app.image.name),
        "labels": labels,
        "app": app.app,
    })
}

/// As an AC identifier has to be (appc `types/acidentifier`): what does not fit becomes a dash.
fn identifier(name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    let mut out = String::new();
    for c in lower.chars() {
        match c {
            'a'..='z' | '0'..='9' => out.push(c),
            // No two marks follow each other, and none comes first.
            '.' | '_' | '~' | '/' if out.ends_with(|last: char| last.is_ascii_alphanumeric()) => out.push(c),
            _ if out.ends_with(|last: char| last.is_ascii_alphanumeric()) => out.push('-'),
            _ => (),
        }
    }
    let trimmed = out.trim_end_matches(|last: char| !last.is_ascii_alphanumeric());
    if trimmed.is_empty() { "app".into() } else { trimmed.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_images_become_identifiers() {
        let check = |name: &str, want: &str| assert_eq!(identifier(name), want);
        check("docker.io/library/redis:7", "docker.io/library/redis-7");
        check("example.com/app", "example.com/app");
        check("/srv/My Image/", "srv/my-image");
        check("...", "app");
    }
}

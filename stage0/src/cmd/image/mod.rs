//! `hull image`: one file for each command.

mod cat_manifest;
mod export;
mod extract;
mod gc;
mod in_use;
mod list;
mod rm;
mod verify;

use std::process::ExitCode;

use hull_errors::Doing;
use hull_image::{Existing, Image, Store};

use crate::cli::image::ImageCommand;
use crate::host::Host;
use crate::{Error, Kind};

pub(crate) fn image(command: &ImageCommand, host: &Host) -> Result<ExitCode, Error> {
    match command {
        ImageCommand::List(args) => list::list(args, host),
        ImageCommand::CatManifest(args) => cat_manifest::cat_manifest(args, host),
        ImageCommand::Export(args) => export::export(args, host),
        ImageCommand::Extract(args) => extract::extract(args, host),
        ImageCommand::Render(args) => extract::render(args, host),
        ImageCommand::Verify(args) => verify::verify(args, host),
        ImageCommand::Rm(args) => rm::rm(args, host),
        ImageCommand::Gc(args) => gc::gc(args, host),
        ImageCommand::Fetch(args) => super::fetch::fetch(args, host),
    }
}

/// The image of the store that was named.
fn find(store: &Store, named: &str) -> Result<Image, Error> {
    store.lookup(named).doing(Kind::User, || format!("use image {named}"))
}

fn existing(overwrite: bool) -> Existing {
    if overwrite { Existing::Replace } else { Existing::Keep }
}

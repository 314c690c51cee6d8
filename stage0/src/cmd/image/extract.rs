//! `hull image extract` and `hull image render`

use std::process::ExitCode;

use hull_errors::Doing;
use hull_image::{Error as ImageError, Existing, ImageId, Parts, Store};

use super::{existing, find};
use crate::cli::image::ExtractArgs;
use crate::host::Host;
use crate::{Error, Kind};

pub(super) fn extract(args: &ExtractArgs, host: &Host) -> Result<ExitCode, Error> {
    write(args, host, |store, id, parts, existing| store.extract(id, &args.folder, parts, existing))
}

pub(super) fn render(args: &ExtractArgs, host: &Host) -> Result<ExitCode, Error> {
    write(args, host, |store, id, parts, existing| store.render(id, &args.folder, parts, existing))
}

fn write(
    args: &ExtractArgs,
    host: &Host,
    how: impl FnOnce(&Store, &ImageId, Parts, Existing) -> Result<(), ImageError>,
) -> Result<ExitCode, Error> {
    let store = host.images()?;
    let image = find(&store, &args.image.image)?;
    let parts = if args.rootfs_only { Parts::RootFs } else { Parts::All };
    let written = how(&store, &image.id, parts, existing(args.overwrite));
    written.doing(Kind::User, || format!("write the files of image {}", args.image.image))?;
    Ok(ExitCode::SUCCESS)
}

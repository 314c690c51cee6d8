//! `hull image export`

use std::process::ExitCode;

use hull_errors::Doing;
use hull_image::{ExportTo, Image, ImageKind, Store};

use super::{existing, find};
use crate::cli::image::{ExportArgs, ExportFormat};
use crate::host::Host;
use crate::{Error, Kind};

pub(super) fn export(args: &ExportArgs, host: &Host) -> Result<ExitCode, Error> {
    let store = host.images()?;
    let image = find(&store, &args.image.image)?;
    let to = target(args, &image, &store)?;
    let exported = store.export(&image.id, &to, existing(args.overwrite));
    exported.doing(Kind::User, || format!("export {}", args.image.image))?;
    Ok(ExitCode::SUCCESS)
}

fn target(args: &ExportArgs, image: &Image, store: &Store) -> Result<ExportTo, Error> {
    let path = args.output.clone().into();
    match args.format {
        None => args.output.parse().doing(Kind::User, || "choose where to export".into()),
        Some(ExportFormat::Oci) => Ok(ExportTo::OciLayout { path, tag: None }),
        Some(ExportFormat::OciArchive) => Ok(ExportTo::OciArchive { path, tag: None }),
        Some(ExportFormat::Aci) => {
            let list = store.list().doing(Kind::Host, || "look at the image".into())?;
            if list.iter().any(|info| info.id == image.id && info.kind == ImageKind::Aci) {
                return Ok(ExportTo::Path(path));
            }
            let text = format!("image {} is no App Container Image; use --format=oci-archive", image.id);
            Err(Error::new(Kind::User, text))
        }
    }
}

//! `hull image cat-manifest`

use std::io::{self, Write};
use std::process::ExitCode;

use hull_errors::Doing;

use super::find;
use crate::cli::image::CatManifestArgs;
use crate::cmd::indented;
use crate::host::Host;
use crate::{Error, Kind};

pub(super) fn cat_manifest(args: &CatManifestArgs, host: &Host) -> Result<ExitCode, Error> {
    let store = host.images()?;
    let image = find(&store, &args.image.image)?;
    let documents = store.documents(&image.id).doing(Kind::Host, || "read the manifest".into())?;
    let document = match (args.config, documents.config) {
        (true, Some(config)) => config,
        (true, None) => {
            let text = format!("image {} has no configuration beside its manifest", image.id);
            return Err(Error::new(Kind::User, text));
        }
        (false, _) => documents.manifest,
    };
    let text = if args.pretty_print { indented(&document)? } else { document };
    io::stdout().write_all(&text).doing(Kind::Host, || "print the manifest".into())?;
    Ok(ExitCode::SUCCESS)
}

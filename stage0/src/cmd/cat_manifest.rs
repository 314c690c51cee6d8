//! `hull cat-manifest`

use std::fs;
use std::io::{self, Write};
use std::process::ExitCode;

use hull_errors::Doing;
use hull_pod::dir::MANIFEST;

use super::indented;
use crate::cli::pod::CatManifestArgs;
use crate::host::Host;
use crate::{Error, Kind};

pub(crate) fn cat_manifest(args: &CatManifestArgs, host: &Host) -> Result<ExitCode, Error> {
    let found = super::find_pod(&host.pods()?, &args.pod)?;
    let document = fs::read(found.path().join(MANIFEST));
    let document = document.doing(Kind::User, || format!("read the manifest of pod {}", found.id))?;
    let text = if args.pretty_print { indented(&document)? } else { document };
    io::stdout().write_all(&text).doing(Kind::Host, || "print the manifest".into())?;
    Ok(ExitCode::SUCCESS)
}

//! `hull config`

use std::process::ExitCode;

use hull_errors::Doing;
use hull_image::Settings;

use crate::cli::ConfigArgs;
use crate::host::Host;
use crate::{Error, Kind};

/// Prints all settings, merged, secrets included: only who may read them all gets that far.
pub(crate) fn config(args: &ConfigArgs, host: &Host) -> Result<ExitCode, Error> {
    let settings = Settings::load(&host.settings).doing(Kind::User, || "read the settings".into())?;
    settings.warnings().iter().for_each(|warning| eprintln!("{warning}"));
    let document = settings.to_json().to_string();
    match args.pretty_print {
        true => print!("{}", String::from_utf8_lossy(&super::indented(document.as_bytes())?)),
        false => println!("{document}"),
    }
    Ok(ExitCode::SUCCESS)
}

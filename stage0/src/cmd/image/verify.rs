//! `hull image verify`

use std::process::ExitCode;

use hull_errors::Doing;
use hull_image::{Store, Verification};

use super::find;
use crate::cli::image::ImagesArgs;
use crate::host::Host;
use crate::{Error, FAILURE, Kind};

pub(super) fn verify(args: &ImagesArgs, host: &Host) -> Result<ExitCode, Error> {
    let store = host.images()?;
    let mut code = ExitCode::SUCCESS;
    for named in &args.images {
        match verify_one(&store, named) {
            Ok(text) => println!("{text}"),
            Err(why) => {
                eprintln!("image verify: {}", hull_errors::chain(&why));
                code = ExitCode::from(FAILURE);
            }
        }
    }
    Ok(code)
}

fn verify_one(store: &Store, named: &str) -> Result<String, Error> {
    let image = find(store, named)?;
    let id = image.id.as_str();
    Ok(match store.verify(&image.id).doing(Kind::Host, || format!("verify image {named}"))? {
        Verification::Good => format!("successfully verified checksum for image: {named:?} ({id:?})"),
        Verification::Rebuilt { why } => {
            format!("rebuilt the file system of image: {named:?} ({id:?}): {why}")
        }
    })
}

//! `hull image rm`

use std::collections::BTreeSet;
use std::process::ExitCode;

use hull_errors::Doing;
use hull_image::{ImageId, Removal};

use super::find;
use super::in_use::Users;
use crate::cli::image::ImagesArgs;
use crate::host::Host;
use crate::{Error, FAILURE, Kind};

pub(super) fn rm(args: &ImagesArgs, host: &Host) -> Result<ExitCode, Error> {
    let store = host.images()?;
    let mut failed = false;
    let mut fail = |text: String| {
        eprintln!("image rm: {text}");
        failed = true;
    };
    // One image that cannot be removed is no reason to keep the others.
    let mut ids: Vec<ImageId> = Vec::new();
    for named in &args.images {
        match find(&store, named) {
            Ok(image) if ids.contains(&image.id) => (),
            Ok(image) => ids.push(image.id),
            Err(why) => fail(hull_errors::chain(&why)),
        }
    }
    let pods = host.pods()?;
    let mut users = Users::default();
    let removals = store.remove(&ids, || -> Result<BTreeSet<ImageId>, Error> {
        users = Users::find(&pods)?;
        Ok(users.images())
    });
    let mut count = 0;
    for (id, removal) in ids.iter().zip(removals.doing(Kind::Host, || "remove images".into())?) {
        match removal {
            Removal::Removed { .. } => {
                println!("successfully removed image: {:?}", id.as_str());
                count += 1;
            }
            Removal::InUse => fail(format!("image {id} is in use: {} (hull rm removes pods)", users.of(id))),
            Removal::Missing => fail(format!("image {id} is gone already")),
        }
    }
    eprintln!("{count} image(s) successfully removed");
    Ok(ExitCode::from(if failed { FAILURE } else { 0 }))
}

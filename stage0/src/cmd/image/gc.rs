//! `hull image gc`

use std::process::ExitCode;

use hull_errors::Doing;
use hull_image::GcReport;
use indicatif::HumanBytes;

use super::in_use::Users;
use crate::cli::image::ImageGcArgs;
use crate::host::Host;
use crate::{Error, Kind};

pub(super) fn gc(args: &ImageGcArgs, host: &Host) -> Result<ExitCode, Error> {
    let pods = host.pods()?;
    let report = host.images()?.gc(args.grace_period, || Users::find(&pods).map(|users| users.images()));
    let report = report.doing(Kind::Host, || "collect images".into())?;
    for id in &report.images {
        println!("successfully removed image: {:?}", id.as_str());
    }
    eprintln!("{}", summary(&report));
    Ok(ExitCode::SUCCESS)
}

fn summary(report: &GcReport) -> String {
    let removed = [
        (report.images.len(), "images"),
        (report.erofs, "file systems without an image"),
        (report.blobs, "blobs that no image needs"),
        (report.names, "names that led nowhere"),
        (report.files, "records of files that have changed"),
        (report.temporary, "files of commands that were killed"),
    ];
    let parts = removed.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
    let parts = parts.collect::<Vec<_>>().join(", ");
    match (parts.is_empty(), report.freed_bytes) {
        (true, 0) => "nothing to remove".into(),
        (true, freed) => format!("removed downloads that were given up: {}", HumanBytes(freed)),
        (false, freed) => format!("removed {parts}: {}", HumanBytes(freed)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_removed_is_told() {
        assert_eq!(summary(&GcReport::default()), "nothing to remove");
        let report = GcReport { blobs: 3, names: 1, freed_bytes: 2048, ..GcReport::default() };
        assert_eq!(
            summary(&report),
            "removed 3 blobs that no image needs, 1 names that led nowhere: 2.00 KiB"
        );
    }
}

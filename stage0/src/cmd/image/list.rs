//! `hull image list`

use std::cmp::Ordering;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use hull_errors::Doing;
use hull_image::ImageInfo;
use indicatif::HumanBytes;
use serde::Serialize;

use crate::cli::image::{Field, ImageListArgs, Order, SortField};
use crate::cmd::fetch::short_id;
use crate::cmd::view::{absolute_time, relative_time};
use crate::host::Host;
use crate::progress::printable;
use crate::table::lay_out;
use crate::{Error, Kind};

/// How many digits of an id a table shows, as rkt's.
const SHORT_ID: usize = 12;

/// Longest name that a table shows, in characters; one with a digest fits.
const NAME_MAX: usize = 320;

/// An image as JSON; the first five keys are rkt's.
#[derive(Debug, Serialize)]
struct ImageView<'a> {
    id: &'a str,
    name: &'a str,
    /// Nanoseconds since the epoch.
    import_time: u64,
    last_used_time: u64,
    /// Bytes.
    size: u64,
    import_time_rfc3339: String,
    last_used_time_rfc3339: String,
}

pub(super) fn list(args: &ImageListArgs, host: &Host) -> Result<ExitCode, Error> {
    let mut images = host.images()?.list().doing(Kind::Host, || "list the images".into())?;
    images.sort_by(|a, b| in_order(a, b, args));
    match args.format {
        Some(format) => {
            let views: Vec<_> = images.iter().map(ImageView::of).collect();
            crate::cmd::print_json(&views, format)?;
        }
        None => print!("{}", lay_out(&rows(&images, args, SystemTime::now()))),
    }
    Ok(ExitCode::SUCCESS)
}

impl<'a> ImageView<'a> {
    fn of(info: &'a ImageInfo) -> Self {
        let rfc3339 = |time| humantime::format_rfc3339_nanos(time).to_string();
        Self {
            id: info.id.as_str(),
            name: &info.name,
            import_time: nanoseconds(info.imported),
            last_used_time: nanoseconds(info.last_used),
            size: info.size_bytes,
            import_time_rfc3339: rfc3339(info.imported),
            last_used_time_rfc3339: rfc3339(info.last_used),
        }
    }
}

fn nanoseconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).ok().and_then(|since| u64::try_from(since.as_nanos()).ok()).unwrap_or(0)
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn in_order(a: &ImageInfo, b: &ImageInfo, args: &ImageListArgs) -> Ordering {
    let by = |field: &SortField| match field {
        SortField::Name => a.name.cmp(&b.name),
        SortField::ImportTime => a.imported.cmp(&b.imported),
        SortField::LastUsed => a.last_used.cmp(&b.last_used),
        SortField::Size => a.size_bytes.cmp(&b.size_bytes),
    };
    let upwards = args.sort.iter().map(by).find(|order| order.is_ne()).unwrap_or(Ordering::Equal);
    match args.order {
        Order::Asc => upwards,
        Order::Desc => upwards.reverse(),
    }
}

fn rows(images: &[ImageInfo], args: &ImageListArgs, now: SystemTime) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    if !args.no_legend {
        rows.push(args.fields.iter().map(|field| heading(*field).to_owned()).collect());
    }
    let row = |info: &ImageInfo| args.fields.iter().map(|field| cell(info, *field, args.full, now)).collect();
    rows.extend(images.iter().map(row));
    rows
}

fn heading(field: Field) -> &'static str {
    match field {
        Field::Id => "ID",
        Field::Name => "NAME",
        Field::Size => "SIZE",
        Field::ImportTime => "IMPORT TIME",
        Field::LastUsed => "LAST USED",
    }
}

fn cell(info: &ImageInfo, field: Field, full: bool, now: SystemTime) -> String {
    let time = |then| match full {
        true => absolute_time(Some(seconds(then))),
        false => relative_time(Some(seconds(then)), seconds(now)),
    };
    match field {
        Field::Id if full => info.id.to_string(),
        Field::Id => short_id(&info.id, SHORT_ID),
        Field::Name => printable(&info.name, NAME_MAX),
        Field::Size if full => info.size_bytes.to_string(),
        Field::Size => HumanBytes(info.size_bytes).to_string(),
        Field::ImportTime => time(info.imported),
        Field::LastUsed => time(info.last_used),
    }
}

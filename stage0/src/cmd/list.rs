//! `hull list`

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use hull_errors::Doing;

use super::view::{NetworkView, PodView, absolute_time, relative_time};
use crate::cli::pod::ListArgs;
use crate::host::Host;
use crate::table::lay_out;
use crate::{Error, Kind};

pub(crate) fn list(args: &ListArgs, host: &Host) -> Result<ExitCode, Error> {
    let found = host.pods()?.list().doing(Kind::Host, || "list the pods".into())?;
    let views: Vec<PodView> = found.iter().map(PodView::of).collect();
    match args.format {
        Some(format) => super::print_json(&views, format)?,
        None => print!("{}", lay_out(&rows(&views, args))),
    }
    Ok(ExitCode::SUCCESS)
}

fn rows(views: &[PodView], args: &ListArgs) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    if !args.no_legend {
        let mut heads =
            vec!["UUID", "APP", "IMAGE NAME", "STATE", "CREATED", "STARTED", "NETWORKS", "STAGE1"];
        if args.full {
            heads.insert(3, "IMAGE ID");
        }
        rows.push(heads.into_iter().map(str::to_owned).collect());
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    rows.extend(views.iter().flat_map(|view| pod_rows(view, args.full, now)));
    rows
}

/// One row for each app; the pod's own columns only in the first.
fn pod_rows(view: &PodView, full: bool, now: u64) -> Vec<Vec<String>> {
    let time = |seconds| if full { absolute_time(seconds) } else { relative_time(seconds, now) };
    let row = |index: usize| {
        let app = view.apps.get(index);
        let of_pod = |text: String| if index == 0 { text } else { String::new() };
        let mut row = vec![
            of_pod(if full { view.name.clone() } else { view.name.chars().take(8).collect() }),
            app.map_or("-".into(), |app| app.name.clone()),
            app.map_or("-".into(), |app| app.image_name.clone()),
        ];
        if full {
            // The algorithm and twelve digits, as rkt shows them.
            row.push(app.map_or("-".into(), |app| app.image_id.chars().take("sha512-".len() + 12).collect()));
        }
        row.extend([
            of_pod(view.state.into()),
            of_pod(time(view.created_at)),
            of_pod(time(view.started_at)),
            of_pod(NetworkView::text(&view.networks)),
            of_pod(view.stage1.unwrap_or_default().into()),
        ]);
        row
    };
    (0..view.apps.len().max(1)).map(row).collect()
}

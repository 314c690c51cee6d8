//! Pods that a file describes as a whole: `--pod-manifest`.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use hull_errors::Doing;
use hull_pod::Manifest;
use serde_json::Value;

use crate::{Error, Kind};

/// Longest manifest of a pod, in bytes.
const FILE_MAX: u64 = 4 << 20;

/// Reads a manifest from a file. An app that does not say what to run runs what its image says: `fill` is
/// given the app's image id, and answers with the image's name and app.
pub(super) fn of_file(
    path: &Path,
    fill: impl Fn(&str) -> Result<(String, Value), Error>,
) -> Result<Manifest, Error> {
    let doing = || format!("read the pod manifest {}", path.display());
    let mut bytes = Vec::new();
    let mut file = File::open(path).doing(Kind::User, doing)?.take(FILE_MAX + 1);
    file.read_to_end(&mut bytes).doing(Kind::User, doing)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(Error::new(Kind::User, format!("{}: longer than {FILE_MAX} bytes", doing())));
    }
    let mut value: Value = serde_json::from_slice(&bytes).doing(Kind::User, doing)?;
    for app in value.get_mut("apps").and_then(Value::as_array_mut).into_iter().flatten() {
        let id = app.pointer("/image/id").and_then(Value::as_str).unwrap_or_default().to_owned();
        if id.is_empty() {
            return Err(Error::new(Kind::User, format!("{}: an app without the id of its image", doing())));
        }
        let (name, of_image) = fill(&id)?;
        if app.pointer("/image/name").is_none() {
            app["image"]["name"] = name.into();
        }
        if app.get("app").is_none_or(Value::is_null) {
            app["app"] = of_image;
        }
    }
    serde_json::from_value(value).doing(Kind::User, doing)
}

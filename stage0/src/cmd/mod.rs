//! One file for each command.

pub(crate) mod attach;
pub(crate) mod cat_manifest;
pub(crate) mod completion;
pub(crate) mod config;
pub(crate) mod doctor;
pub(crate) mod enter;
pub(crate) mod exec;
pub(crate) mod export;
pub(crate) mod fetch;
pub(crate) mod gc;
pub(crate) mod image;
pub(crate) mod list;
pub(crate) mod logs;
pub(crate) mod man;
pub(crate) mod prepare;
pub(crate) mod rm;
pub(crate) mod run;
pub(crate) mod status;
pub(crate) mod stop;
pub(crate) mod trust;
pub(crate) mod version;

mod call;
mod environment;
mod manifest;
mod metadata;
mod names;
mod net;
mod view;

use std::fs;

use hull_errors::Doing;
use hull_pod::{Found, Pods};
use serde::Serialize;

use crate::cli::Format;
use crate::cli::pod::OnePod;
use crate::{Error, Kind};

/// Prints a value as JSON.
fn print_json<T: Serialize>(value: &T, format: Format) -> Result<(), Error> {
    let text = match format {
        Format::Json => serde_json::to_string(value),
        Format::JsonPretty => serde_json::to_string_pretty(value),
    };
    println!("{}", text.doing(Kind::Host, || "encode the answer".into())?);
    Ok(())
}

/// The pod that was named, by a prefix of its id or by a file with its id.
fn find_pod(pods: &Pods, named: &OnePod) -> Result<Found, Error> {
    let prefix = match (&named.uuid, &named.uuid_file) {
        (Some(prefix), _) => prefix.clone(),
        (None, Some(file)) => {
            let text = fs::read_to_string(file);
            text.doing(Kind::User, || format!("read the pod's id from {}", file.display()))?.trim().to_owned()
        }
        (None, None) => String::new(),
    };
    pods.find(&prefix).doing(Kind::User, || "find the pod".into())
}

/// A JSON document for people.
fn indented(document: &[u8]) -> Result<Vec<u8>, Error> {
    let doing = || "indent the manifest (--pretty-print=false prints it as it is)".to_owned();
    let value: serde_json::Value = serde_json::from_slice(document).doing(Kind::Host, doing)?;
    let mut text = serde_json::to_vec_pretty(&value).doing(Kind::Host, doing)?;
    text.push(b'\n');
    Ok(text)
}

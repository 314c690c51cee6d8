//! What a request for an image carries to be let in.

use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use url::Url;

use super::sigv4;
use crate::settings::{Credentials, Settings};

/// Whether credentials may travel in the clear (`--insecure-options=http`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Clear {
    Allowed,
    Refused,
}

/// The headers of `GET url`: `others`, and those that say who asks, if the settings know that for the host.
pub(super) fn headers(
    settings: &Settings,
    url: &Url,
    others: &[(&'static str, String)],
    clear: Clear,
    now: SystemTime,
) -> HeaderMap {
    let credentials =
        settings.credentials(url).filter(|_| url.scheme() == "https" || clear == Clear::Allowed);
    let ours = match credentials {
        None => Vec::new(),
        Some(Credentials::Basic(login)) => {
            let text = STANDARD.encode(format!("{}:{}", login.user, login.password.reveal()));
            vec![("authorization", format!("Basic {text}"))]
        }
        Some(Credentials::OAuth(token)) => vec![("authorization", format!("Bearer {}", token.reveal()))],
        Some(Credentials::Aws(keys)) => {
            let others: Vec<_> = others.iter().map(|(name, value)| (*name, value.as_str())).collect();
            sigv4::sign(keys, url, &others, now)
        }
    };
    let headers = others.iter().cloned().chain(ours).filter_map(|(name, value)| {
        let mut value = HeaderValue::from_str(&value).ok()?;
        value.set_sensitive(name == "authorization");
        Some((HeaderName::from_static(name), value))
    });
    headers.collect()
}

/// What the header `Host` of a request says.
pub(super) fn host_header(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

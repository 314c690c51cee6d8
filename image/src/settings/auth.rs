//! Credentials: for servers of App Container Images (`auth`) and for registries (`dockerAuth`).

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::document::{Document, Folder};
use crate::Error;

/// Text that is not shown.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub(crate) struct Secret(String);

impl Secret {
    /// The text itself, for the one place that needs it.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A name and its password.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) password: Secret,
}

impl Login {
    pub(super) fn to_json(&self) -> Value {
        json!({ "user": self.user, "password": self.password.reveal() })
    }

    fn check(&self, document: &Document) -> Result<(), Error> {
        if self.user.is_empty() {
            return Err(document.wrong("`credentials` has no `user`"));
        }
        if self.password.reveal().is_empty() {
            return Err(document.wrong("`credentials` has no `password`"));
        }
        // A name ends at the first colon of what is sent (RFC 7617 section 2).
        if self.user.contains(':') || self.user.chars().any(char::is_control) {
            return Err(document.wrong("`user` has a colon or a control character"));
        }
        Ok(())
    }
}

/// How to be known to a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Credentials {
    Basic(Login),
    /// Sent as `Bearer`.
    OAuth(Secret),
    Aws(AwsKeys),
}

/// Keys for Amazon's signatures, version 4.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AwsKeys {
    #[serde(rename = "accessKeyID")]
    pub(crate) access_key_id: String,
    pub(crate) secret_access_key: Secret,
    #[serde(rename = "awsRegion")]
    pub(crate) region: Option<String>,
}

#[derive(Deserialize)]
struct OAuth {
    token: Secret,
}

#[derive(Deserialize)]
struct Auth {
    domains: Vec<String>,
    r#type: String,
}

#[derive(Deserialize)]
struct With<T> {
    credentials: T,
}

#[derive(Deserialize)]
struct DockerAuth {
    registries: Vec<String>,
    credentials: Login,
}

impl Credentials {
    fn of(kind: &str, document: &Document) -> Result<Self, Error> {
        match kind {
            "basic" => {
                let login = document.parse::<With<Login>>()?.credentials;
                login.check(document)?;
                Ok(Credentials::Basic(login))
            }
            "oauth" => {
                let token = document.parse::<With<OAuth>>()?.credentials.token;
                // RFC 6750 section 2.1 allows no others.
                if token.reveal().is_empty() || !token.reveal().bytes().all(|b| b.is_ascii_graphic()) {
                    return Err(document.wrong("`token` is empty or has characters that no token has"));
                }
                Ok(Credentials::OAuth(token))
            }
            "aws" => {
                let keys = document.parse::<With<AwsKeys>>()?.credentials;
                let plain = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
                if !plain(&keys.access_key_id) || !plain(keys.secret_access_key.reveal()) {
                    return Err(document.wrong("`accessKeyID` or `secretAccessKey` is empty or no such key"));
                }
                if keys.region.as_deref().is_some_and(|region| !plain(region)) {
                    return Err(document.wrong("`awsRegion` is empty or no region"));
                }
                Ok(Credentials::Aws(keys))
            }
            other => {
                let other = crate::error::shown(other.as_bytes());
                Err(document.wrong(&format!("type `{other}` is unknown, write `basic`, `oauth` or `aws`")))
            }
        }
    }

    pub(super) fn to_json(&self) -> Value {
        match self {
            Credentials::Basic(login) => json!({ "type": "basic", "credentials": login.to_json() }),
            Credentials::OAuth(token) => {
                json!({ "type": "oauth", "credentials": { "token": token.reveal() } })
            }
            Credentials::Aws(keys) => {
                let mut credentials = json!({
                    "accessKeyID": keys.access_key_id,
                    "secretAccessKey": keys.secret_access_key.reveal(),
                });
                if let Some(region) = &keys.region {
                    credentials["awsRegion"] = region.as_str().into();
                }
                json!({ "type": "aws", "credentials": credentials })
            }
        }
    }
}

/// Reads a document of the kind `auth`.
pub(super) fn add_domains(
    document: &Document,
    said: &mut Folder,
    domains: &mut BTreeMap<String, Credentials>,
) -> Result<(), Error> {
    let auth: Auth = document.parse()?;
    if auth.domains.is_empty() {
        return Err(document.wrong("`domains` is empty"));
    }
    let credentials = Credentials::of(&auth.r#type, document)?;
    for domain in auth.domains {
        let domain = normal(&domain, document)?;
        said.says(document, format!("domain `{domain}`"))?;
        domains.insert(domain, credentials.clone());
    }
    Ok(())
}

/// Reads a document of the kind `dockerAuth`.
pub(super) fn add_registries(
    document: &Document,
    said: &mut Folder,
    registries: &mut BTreeMap<String, Login>,
) -> Result<(), Error> {
    let auth: DockerAuth = document.parse()?;
    if auth.registries.is_empty() {
        return Err(document.wrong("`registries` is empty"));
    }
    auth.credentials.check(document)?;
    for registry in auth.registries {
        let registry = normal(&registry, document)?;
        said.says(document, format!("registry `{registry}`"))?;
        registries.insert(registry, auth.credentials.clone());
    }
    Ok(())
}

/// `HOST[:PORT]` as a URL would have it.
fn normal(host: &str, document: &Document) -> Result<String, Error> {
    let wrong = || {
        let host = crate::error::shown(host.as_bytes());
        document.wrong(&format!("`{host}` is no host, write `HOST` or `HOST:PORT`"))
    };
    // Else a URL would be cut at these, and credentials sent to what was left of it.
    if host.is_empty() || host.contains(['/', '\\', '@', '?', '#']) || host.chars().any(char::is_whitespace) {
        return Err(wrong());
    }
    let url = Url::parse(&format!("https://{host}")).map_err(|_| wrong())?;
    host_of(&url).ok_or_else(wrong)
}

/// The host of a URL, and its port if that is not the scheme's own.
pub(super) fn host_of(url: &Url) -> Option<String> {
    let host = url.host_str().filter(|host| !host.is_empty())?;
    Some(url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
}

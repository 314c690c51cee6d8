//! Clients for HTTP: whom they believe, how far they follow, how long they wait.

use std::sync::Once;
use std::time::Duration;

use reqwest::redirect::{Attempt, Policy};
use reqwest::{Certificate, Client, ClientBuilder, Identity};
use rustls::crypto::ring;

use crate::{Error, Kind};

/// Most redirects that are followed (rkt's number, and Go's).
const REDIRECTS_MAX: usize = 10;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// The longest silence inside an answer. Large answers may take any time.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

const USER_AGENT: &str = concat!("hull/", env!("CARGO_PKG_VERSION"));

/// Whose certificates are believed.
#[derive(Clone, Debug)]
pub(crate) enum Trust {
    /// Those of the host's authorities, as `SSL_CERT_FILE` and `SSL_CERT_DIR` or the usual places have them, and of
    /// these.
    Authorities(Vec<Certificate>),
    /// Anybody's: the user wants it so (`--insecure-options=tls`).
    Anybody,
}

impl Trust {
    /// Believes these besides.
    pub(crate) fn and(self, others: Vec<Certificate>) -> Self {
        match self {
            Trust::Authorities(own) => Trust::Authorities(own.into_iter().chain(others).collect()),
            Trust::Anybody => Trust::Anybody,
        }
    }
}

/// A client that follows at most ten redirects, never from HTTPS to HTTP, and leaves authorization behind when it
/// comes to another host. Proxies are those of the environment.
///
/// # Errors
/// [`Kind::Host`] if the host has no certificates of authorities, or an own one is none.
pub(crate) fn client(trust: &Trust) -> Result<Client, Error> {
    build(builder(trust).redirect(Policy::custom(follow)))
}

/// A client as [`client`], that is known by a certificate, or follows no redirect at all.
pub(crate) fn special_client(
    trust: &Trust,
    identity: Option<Identity>,
    follows: bool,
) -> Result<Client, Error> {
    let policy = if follows { Policy::custom(follow) } else { Policy::none() };
    let builder = builder(trust).redirect(policy);
    build(match identity {
        Some(identity) => builder.identity(identity),
        None => builder,
    })
}

fn build(builder: ClientBuilder) -> Result<Client, Error> {
    builder.build().map_err(|e| {
        let text = "set up HTTPS: the certificates of authorities cannot be used (install ca-certificates, or set \
                    SSL_CERT_FILE)";
        Error::because(Kind::Host, text, e)
    })
}

fn builder(trust: &Trust) -> ClientBuilder {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        let _ = ring::default_provider().install_default(); // Another may have been first, and does as well.
    });
    let builder = Client::builder()
        .user_agent(USER_AGENT)
        // An address can hold a secret, which the next host has no need to know.
        .referer(false)
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT);
    match trust {
        Trust::Authorities(own) => builder.tls_certs_merge(own.iter().cloned()),
        Trust::Anybody => builder.tls_danger_accept_invalid_certs(true),
    }
}

fn follow(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let from_https = attempt.previous().last().is_some_and(|from| from.scheme() == "https");
    if attempt.previous().len() > REDIRECTS_MAX {
        return attempt.error(format!("more than {REDIRECTS_MAX} redirects"));
    }
    match attempt.url().scheme() {
        "https" => attempt.follow(),
        "http" if !from_https => attempt.follow(),
        _ => {
            let to = crate::error::shown(attempt.url().as_str().as_bytes());
            attempt.error(format!("the server leads from https to {to}"))
        }
    }
}

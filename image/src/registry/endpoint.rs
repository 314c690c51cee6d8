//! One server that may have the image: how it is reached, and who we are to it.

use std::cell::{OnceCell, RefCell};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName,
    HeaderValue, WWW_AUTHENTICATE,
};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use tokio::time::timeout;
use url::{Url, form_urlencoded};

use super::challenge::Challenge;
use super::session::Registry;
use crate::error::shown;
use crate::settings::docker_auth::Key;
use crate::settings::registries::Place;
use crate::transport::retry::{Failure, accepted, persist};
use crate::{Error, Kind};

/// Docker Hub is not where its name says.
const DOCKER_HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");

/// Longest answer of a token server.
const TOKEN_MAX: usize = 256 << 10;

/// How hull is called where names of clients are asked for.
const CLIENT_ID: &str = "hull";

/// A registry, for one repository.
pub(super) struct Endpoint<'a> {
    registry: &'a Registry<'a>,
    pub(super) place: Place,
    client: OnceCell<Client>,
    base: OnceCell<Url>,
    known: OnceCell<Known>,
    authorization: RefCell<Option<HeaderValue>>,
}

/// What we can say of ourselves.
enum Known {
    Key(Key),
    Nothing,
    /// Whatever it is, somebody else could listen.
    Unsafe,
}

/// A short answer, whole.
pub(super) struct Answer {
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl<'a> Endpoint<'a> {
    pub(super) fn new(registry: &'a Registry<'a>, place: Place) -> Self {
        let authorization = RefCell::default();
        let (client, base, known) = (OnceCell::new(), OnceCell::new(), OnceCell::new());
        Self { registry, place, client, base, known, authorization }
    }

    /// `manifests/latest` of the repository, as an address.
    async fn url(&self, path: &str) -> Result<Url, Failure> {
        let base = self.base().await?;
        let url = format!("{base}v2/{}/{path}", self.place.name.repository());
        Url::parse(&url).map_err(|e| {
            let text = format!("ask {}: {} is no address", self.host(), shown(url.as_bytes()));
            Failure::Lasting(Error::because(Kind::Network, text, e))
        })
    }

    pub(super) fn host(&self) -> &str {
        self.place.name.host()
    }

    fn client(&self) -> Result<&Client, Error> {
        if self.client.get().is_none() {
            let client = self.registry.client_for(self.host(), self.place.insecure)?;
            let _ = self.client.set(client); // It was empty a line ago, and nobody else sees it.
        }
        Ok(self.client.get().expect("it was just set"))
    }

    /// `https://HOST/`; for an insecure registry that knows no TLS `http://HOST/`.
    async fn base(&self) -> Result<&Url, Failure> {
        if let Some(base) = self.base.get() {
            return Ok(base);
        }
        let host = if self.host() == DOCKER_HUB.0 { DOCKER_HUB.1 } else { self.host() };
        let parse = |scheme| {
            Url::parse(&format!("{scheme}://{host}/")).map_err(|e| {
                Failure::Lasting(Error::because(Kind::NotFound, format!("ask {host}: no address"), e))
            })
        };
        let mut base = parse("https")?;
        if self.place.insecure {
            let ping = self.client()?.head(format!("{base}v2/")).send();
            // Silence is no answer in TLS either.
            let answered = timeout(self.registry.patience.stall.min(PING_TIMEOUT), ping).await;
            if !matches!(answered, Ok(Ok(_))) {
                base = parse("http")?;
            }
        }
        Ok(self.base.get_or_init(|| base))
    }

    /// Asks, and says who we are if the registry wants to know. What it answers then comes back as it is.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<Response, Failure> {
        let url = self.url(path).await?;
        let what = format!("ask {} for {}", self.host(), shown(path.as_bytes()));
        for first in [true, false] {
            let mut request = self.client()?.request(method.clone(), url.clone()).headers(headers.clone());
            if let Some(authorization) = &*self.authorization.borrow() {
                request = request.header(AUTHORIZATION, authorization);
            }
            let response = send(request, &what).await?;
            // Whoever we were redirected to is not asked for tokens, nor told who we are.
            let ours = response.url().origin() == url.origin();
            if response.status() != StatusCode::UNAUTHORIZED || !ours || !first {
                return if response.status() == StatusCode::UNAUTHORIZED {
                    Err(self.refused())
                } else {
                    Ok(response)
                };
            }
            let challenges = response.headers().get_all(WWW_AUTHENTICATE);
            let challenge = Challenge::read(challenges.iter().filter_map(|header| header.to_str().ok()));
            drop(response);
            let authorization = self.authorize(challenge).await?;
            *self.authorization.borrow_mut() = Some(authorization);
        }
        Err(self.refused())
    }

    /// Asks for a short answer, as often as it makes sense.
    pub(super) async fn get(&self, path: &str, accept: &str, size_max: u64) -> Result<Answer, Error> {
        let registry = self.registry;
        persist(&registry.patience, registry.progress, async || {
            let what = format!("read {} of {}", shown(path.as_bytes()), self.place.name.without_tag());
            let response = self.ask(Method::GET, path, &headers(ACCEPT, accept)).await?;
            let response = plain(accepted(response, &what).await?, &what)?;
            let headers = response.headers().clone();
            let body = body(response, size_max, registry.patience.stall, &what).await?;
            Ok(Answer { headers, body })
        })
        .await
    }

    /// Asks for the headers alone.
    pub(super) async fn head(&self, path: &str, accept: &str) -> Result<HeaderMap, Error> {
        let registry = self.registry;
        persist(&registry.patience, registry.progress, async || {
            let what = format!("look for {} of {}", shown(path.as_bytes()), self.place.name.without_tag());
            let response = self.ask(Method::HEAD, path, &headers(ACCEPT, accept)).await?;
            Ok(accepted(response, &what).await?.headers().clone())
        })
        .await
    }

    /// What to send as `Authorization` to satisfy the registry.
    async fn authorize(&self, challenge: Option<Challenge>) -> Result<HeaderValue, Failure> {
        let Some(challenge) = challenge else { return Err(self.refused()) };
        let key = self.key().await?;
        match (challenge, key) {
            (_, Some(Key::RegistryToken(token))) => bearer(token.reveal()),
            (Challenge::Basic, Some(Key::Login(login))) => basic(&login.user, login.password.reveal()),
            (Challenge::Basic, _) => Err(self.refused()),
            (Challenge::Bearer { realm, service }, key) => self.token(&realm, service.as_deref(), key).await,
        }
    }

    /// The credentials, if they may travel this way.
    async fn key(&self) -> Result<Option<&Key>, Failure> {
        if self.known.get().is_none() {
            let known = if self.may_tell_secrets().await? {
                self.registry.keychain.key(&self.place.name)?.map_or(Known::Nothing, Known::Key)
            } else {
                Known::Unsafe
            };
            let _ = self.known.set(known); // Another request may have been faster, with the same.
        }
        Ok(match self.known.get() {
            Some(Known::Key(key)) => Some(key),
            _ => None,
        })
    }

    /// Whether nobody but the registry can read what we send, or the user accepts that.
    async fn may_tell_secrets(&self) -> Result<bool, Failure> {
        let insecure = &self.registry.insecure;
        Ok(match self.base().await?.scheme() {
            "https" => !self.place.insecure || insecure.tls || insecure.http,
            _ => insecure.http,
        })
    }

    /// Gets a token for pulling this repository, and nothing more than that.
    async fn token(
        &self,
        realm: &str,
        service: Option<&str>,
        key: Option<&Key>,
    ) -> Result<HeaderValue, Failure> {
        let wrong = |why: &str| {
            let text =
                format!("log in to {}: its token server `{}` {why}", self.host(), shown(realm.as_bytes()));
            Failure::Lasting(Error::new(Kind::Unauthorized, text))
        };
        let mut url = Url::parse(realm).map_err(|_| wrong("is no address"))?;
        let secure =
            url.scheme() == "https" || url.scheme() == "http" && self.base().await?.scheme() == "http";
        if !secure || !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("has no address that we would send credentials to (it must be `https://…`)"));
        }
        let scope = format!("repository:{}:pull", self.place.name.repository());
        let what = format!("log in to {} at {}", self.host(), url.host_str().unwrap_or_default());
        let request = if let Some(Key::IdentityToken(token)) = key {
            let mut form = form_urlencoded::Serializer::new(String::new());
            form.append_pair("grant_type", "refresh_token").append_pair("client_id", CLIENT_ID);
            form.append_pair("service", service.unwrap_or_default()).append_pair("scope", &scope);
            form.append_pair("refresh_token", token.reveal());
            // A redirect could repeat the token to another host.
            let client = self.registry.client_without_redirects(self.host(), self.place.insecure)?;
            client.post(url).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(form.finish())
        } else {
            if let Some(service) = service {
                url.query_pairs_mut().append_pair("service", service);
            }
            url.query_pairs_mut().append_pair("scope", &scope).append_pair("client_id", CLIENT_ID);
            let request = self.client()?.get(url);
            match key {
                Some(Key::Login(login)) => {
                    request.header(AUTHORIZATION, basic(&login.user, login.password.reveal())?)
                }
                _ => request,
            }
        };
        let response = send(request, &what).await?;
        if matches!(
            response.status(),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST
        ) {
            return Err(self.refused());
        }
        let response = accepted(response, &what).await?;
        let answer = body(response, TOKEN_MAX as u64, self.registry.patience.stall, &what).await?;
        bearer(&token_of(&answer).map_err(wrong)?)
    }

    /// The registry wants somebody else.
    fn refused(&self) -> Failure {
        let host = self.host();
        let why = match self.known.get() {
            Some(Known::Key(_)) => {
                "the credentials for it are refused, or do not allow to read this repository".to_owned()
            }
            Some(Known::Nothing) => format!(
                "there is no such repository, or it wants credentials and there are none; use `docker login {host}`, \
                 or put them into `/etc/hull/auth.json`"
            ),
            Some(Known::Unsafe) => "it wants credentials, and none are sent where others can listen; \
                                    `--insecure-options=http` would do that"
                .to_owned(),
            None => "it wants credentials, and does not say how".to_owned(),
        };
        let text = format!("read {} of {host}: {why}", self.place.name.repository());
        Failure::Lasting(Error::new(Kind::Unauthorized, text))
    }
}

/// How long an insecure registry may think about a TLS handshake.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// One header, and those that all requests have.
pub(super) fn headers(name: HeaderName, value: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    // Ranges and digests are of the bytes themselves.
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
    headers
}

async fn send(request: RequestBuilder, what: &str) -> Result<Response, Failure> {
    request.send().await.map_err(|e| Failure::of(e, what))
}

/// Refuses an answer in another encoding than we accept: the digest is of the bytes behind it.
pub(super) fn plain(response: Response, what: &str) -> Result<Response, Failure> {
    let encoding = response.headers().get(CONTENT_ENCODING);
    match encoding.filter(|encoding| encoding.as_bytes() != b"identity") {
        None => Ok(response),
        Some(encoding) => {
            let encoding = shown(encoding.as_bytes());
            let text =
                format!("{what}: the server encodes the content (`{encoding}`), which was not accepted");
            Err(Failure::Lasting(Error::new(Kind::Network, text)))
        }
    }
}

/// The whole of a short answer.
async fn body(
    mut response: Response,
    size_max: u64,
    stall: Duration,
    what: &str,
) -> Result<Vec<u8>, Failure> {
    let too_long = |size: u64| {
        let text = format!("{what}: the answer has {size} bytes or more, at most {size_max} are accepted");
        Failure::Lasting(Error::new(Kind::TooLarge, text))
    };
    if let Some(size) = response.content_length().filter(|size| *size > size_max) {
        return Err(too_long(size));
    }
    let read = async {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| Failure::of(e, what))? {
            body.extend_from_slice(&chunk);
            if body.len() as u64 > size_max {
                return Err(too_long(body.len() as u64));
            }
        }
        Ok(body)
    };
    timeout(stall, read).await.map_err(|_| {
        let text = format!("{what}: the answer is not there after {} s", stall.as_secs_f32());
        Failure::Passing(Error::new(Kind::Network, text), None)
    })?
}

/// The token in an answer; the parser's text could quote it.
fn token_of(answer: &[u8]) -> Result<String, &'static str> {
    let answer: Token = serde_json::from_slice(answer).map_err(|_| "answers no JSON with a token")?;
    answer.token.or(answer.access_token).filter(|token| !token.is_empty()).ok_or("gives no token")
}

/// A way in for the fuzzer.
pub(super) fn fuzz(bytes: &[u8]) {
    if let Ok(token) = token_of(bytes)
        && let Ok(header) = bearer(&token)
    {
        assert!(header.is_sensitive(), "no log shows it");
    }
}

fn basic(user: &str, password: &str) -> Result<HeaderValue, Failure> {
    secret(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
}

fn bearer(token: &str) -> Result<HeaderValue, Failure> {
    // RFC 6750 section 2.1 allows no others.
    if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
        let text = "log in: the token has characters that no token has";
        return Err(Failure::Lasting(Error::new(Kind::Unauthorized, text)));
    }
    secret(format!("Bearer {token}"))
}

fn secret(text: String) -> Result<HeaderValue, Failure> {
    let mut value = HeaderValue::try_from(text).map_err(|_| {
        Failure::Lasting(Error::new(Kind::Unauthorized, "log in: the credentials do not fit into a header"))
    })?;
    value.set_sensitive(true);
    Ok(value)
}

//! Which failures of a network pass, and how long to wait before asking again.

use std::error::Error as StdError;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::time::{Duration, SystemTime};

use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Response, StatusCode};
use rustls::AlertDescription;

use crate::error::shown;
use crate::{Error, Kind, Progress};

/// Most bytes read of what a server says of its refusal.
const REFUSAL_MAX: usize = 4 << 10;

/// How long we go on when a server does not answer as it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Patience {
    /// Most tries that bring nothing, one after the other.
    pub(crate) tries: u32,
    /// Before the second try; twice as long before each later one.
    pub(crate) first_wait: Duration,
    pub(crate) wait_max: Duration,
    /// The longest that a server may ask us to wait (`Retry-After`).
    pub(crate) asked_wait_max: Duration,
    /// A connection is given up if it has brought fewer than [`Patience::stall_bytes`] in this time.
    pub(crate) stall: Duration,
    pub(crate) stall_bytes: u64,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            tries: 5,
            first_wait: Duration::from_millis(400),
            wait_max: Duration::from_secs(20),
            asked_wait_max: Duration::from_secs(120),
            stall: Duration::from_secs(30),
            stall_bytes: 16 << 10,
        }
    }
}

impl Patience {
    /// How long to wait after so many tries; `None` if there were enough, or the server asks for too much.
    fn wait(&self, tries: u32, asked: Option<Duration>) -> Option<Duration> {
        if tries >= self.tries || asked.is_some_and(|asked| asked > self.asked_wait_max) {
            return None;
        }
        let doubled = 1_u32.checked_shl(tries.saturating_sub(1)).unwrap_or(u32::MAX);
        let wait = self.first_wait.saturating_mul(doubled).min(self.wait_max);
        // Between half and all of it, so that many who failed together do not come back together.
        let random = RandomState::new().hash_one(tries) % 512;
        let wait = wait * (512 + u32::try_from(random).expect("a remainder of 512 fits")) / 1024;
        Some(asked.map_or(wait, |asked| asked.max(wait)))
    }
}

/// What came of one try.
#[derive(Debug)]
pub(crate) enum Failure {
    /// May be gone a moment later; the server may have said when.
    Passing(Error, Option<Duration>),
    Lasting(Error),
}

impl Failure {
    /// What `reqwest` could not do. `what` begins with a verb: `fetch https://…`.
    pub(crate) fn of(error: reqwest::Error, what: &str) -> Self {
        let hint = tls_hint(&error);
        let unknown = is_unknown_name(&error);
        let refused = error.is_builder() || error.is_redirect() || hint.is_some() || unknown;
        let is_tls = error.url().is_some_and(|url| url.scheme() == "https");
        let hint = hint.or_else(|| hung_up_hint(&error).filter(|_| is_tls)).unwrap_or_default();
        // The URL may hold a secret (a signed address we were redirected to) and is named anyway.
        let error = Error::because(Kind::Network, format!("{what}{hint}"), error.without_url());
        if refused { Failure::Lasting(error) } else { Failure::Passing(error, None) }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Lasting(error)
    }
}

/// With which servers refuse clients (RFC 8446 section 6.2); those in Go say the first for one that has none.
const OF_CERTIFICATES: [AlertDescription; 5] = [
    AlertDescription::BadCertificate,
    AlertDescription::CertificateRequired,
    AlertDescription::CertificateUnknown,
    AlertDescription::CertificateExpired,
    AlertDescription::UnknownCA,
];

/// What to do about a server whose TLS will not get better by asking again; `None` for all other trouble.
fn tls_hint(error: &(dyn StdError + 'static)) -> Option<&'static str> {
    match error.downcast_ref::<rustls::Error>() {
        Some(rustls::Error::InvalidCertificate(_)) => {
            return Some(
                " (its certificate is not trusted: add its CA to the system's, or for a registry put it into \
                 `certs.d/HOST/ca.crt` of hull's settings)",
            );
        }
        Some(rustls::Error::AlertReceived(alert)) if OF_CERTIFICATES.contains(alert) => {
            return Some(
                " (it wants a certificate of ours that it knows: put `client.cert` and `client.key` into \
                 `certs.d/HOST` of hull's settings)",
            );
        }
        Some(rustls::Error::InvalidMessage(_)) => {
            return Some(
                " (it does not speak TLS: for a registry without, set `insecure = true` in `registries.conf` of \
                 hull's settings)",
            );
        }
        _ => (),
    }
    // An I/O error names what is inside its own inside as its source.
    let inside = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    inside.and_then(|inside| tls_hint(inside)).or_else(|| error.source().and_then(tls_hint))
}

/// A server that refuses us says so by an alert, which is lost where its end of the connection reaches us first: it may
/// be that. It may as well be a passing trouble.
fn hung_up_hint(error: &(dyn StdError + 'static)) -> Option<&'static str> {
    const HUNG_UP: [io::ErrorKind; 4] = [
        io::ErrorKind::ConnectionReset,
        io::ErrorKind::ConnectionAborted,
        io::ErrorKind::BrokenPipe,
        io::ErrorKind::UnexpectedEof,
    ];
    if error.downcast_ref::<io::Error>().is_some_and(|error| HUNG_UP.contains(&error.kind())) {
        return Some(
            " (it hung up without a word: if it wants a certificate of ours, put `client.cert` and `client.key` into \
             `certs.d/HOST` of hull's settings)",
        );
    }
    error.source().and_then(hung_up_hint)
}

/// What getaddrinfo(3) says of names that are none, as glibc words it (`EAI_NONAME`, `EAI_NODATA`); the standard
/// library keeps the words only. All else, a server of names that does not answer say, may pass.
const UNKNOWN_NAME: [&str; 2] = ["Name or service not known", "No address associated with hostname"];

/// Whether there is no such host.
fn is_unknown_name(error: &(dyn StdError + 'static)) -> bool {
    let of_resolver = error.downcast_ref::<io::Error>().is_some_and(|error| {
        let text = error.to_string();
        UNKNOWN_NAME.iter().any(|unknown| text.ends_with(unknown))
    });
    of_resolver || error.source().is_some_and(is_unknown_name)
}

/// Asks until it works, or nothing more is to be expected.
///
/// # Errors
/// What the last try said.
pub(crate) async fn persist<T>(
    patience: &Patience,
    progress: &dyn Progress,
    mut ask: impl AsyncFnMut() -> Result<T, Failure>,
) -> Result<T, Error> {
    let mut tries = Tries::default();
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(failure) => tries.failed(failure, patience, progress).await?,
        }
    }
}

/// Counts the tries that failed.
#[derive(Debug, Default)]
pub(crate) struct Tries(u32);

impl Tries {
    /// Waits before the next try.
    ///
    /// # Errors
    /// The failure, if it lasts or there were enough tries.
    pub(crate) async fn failed(
        &mut self,
        failure: Failure,
        patience: &Patience,
        progress: &dyn Progress,
    ) -> Result<(), Error> {
        self.0 = self.0.saturating_add(1);
        let (error, asked) = match failure {
            Failure::Passing(error, asked) => (error, asked),
            Failure::Lasting(error) => return Err(error),
        };
        let Some(wait) = patience.wait(self.0, asked) else {
            let text = match asked {
                Some(asked) if asked > patience.asked_wait_max => {
                    format!("give up: the server asks to wait for {} seconds", asked.as_secs())
                }
                _ => format!("give up after {} tries", self.0),
            };
            return Err(Error::because(*error.kind(), text, error));
        };
        let (text, wait_seconds) = (hull_errors::chain(&error), wait.as_secs_f32());
        progress.note(&format!("{text}; trying again in {wait_seconds:.1} s"));
        tokio::time::sleep(wait).await;
        Ok(())
    }

    /// Something was won: earlier failures are forgotten.
    pub(crate) fn forget(&mut self) {
        self.0 = 0;
    }
}

/// Passes answers on that are what we asked for (2xx); the others become words.
pub(crate) async fn accepted(response: Response, what: &str) -> Result<Response, Failure> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let asked = retry_after(response.headers());
    let said = refusal(response).await;
    let kind = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Kind::Unauthorized,
        StatusCode::NOT_FOUND | StatusCode::GONE => Kind::NotFound,
        _ => Kind::Network,
    };
    let separator = if said.is_empty() { "" } else { ": " };
    let error = Error::new(kind, format!("{what}: the server answers {status}{separator}{said}"));
    let lasting = [StatusCode::NOT_IMPLEMENTED, StatusCode::HTTP_VERSION_NOT_SUPPORTED];
    let passing = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];
    if passing.contains(&status) || status.is_server_error() && !lasting.contains(&status) {
        return Err(Failure::Passing(error, asked));
    }
    Err(Failure::Lasting(error))
}

/// The first words of what a server says, safe to print. Registries say it in JSON (distribution-spec v1.1,
/// "Error Codes").
async fn refusal(mut response: Response) -> String {
    let mut body = Vec::new();
    while body.len() < REFUSAL_MAX {
        // A server that does not finish its sentence has said nothing.
        match tokio::time::timeout(Duration::from_secs(5), response.chunk()).await {
            Ok(Ok(Some(chunk))) => body.extend_from_slice(&chunk[..chunk.len().min(REFUSAL_MAX)]),
            _ => break,
        }
    }
    let json: Option<serde_json::Value> = serde_json::from_slice(&body).ok();
    let first = json.as_ref().map(|json| &json["errors"][0]);
    let message = first.and_then(|first| first["message"].as_str().or(first["code"].as_str()));
    message.map_or_else(String::new, |message| shown(message.as_bytes()))
}

/// `Retry-After`: seconds, or a date (RFC 9110 section 10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

/// A way in for the fuzzer.
pub(super) fn fuzz(headers: &HeaderMap) {
    let _ = retry_after(headers); // Refusing is right; panicking is not.
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_end() {
        let patience = Patience { tries: 9, ..Patience::default() };
        for tries in 1..9 {
            let most = (patience.first_wait * (1 << (tries - 1))).min(patience.wait_max);
            let wait = patience.wait(tries, None).unwrap();
            assert!(wait >= most / 2 && wait <= most, "{tries}: {wait:?}");
        }
        assert_eq!(patience.wait(9, None), None);
        assert_eq!(patience.wait(1, Some(Duration::from_secs(60))), Some(Duration::from_secs(60)));
        assert_eq!(patience.wait(1, Some(Duration::from_secs(121))), None);
    }

    #[test]
    fn a_server_that_hangs_up_may_want_a_certificate() {
        for kind in [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe, io::ErrorKind::UnexpectedEof]
        {
            assert!(hung_up_hint(&io::Error::from(kind)).is_some_and(|hint| hint.contains("client.cert")));
            let outside = Error::because(Kind::Network, "ask it", io::Error::from(kind));
            assert!(hung_up_hint(&outside).is_some(), "{kind}");
        }
        assert!(hung_up_hint(&io::Error::from(io::ErrorKind::ConnectionRefused)).is_none());
        assert!(hung_up_hint(&io::Error::from(io::ErrorKind::TimedOut)).is_none());
    }

    #[test]
    fn a_date_to_wait_for_is_understood() {
        let headers = |text: &str| HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]);
        assert_eq!(retry_after(&headers("7")), Some(Duration::from_secs(7)));
        assert_eq!(retry_after(&headers("Sun, 06 Nov 1994 08:49:37 GMT")), Some(Duration::ZERO));
        let soon = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(60));
        assert!(retry_after(&headers(&soon)).is_some_and(|wait| wait.as_secs().abs_diff(60) < 5));
        assert_eq!(retry_after(&headers("soon")), None);
        assert_eq!(retry_after(&headers("99999999999999999999999")), None);
    }
}

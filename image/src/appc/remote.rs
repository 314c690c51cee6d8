//! What the network last said: which image a URL held, and what need not be asked again.
//!
//! `remote/HASH.json`, one file a URL, and one for each name that led to an image which others lie on: such an image
//! is a blob of the store, not one of its images. Records only save transfers; one that cannot be used is as good
//! as none.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use reqwest::header::{AGE, CACHE_CONTROL, ETAG, HeaderMap, LAST_MODIFIED};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::blobs::cannot_write;
use crate::digest::{Algorithm, Digest};
use crate::store::Store;
use crate::{Error, Name, record};

/// Raised whenever the record changes.
const FORMAT: u32 = 1;

/// Longest validator that is kept.
const VALIDATOR_MAX: usize = 1 << 10;

/// Nobody is believed to know for longer that an image stays.
const MAX_AGE_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// What a URL or a name led to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Remote {
    format: u32,
    key: String,
    /// Of the uncompressed archive: the image's id.
    pub(super) blob: Digest,
    /// Whether the image was signed when it was fetched, by a key that was trusted then.
    pub(super) was_verified: bool,
    pub(super) state: State,
}

/// What a server said of an answer's state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) etag: Option<String>,
    pub(super) last_modified: Option<String>,
    fresh_until: Option<SystemTime>,
}

impl State {
    /// Of an answer that came at `now`.
    pub(super) fn of(headers: &HeaderMap, now: SystemTime) -> Self {
        let text = |name| {
            let text = headers.get(name)?.to_str().ok()?;
            (text.len() <= VALIDATOR_MAX).then(|| text.to_owned())
        };
        let age = headers.get(AGE).and_then(|age| age.to_str().ok()?.trim().parse().ok()).unwrap_or(0);
        let fresh_for = max_age(headers).and_then(|max| max.checked_sub(Duration::from_secs(age)));
        let fresh_until = fresh_for.filter(|time| !time.is_zero()).and_then(|time| now.checked_add(time));
        Self { etag: text(ETAG), last_modified: text(LAST_MODIFIED), fresh_until }
    }

    /// Of a 304: what it does not say again stays as it was (RFC 9111 section 4.3.4).
    pub(super) fn renewed(&self, headers: &HeaderMap, now: SystemTime) -> Self {
        let new = Self::of(headers, now);
        Self {
            etag: new.etag.or_else(|| self.etag.clone()),
            last_modified: new.last_modified.or_else(|| self.last_modified.clone()),
            fresh_until: new.fresh_until,
        }
    }

    /// A clock that was set back must not keep an image for ever.
    fn is_fresh(&self, now: SystemTime) -> bool {
        let left = self.fresh_until.and_then(|until| until.duration_since(now).ok());
        left.is_some_and(|left| !left.is_zero() && left <= MAX_AGE_MAX)
    }
}

/// `Cache-Control: max-age=SECONDS` (RFC 9111 section 5.2.2); `None` if the answer is not to be kept.
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let mut seconds = None;
    for value in headers.get_all(CACHE_CONTROL) {
        for directive in value.to_str().ok()?.split(',') {
            let directive = directive.trim().to_ascii_lowercase();
            match directive.split_once('=') {
                Some(("max-age", value)) => seconds = value.trim_matches('"').parse().ok(),
                _ if matches!(&*directive, "no-cache" | "no-store") => return None,
                _ => (),
            }
        }
    }
    seconds.map(|seconds| Duration::from_secs(seconds).min(MAX_AGE_MAX))
}

impl Remote {
    pub(super) fn of_url(url: &Url, blob: Digest, was_verified: bool, state: State) -> Self {
        Self { format: FORMAT, key: url.to_string(), blob, was_verified, state }
    }

    pub(super) fn of_name(name: &Name, blob: Digest, was_verified: bool) -> Self {
        Self { format: FORMAT, key: key_of(name), blob, was_verified, state: State::default() }
    }

    pub(super) fn is_fresh(&self, now: SystemTime) -> bool {
        self.state.is_fresh(now)
    }
}

fn key_of(name: &Name) -> String {
    format!("appc:{name}")
}

/// What is known of a URL.
pub(super) fn of_url(store: &Store, url: &Url) -> Option<Remote> {
    get(store, url.as_str())
}

/// What a name last led to.
pub(super) fn of_name(store: &Store, name: &Name) -> Option<Remote> {
    get(store, &key_of(name))
}

fn get(store: &Store, key: &str) -> Option<Remote> {
    let remote: Remote = record::read(&path(store, key)).ok()??;
    (remote.format == FORMAT && remote.key == key).then_some(remote)
}

pub(super) fn put(store: &Store, remote: &Remote) -> Result<(), Error> {
    let written = record::write(remote, store.temporary(), &path(store, &remote.key));
    written.map_err(|e| cannot_write(store.folder(), &format!("what {} led to", remote.key), e))
}

fn path(store: &Store, key: &str) -> PathBuf {
    let hash = Digest::of(Algorithm::Sha256, key.as_bytes());
    store.folder().join("remote").join(format!("{}.json", hash.hex()))
}

/// A way in for the fuzzer.
pub(super) fn fuzz(headers: &HeaderMap) {
    let state = State::of(headers, SystemTime::UNIX_EPOCH);
    let renewed = state.renewed(&HeaderMap::new(), SystemTime::UNIX_EPOCH);
    assert!(!renewed.is_fresh(SystemTime::UNIX_EPOCH), "nobody said it again");
    let late = SystemTime::UNIX_EPOCH + MAX_AGE_MAX;
    assert!(!state.is_fresh(late), "nothing is fresh for ever");
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use reqwest::header::HeaderValue;

    use super::*;

    fn state(lines: &[(&'static str, &str)]) -> State {
        let headers = lines.iter().map(|(name, value)| {
            (reqwest::header::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        });
        State::of(&headers.collect(), UNIX_EPOCH)
    }

    #[test]
    fn answers_are_fresh_for_as_long_as_they_say() {
        let seconds = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        for (lines, fresh_seconds) in [
            (&[("cache-control", "max-age=60")][..], 60),
            (&[("cache-control", "public, Max-Age=\"60\"")], 60),
            (&[("cache-control", "max-age=60"), ("age", "20")], 40),
            (&[("cache-control", "max-age=60"), ("age", "90")], 0),
            (&[("cache-control", "max-age=60, no-cache")], 0),
            (&[("cache-control", "max-age=60"), ("cache-control", "no-store")], 0),
            (&[("cache-control", "max-age=-1")], 0),
            (&[("cache-control", "max-age=99999999999999999999")], 0),
            (&[("etag", "\"x\"")], 0),
        ] {
            // Several lines of one name are one list.
            let state = if lines.len() == 2 && lines[0].0 == lines[1].0 {
                let headers = lines.iter().map(|(_, v)| (CACHE_CONTROL, HeaderValue::from_str(v).unwrap()));
                let mut map = HeaderMap::new();
                headers.for_each(|(name, value)| assert!(map.append(name, value) || map.len() == 1));
                State::of(&map, UNIX_EPOCH)
            } else {
                state(lines)
            };
            assert_eq!(state.is_fresh(UNIX_EPOCH), fresh_seconds > 0, "{lines:?}");
            if fresh_seconds > 0 {
                assert!(state.is_fresh(seconds(fresh_seconds - 1)), "{lines:?}");
            }
            assert!(!state.is_fresh(seconds(fresh_seconds)), "{lines:?}");
        }
    }

    #[test]
    fn a_304_keeps_what_it_does_not_say() {
        let old = state(&[("etag", "\"x\""), ("cache-control", "max-age=60")]);
        let new = old.renewed(&HeaderMap::new(), UNIX_EPOCH);
        assert_eq!(new.etag.as_deref(), Some("\"x\""));
        assert!(!new.is_fresh(UNIX_EPOCH));
    }
}

//! Bytes over HTTP: clients, downloads that go on where they were cut, retries.

pub(crate) mod client;
pub(crate) mod partial;
pub(crate) mod retry;
#[cfg(test)]
pub(crate) mod testing;

/// A way in for the fuzzer: the headers of an answer, each behind its name and a colon.
pub(crate) fn fuzz(headers: &reqwest::header::HeaderMap) {
    partial::fuzz(headers);
    retry::fuzz(headers);
}

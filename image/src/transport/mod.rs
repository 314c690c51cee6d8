//! Bytes over HTTP: clients, downloads that go on where they were cut, retries.

pub(crate) mod client;
#[allow(dead_code, reason = "the downloads of layers and of archives come next")]
pub(crate) mod partial;
#[allow(dead_code, reason = "likewise")]
pub(crate) mod retry;
#[cfg(test)]
#[allow(dead_code, reason = "likewise")]
pub(crate) mod testing;

//! Bytes over HTTP: clients, downloads that go on where they were cut, retries.

pub(crate) mod client;
pub(crate) mod partial;
pub(crate) mod retry;
#[cfg(test)]
pub(crate) mod testing;

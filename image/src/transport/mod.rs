//! Bytes over HTTP: clients, downloads that go on where they were cut, retries.

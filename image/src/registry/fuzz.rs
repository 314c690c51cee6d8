//! Ways into this folder for the fuzzer.

use reqwest::header::{HeaderMap, HeaderValue, LINK};

use super::challenge::Challenge;
use super::{endpoint, session};

/// What a token server answers.
pub(crate) fn token(bytes: &[u8]) {
    endpoint::fuzz(bytes);
}

/// `WWW-Authenticate` and `Link`, a line each.
pub(crate) fn headers(bytes: &[u8]) {
    let lines = bytes.split(|b| *b == b'\n').filter_map(|line| HeaderValue::from_bytes(line).ok());
    let lines: Vec<_> = lines.collect();
    let _ = Challenge::read(lines.iter().filter_map(|line| line.to_str().ok())); // Refusing is right.
    for line in lines {
        session::fuzz(&HeaderMap::from_iter([(LINK, line)]));
    }
}

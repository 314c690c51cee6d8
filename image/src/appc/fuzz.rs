//! Ways in for the fuzzer.

use reqwest::header::HeaderMap;

use super::page::{Page, variables};
use super::remote::Remote;
use super::{Distribution, Name};
use crate::record;

pub(crate) fn name(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(name) = Name::parse(text) {
        assert_eq!(Name::parse(&name.to_string()).ok(), Some(name), "a name prints as itself");
    }
    let _ = Distribution::parse(text); // Refusing is right; panicking is not.
}

/// The first line is the name that is looked for.
pub(crate) fn page(bytes: &[u8]) {
    let end = bytes.iter().position(|b| *b == b'\n').unwrap_or(0);
    let (name, html) = bytes.split_at(end);
    let name = std::str::from_utf8(name).ok().and_then(|text| Name::parse(text).ok());
    let name = name.unwrap_or_else(|| Name::parse("example.com/app").expect("it is a name"));
    let page = Page::read(html, name.name(), &variables(&name));
    let addresses = page.endpoints.iter().flat_map(|e| [&e.aci, &e.signature]).chain(&page.keys);
    assert!(
        addresses.into_iter().all(|url| matches!(url.scheme(), "http" | "https")),
        "only the web is asked"
    );
}

/// What a server says of an answer's state.
pub(crate) fn state(headers: &HeaderMap) {
    super::remote::fuzz(headers);
}

/// What the store remembers of a URL.
pub(crate) fn remote(bytes: &[u8]) {
    let _ = record::parse::<Remote>(bytes); // Refusing is right; panicking is not.
}

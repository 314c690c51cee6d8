//! What a page of HTML says about images: `<meta name="ac-discovery" content="PREFIX TEMPLATE">`.

use html5gum::{DefaultEmitter, Token, Tokenizer};
use url::Url;

use super::Name;

/// Longest page that is read, in bytes.
pub(crate) const PAGE_MAX: u64 = 1 << 20;

/// Most tags that are looked at.
const TAGS_MAX: usize = 10_000;

/// Most that is taken from one page.
const FOUND_MAX: usize = 64;

/// Longest template.
const TEMPLATE_MAX: usize = 2048;

/// Where an image and its signature are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) aci: Url,
    pub(crate) signature: Url,
}

/// What a page says of one name, in the page's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) keys: Vec<Url>,
}

impl Page {
    /// Reads a page for what it says of `name`, whose template variables are `variables`.
    pub(crate) fn read(html: &[u8], name: &str, variables: &[(String, String)]) -> Page {
        let mut page = Page::default();
        for meta in metas(html).into_iter().filter(|meta| is_prefix(&meta.prefix, name)).take(FOUND_MAX) {
            match meta.kind {
                Meta::Discovery => page.endpoints.extend(endpoint(&meta.rest, name, variables)),
                Meta::Keys => page.keys.extend(web_address(&meta.rest)),
            }
        }
        page
    }
}

/// Whether `prefix` is `name`, or some first components of it.
fn is_prefix(prefix: &str, name: &str) -> bool {
    let rest = name.strip_prefix(prefix.strip_suffix('/').unwrap_or(prefix));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meta {
    Discovery,
    Keys,
}

struct Found {
    kind: Meta,
    prefix: String,
    rest: String,
}

fn metas(html: &[u8]) -> Vec<Found> {
    // Scripts and titles hold text, not tags.
    let mut emitter = DefaultEmitter::default();
    emitter.naively_switch_states(true);
    let start = |token| match token {
        Ok(Token::StartTag(tag)) => Some(tag),
        _ => None,
    };
    // Only what is read from a file or a socket can fail.
    let tags = Tokenizer::new_with_emitter(html, emitter).filter_map(start).take(TAGS_MAX);
    let mut metas = Vec::new();
    for tag in tags.filter(|tag| **tag.name == *b"meta") {
        let attribute = |name: &[u8]| {
            let value = tag.attributes.iter().find(|(key, _)| ***key == *name)?.1;
            std::str::from_utf8(value).ok()
        };
        let kind = match attribute(b"name") {
            Some("ac-discovery") => Meta::Discovery,
            Some("ac-discovery-pubkeys") => Meta::Keys,
            _ => continue,
        };
        let Some((prefix, rest)) =
            attribute(b"content").and_then(|c| c.trim().split_once(char::is_whitespace))
        else {
            continue;
        };
        if rest.len() <= TEMPLATE_MAX {
            metas.push(Found { kind, prefix: prefix.to_owned(), rest: rest.trim().to_owned() });
        }
    }
    metas
}

/// `None` if a variable stays unresolved, or no address comes out that can be asked.
fn endpoint(template: &str, name: &str, variables: &[(String, String)]) -> Option<Endpoint> {
    let url = |extension| web_address(&render(template, name, variables, extension)?);
    Some(Endpoint { aci: url("aci")?, signature: url("aci.asc")? })
}

/// One pass: what a variable brings is text, whatever it looks like.
fn render(template: &str, name: &str, variables: &[(String, String)], extension: &str) -> Option<String> {
    let mut rendered = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let (variable, after) = after.split_once('}')?;
        let value = match variable {
            "name" => name,
            "ext" => extension,
            other => variables.iter().find(|(name, _)| name == other)?.1.as_str(),
        };
        rendered.push_str(before);
        rendered.push_str(value);
        if rendered.len() > 2 * TEMPLATE_MAX {
            return None;
        }
        rest = after;
    }
    rendered.push_str(rest);
    Some(rendered)
}

fn web_address(text: &str) -> Option<Url> {
    Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.host_str().is_some())
}

/// The variables of templates for a name: its labels, the host's `os` and `arch`, and a version.
pub(crate) fn variables(name: &Name) -> Vec<(String, String)> {
    let mut variables = name.wanted();
    if name.version().is_none_or(str::is_empty) {
        variables.retain(|(name, _)| name != "version");
        variables.push(("version".into(), "latest".into()));
    }
    variables
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::*;

    fn read(html: &str, name: &str) -> Page {
        let name = Name::parse(name).unwrap();
        Page::read(html.as_bytes(), name.name(), &variables(&name))
    }

    #[track_caller]
    fn check(html: &str, name: &str, acis: &[&str], keys: &[&str]) {
        let page = read(html, name);
        let got: Vec<_> = page.endpoints.iter().map(|e| e.aci.as_str()).collect();
        assert_eq!(got, acis);
        assert_eq!(page.keys.iter().map(Url::as_str).collect::<Vec<_>>(), keys);
    }

    const PAGE: &str = r#"<!DOCTYPE html><html><head><title>My app</title>
        <meta name="ac-discovery" content="example.com https://a.example.com/{name}-{version}-{os}-{arch}.{ext}">
        <META content='example.com https://b.example.com/{name}-{version}.{ext}' NAME=ac-discovery />
        <meta name="ac-discovery" content="example.com hdfs://storage/{name}.{ext}">
        <meta name="ac-discovery" content="example.com https://c.example.com/{channel}/{name}.{ext}">
        <meta name="ac-discovery" content="example.org https://other/{name}.{ext}">
        <meta name="ac-discovery-pubkeys" content="example.com   https://example.com/pubkeys.gpg ">
        <meta name="viewport" content="example.com https://no/">
        </head><body>"#;

    #[test]
    fn every_endpoint_is_found_in_order() {
        check(
            PAGE,
            "example.com/app:1.0",
            &[
                "https://a.example.com/example.com/app-1.0-linux-amd64.aci",
                "https://b.example.com/example.com/app-1.0.aci",
            ],
            &["https://example.com/pubkeys.gpg"],
        );
        let page = read(PAGE, "example.com/app,channel=beta");
        assert_eq!(page.endpoints.len(), 3);
        let last = &page.endpoints[2];
        assert_eq!(last.aci.as_str(), "https://c.example.com/beta/example.com/app.aci");
        assert_eq!(last.signature.as_str(), "https://c.example.com/beta/example.com/app.aci.asc");
    }

    #[test]
    fn without_a_version_it_is_the_latest() {
        check(
            r#"<meta name=ac-discovery content="example.com https://x/{version}.{ext}">"#,
            "example.com/a",
            &["https://x/latest.aci"],
            &[],
        );
    }

    #[test]
    fn prefixes_end_where_components_do() {
        for (prefix, fits) in [
            ("example.com", true),
            ("example.com/", true),
            ("example.com/app", true),
            ("example.com/ap", false),
            ("example.co", false),
            ("example.com/app/x", false),
            ("example.com//", false),
        ] {
            let html = format!(r#"<meta name=ac-discovery content="{prefix} https://x/{{name}}.{{ext}}">"#);
            assert_eq!(read(&html, "example.com/app").endpoints.len() == 1, fits, "{prefix}");
        }
    }

    #[test]
    fn what_is_no_tag_says_nothing() {
        for html in [
            r#"<!-- <meta name=ac-discovery content="example.com https://x/{name}.{ext}"> -->"#,
            r#"<title><meta name=ac-discovery content="example.com https://x/{name}.{ext}"></title>"#,
            r#"<script>"<meta name=ac-discovery content='example.com https://x/{name}.{ext}'>"</script>"#,
            r#"<meta name=ac-discovery content="example.com">"#,
            r#"<meta name=ac-discovery content="example.com https://x/{name}.{ext}"#,
            r#"<meta name=ac-discovery content="example.com https://x/{name.{ext}">"#,
            r#"<meta name=ac-discovery content="example.com file:///{name}.{ext}">"#,
        ] {
            check(html, "example.com/a", &[], &[]);
        }
        // Entities are what HTML says they are.
        check(
            r#"<meta name=ac-discovery content="example.com https://x/?a=1&amp;n={name}.{ext}">"#,
            "example.com/a",
            &["https://x/?a=1&n=example.com/a.aci"],
            &[],
        );
    }

    #[test]
    fn a_variable_brings_text_and_no_variable() {
        check(
            r#"<meta name=ac-discovery content="example.com https://x/{a}.{ext}">"#,
            "example.com/a,a={b},b=no",
            &["https://x/%7Bb%7D.aci"],
            &[],
        );
    }

    #[test]
    fn a_page_of_tags_costs_little() {
        let meta = r#"<meta name=ac-discovery content="example.com https://x/{name}.{ext}">"#;
        assert_eq!(read(&meta.repeat(1000), "example.com/a").endpoints.len(), FOUND_MAX);
        assert_eq!(read(&format!("{}{meta}", "<a>".repeat(TAGS_MAX)), "example.com/a").endpoints.len(), 0);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_page(html in any::<Vec<u8>>(), template in "[a-z{}:/. ]{0,40}") {
            let name = Name::parse("example.com/a").unwrap();
            let _ = Page::read(&html, name.name(), &variables(&name));
            let html = format!("<meta name=ac-discovery content=\"example.com https://{template}\">");
            let _ = Page::read(html.as_bytes(), name.name(), &variables(&name));
        }
    }
}

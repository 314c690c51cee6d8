//! `WWW-Authenticate`: how a registry wants to know who asks (RFC 9110 section 11.6.1; Docker's "Token Authentication
//! Specification").

use http_auth::{ChallengeRef, parser::ChallengeParser};

/// Longest header that is looked at.
const HEADER_MAX: usize = 8 << 10;

/// What a registry wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// A token of the server `realm`, for the service of that name.
    Bearer { realm: String, service: Option<String> },
    /// Name and password.
    Basic,
}

impl Challenge {
    /// The best of what the headers offer: a token is worth less to a thief than a password.
    pub(super) fn read<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut basic = None;
        for header in headers.filter(|header| header.len() <= HEADER_MAX) {
            for challenge in ChallengeParser::new(header).map_while(Result::ok) {
                if challenge.scheme.eq_ignore_ascii_case("basic") {
                    basic = Some(Challenge::Basic);
                }
                if challenge.scheme.eq_ignore_ascii_case("bearer")
                    && let Some(realm) = parameter(&challenge, "realm")
                {
                    return Some(Challenge::Bearer { realm, service: parameter(&challenge, "service") });
                }
            }
        }
        basic
    }
}

fn parameter(challenge: &ChallengeRef<'_>, name: &str) -> Option<String> {
    let (_, value) = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name))?;
    Some(value.to_unescaped())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn challenges_are_read_and_the_best_is_taken() {
        let bearer = |realm: &str, service: Option<&str>| {
            Some(Challenge::Bearer { realm: realm.into(), service: service.map(str::to_owned) })
        };
        let read = |headers: &[&str]| Challenge::read(headers.iter().copied());
        assert_eq!(
            read(&[
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#
            ]),
            bearer("https://auth.docker.io/token", Some("registry.docker.io"))
        );
        assert_eq!(read(&[r#"BEARER Realm="a\"b""#]), bearer("a\"b", None));
        assert_eq!(read(&[r#"Basic realm="x""#]), Some(Challenge::Basic));
        assert_eq!(read(&[r#"Basic realm="x""#, r#"Bearer realm="y""#]), bearer("y", None));
        assert_eq!(read(&[r#"Basic realm="x", Bearer realm="y", service=z"#]), bearer("y", Some("z")));
        for other in
            ["", "Negotiate", "Bearer", r#"Bearer service="x""#, "Bearer realm=", "\"", r#"Digest realm="x""#]
        {
            assert_eq!(read(&[other]), None, "{other}");
        }
        assert_eq!(read(&[&format!("Bearer realm=\"{}\"", "x".repeat(9000))]), None);
    }

    proptest! {
        #[test]
        fn anything_may_come(text in "\\PC{0,99}", more in "(Bearer|Basic|[a-z]{1,3}|[ ,=\"\\\\]){0,30}") {
            let _ = Challenge::read([text.as_str(), more.as_str()].into_iter());
        }
    }
}

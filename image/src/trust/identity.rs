//! Names in signatures, and whether they are the name that was asked for (containers-policy.json(5), `signedIdentity`).

use crate::registry::Name;

/// A name as a signature or a policy states it. Unlike a [`Name`] it gets no tag that nobody wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// `HOST/REPOSITORY`
    repository: String,
    tag: Option<String>,
    digest: Option<String>,
}

impl Identity {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let name = Name::parse(text).map_err(|e| e.to_string())?;
        let before = text.split('@').next().expect("split yields at least one part");
        let stated = before.rsplit('/').next().is_some_and(|last| last.contains(':'));
        Ok(Self { tag: name.tag().filter(|_| stated).map(str::to_owned), ..Self::of(&name) })
    }

    /// The digest counts more than the tag: who gives both asks for the digest.
    pub(super) fn of(name: &Name) -> Self {
        let digest = name.digest().map(ToString::to_string);
        let tag = name.tag().filter(|_| digest.is_none()).map(str::to_owned);
        Self { repository: name.without_tag(), tag, digest }
    }

    /// The text that scopes begin with: `HOST/REPOSITORY:TAG`, `HOST/REPOSITORY@DIGEST`.
    pub(super) fn text(&self) -> String {
        let tag = self.tag.iter().map(|tag| format!(":{tag}"));
        let digest = self.digest.iter().map(|digest| format!("@{digest}"));
        [self.repository.clone()].into_iter().chain(tag).chain(digest).collect()
    }

    pub(super) fn repository(&self) -> &str {
        &self.repository
    }

    fn is_repository(&self) -> bool {
        self.tag.is_none() && self.digest.is_none()
    }
}

/// What the name in a signature must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SignedIdentity {
    MatchExact,
    MatchRepoDigestOrExact,
    MatchRepository,
    ExactReference(Identity),
    ExactRepository(Identity),
    RemapIdentity {
        prefix: String,
        signed_prefix: String,
    },
    /// Ours: no name is asked for. The bundles that cosign 3 writes have none, only a digest.
    DigestOnly,
}

impl SignedIdentity {
    /// Whether `signed`, the name in a signature, will do for `wanted`.
    pub(super) fn check(&self, wanted: &Identity, signed: Option<&str>) -> Result<(), String> {
        if *self == SignedIdentity::DigestOnly {
            return Ok(());
        }
        let Some(text) = signed else {
            return Err("it says nothing of a name, as cosign's bundles do (if the digest is enough: \
                        `\"signedIdentity\": {\"type\": \"digestOnly\"}`; or sign with --new-bundle-format=false)"
                .into());
        };
        let signed = Identity::parse(text).map_err(|cause| format!("its name is none: {cause}"))?;
        if self.matches(wanted, &signed)? {
            return Ok(());
        }
        let shown = text.escape_debug();
        let hint = if signed.is_repository() && signed.repository == wanted.repository {
            " (cosign signs no tags: `\"signedIdentity\": {\"type\": \"matchRepository\"}` takes what is signed for \
             any tag of the repository)"
        } else {
            ""
        };
        Err(format!("it is for `{shown}`, not for `{}`{hint}", wanted.text()))
    }

    fn matches(&self, wanted: &Identity, signed: &Identity) -> Result<bool, String> {
        Ok(match self {
            SignedIdentity::MatchExact => !wanted.is_repository() && wanted == signed,
            SignedIdentity::MatchRepoDigestOrExact => repo_digest_or_exact(wanted, signed),
            SignedIdentity::MatchRepository => wanted.repository == signed.repository,
            SignedIdentity::ExactReference(exact) => exact == signed,
            SignedIdentity::ExactRepository(exact) => exact.repository == signed.repository,
            SignedIdentity::RemapIdentity { prefix, signed_prefix } => {
                repo_digest_or_exact(&remapped(wanted, prefix, signed_prefix)?, signed)
            }
            SignedIdentity::DigestOnly => true,
        })
    }
}

fn repo_digest_or_exact(wanted: &Identity, signed: &Identity) -> bool {
    if wanted.digest.is_some() { wanted.repository == signed.repository } else { wanted == signed }
}

fn remapped(wanted: &Identity, prefix: &str, signed_prefix: &str) -> Result<Identity, String> {
    let text = wanted.text();
    let rest = text.strip_prefix(prefix).filter(|rest| rest.is_empty() || rest.starts_with(['/', ':', '@']));
    // A host with a port is another host.
    let is_port = |rest: &str| rest.starts_with(':') && !prefix.contains('/');
    match rest.filter(|rest| !is_port(rest)) {
        Some(rest) => Identity::parse(&format!("{signed_prefix}{rest}")),
        None => Ok(wanted.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use SignedIdentity::{
        DigestOnly, ExactReference, ExactRepository, MatchExact, MatchRepoDigestOrExact, MatchRepository,
    };

    fn identity(text: &str) -> Identity {
        Identity::parse(text).unwrap()
    }

    #[track_caller]
    fn check(rule: &SignedIdentity, wanted: &str, signed: &str, want: bool) {
        let wanted = Identity::of(&Name::parse(wanted).unwrap());
        let got = rule.check(&wanted, Some(signed));
        assert_eq!(got.is_ok(), want, "{rule:?} {wanted:?} {signed}: {got:?}");
    }

    #[test]
    fn names_are_compared_as_the_manual_says() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let pinned = format!("h.io/a/b@{digest}");
        check(&MatchExact, "h.io/a/b:1", "h.io/a/b:1", true);
        check(&MatchExact, "h.io/a/b:1", "h.io/a/b", false);
        check(&MatchExact, "h.io/a/b", "h.io/a/b", false);
        check(&MatchExact, "h.io/a/b", "h.io/a/b:latest", true);
        check(&MatchExact, &pinned, "h.io/a/b:1", false);
        check(&MatchRepoDigestOrExact, "h.io/a/b:1", "h.io/a/b:1", true);
        check(&MatchRepoDigestOrExact, "h.io/a/b:1", "h.io/a/b:2", false);
        check(&MatchRepoDigestOrExact, "h.io/a/b:1", "h.io/a/b", false);
        check(&MatchRepoDigestOrExact, &pinned, "h.io/a/b:2", true);
        check(&MatchRepoDigestOrExact, &pinned, "h.io/a/c:2", false);
        check(&MatchRepoDigestOrExact, &format!("h.io/a/b:1@{digest}"), "h.io/a/b:2", true);
        check(&MatchRepository, "h.io/a/b:1", "h.io/a/b", true);
        check(&MatchRepository, "h.io/a/b:1", "h.io/a/bb", false);
        check(&MatchRepository, "h.io/a/b:1", "h.io:443/a/b", false);
        check(&MatchRepository, "busybox", "docker.io/library/busybox", true);
        check(&MatchRepository, "h.io/a/b:1", "", false);
        check(&MatchRepository, "h.io/a/b:1", "h.io/A/b", false);
        check(&ExactReference(identity("h.io/x:1")), "h.io/a/b:1", "h.io/x:1", true);
        check(&ExactReference(identity("h.io/x:1")), "h.io/a/b:1", "h.io/a/b:1", false);
        check(&ExactRepository(identity("h.io/x")), "h.io/a/b:1", "h.io/x:7", true);
        check(&ExactRepository(identity("h.io/x")), "h.io/a/b:1", "h.io/a/b:1", false);
        check(&DigestOnly, "h.io/a/b:1", "h.io/x", true);
    }

    #[test]
    fn mirrors_are_mapped_to_what_was_signed() {
        let remap = |prefix: &str, signed: &str| SignedIdentity::RemapIdentity {
            prefix: prefix.to_owned(),
            signed_prefix: signed.to_owned(),
        };
        check(&remap("mirror.io/a", "h.io/b"), "mirror.io/a/c:1", "h.io/b/c:1", true);
        check(&remap("mirror.io/a", "h.io/b"), "mirror.io/a/c:1", "mirror.io/a/c:1", false);
        check(&remap("mirror.io/a", "h.io/b"), "mirror.io/ab/c:1", "mirror.io/ab/c:1", true);
        check(&remap("mirror.io", "h.io"), "mirror.io:5000/c:1", "mirror.io:5000/c:1", true);
        check(&remap("mirror.io/a", "h.io/b"), "mirror.io/a:1", "h.io/b:1", true);
        check(&remap("mirror.io:5000", "h.io"), "mirror.io:5000/c:1", "h.io/c:1", true);
    }

    #[test]
    fn what_names_nothing_counts_only_if_a_digest_is_enough() {
        let wanted = identity("h.io/a:1");
        assert!(DigestOnly.check(&wanted, None).is_ok());
        for rule in [MatchExact, MatchRepoDigestOrExact, MatchRepository, ExactRepository(identity("h.io/a"))]
        {
            let text = rule.check(&wanted, None).unwrap_err();
            assert!(text.contains(r#""signedIdentity": {"type": "digestOnly"}"#), "{text}");
        }
        let text = MatchRepoDigestOrExact.check(&wanted, Some("h.io/a")).unwrap_err();
        assert!(text.contains(r#"`"signedIdentity": {"type": "matchRepository"}`"#), "{text}");
    }
}

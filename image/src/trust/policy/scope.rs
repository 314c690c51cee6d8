//! Which images an entry of the policy is about (containers-policy.json(5), "Supported transports and their scopes").

use std::path::{Component, Path};

use crate::registry::canonical_host;
use crate::trust::identity::Identity;

/// The scopes that an image of a registry is in, from the narrowest: itself, its repository, the folders above it,
/// the host, domains of the host, everything.
pub(super) fn of_registry(image: &Identity) -> Vec<String> {
    let mut scopes = vec![image.text(), image.repository().to_owned()];
    scopes.extend(parents(image.repository()));
    let host = image.repository().split('/').next().expect("split yields at least one part");
    // A wildcard says nothing of ports.
    let mut domain = host.split(':').next().expect("likewise");
    while let Some((_, rest)) = domain.split_once('.') {
        scopes.push(format!("*.{rest}"));
        domain = rest;
    }
    scopes.push(String::new());
    scopes
}

/// Likewise of a file or folder.
pub(super) fn of_path(path: &Path, tag: Option<&str>) -> Vec<String> {
    let path = path.to_string_lossy();
    let mut scopes: Vec<String> = tag.iter().map(|tag| format!("{path}:{tag}")).collect();
    scopes.push(path.clone().into_owned());
    scopes.extend(parents(&path).filter(|parent| !parent.is_empty()));
    scopes.push(String::new());
    scopes
}

fn parents(path: &str) -> impl Iterator<Item = String> {
    fn parent(path: &str) -> Option<&str> {
        path.rsplit_once('/').map(|(parent, _)| parent)
    }
    std::iter::successors(parent(path), |path| parent(path)).map(str::to_owned)
}

/// Refuses a scope that no image of a registry can be in: a rule that never applies protects nobody.
pub(super) fn check_registry(scope: &str) -> Result<(), String> {
    if scope.is_empty() {
        return Ok(());
    }
    let (host, path) = scope.split_once('/').map_or((scope, None), |(host, path)| (host, Some(path)));
    if let Some(domain) = host.strip_prefix("*.") {
        let known = !domain.contains(['*', ':'])
            && path.is_none()
            && canonical_host(domain).is_ok_and(|h| h == domain);
        return if known {
            Ok(())
        } else {
            Err("a wildcard is `*.` and a domain in lower case, nothing else".into())
        };
    }
    let canonical = canonical_host(host)?;
    if canonical != host {
        return Err(format!("the host is to be written `{canonical}`"));
    }
    if !(host == "localhost" || host.contains(['.', ':'])) {
        return Err(format!("`{host}` is no host; short names are to be written `docker.io/library/…`"));
    }
    let Some(path) = path else { return Ok(()) };
    let repository = Identity::parse(scope).map_err(|_| "it is no repository, nor the beginning of one")?;
    // `docker.io/library` is a folder, not the short form of `docker.io/library/library`.
    let written = repository.text();
    if written == scope || (host == "docker.io" && !path.contains(['/', ':', '@'])) {
        return Ok(());
    }
    Err(format!("it is to be written `{written}`"))
}

/// Likewise for files: absolute, without `.`, `..` and double slashes.
pub(super) fn check_path(scope: &str) -> Result<(), String> {
    if scope.is_empty() {
        return Ok(());
    }
    let plain = Path::new(scope).components().skip(1).all(|part| matches!(part, Component::Normal(_)));
    if !scope.starts_with('/') || !plain || scope.contains("//") || scope.contains("/./") {
        return Err("it must be an absolute path without `.` and `..`".into());
    }
    if scope.ends_with('/') || scope.ends_with("/.") {
        return Err("it must not end with a slash (for everything write \"\")".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Name;

    fn of_name(name: &str) -> Vec<String> {
        of_registry(&Identity::of(&Name::parse(name).unwrap()))
    }

    #[test]
    fn scopes_go_from_narrow_to_wide() {
        let want = [
            "my.sub.example.com:5000/a/b/c:1",
            "my.sub.example.com:5000/a/b/c",
            "my.sub.example.com:5000/a/b",
            "my.sub.example.com:5000/a",
            "my.sub.example.com:5000",
            "*.sub.example.com",
            "*.example.com",
            "*.com",
            "",
        ];
        assert_eq!(of_name("my.sub.example.com:5000/a/b/c:1"), want);
        assert_eq!(of_name("localhost/a"), ["localhost/a:latest", "localhost/a", "localhost", ""]);
        let short = of_name("busybox");
        assert_eq!(
            short[..4],
            [
                "docker.io/library/busybox:latest",
                "docker.io/library/busybox",
                "docker.io/library",
                "docker.io"
            ]
        );
        let digest = format!("sha256:{}", "a".repeat(64));
        assert_eq!(
            of_name(&format!("h.io/a:1@{digest}"))[..2],
            [format!("h.io/a@{digest}"), "h.io/a".into()]
        );
        assert_eq!(of_path(Path::new("/a/b"), Some("v")), ["/a/b:v", "/a/b", "/a", ""]);
        assert_eq!(of_path(Path::new("/a"), None), ["/a", ""]);
    }

    #[test]
    fn scopes_that_match_nothing_are_refused() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for scope in [
            "",
            "docker.io",
            "docker.io/library",
            "docker.io/library/busybox:1",
            "h.io:5000/a/b",
            "*.h.io",
            "*.io",
            "localhost",
            "127.0.0.1:80/x",
            "h.io/a:b",
            &format!("h.io/a@{digest}"),
        ] {
            check_registry(scope).unwrap_or_else(|e| panic!("{scope}: {e}"));
        }
        for scope in [
            "busybox",
            "H.io",
            "h.io/",
            "h.io/A",
            "*",
            "*.",
            "h*.io",
            "*.h.io/a",
            "*.*.io",
            "docker://h.io",
            "index.docker.io",
            "h.io/a//b",
            "/a",
            "h.io:0",
            "*.h.io:5000",
            "h.io/a@x",
            "docker.io/busybox:1",
            "library/busybox",
        ] {
            assert!(check_registry(scope).is_err(), "{scope}");
        }
        for scope in ["", "/a", "/a/b:tag", "/a.b"] {
            check_path(scope).unwrap();
        }
        for scope in ["a", "/", "/a/", "/a/../b", "/a/./b", "/a//b", "//a", "/a/."] {
            assert!(check_path(scope).is_err(), "{scope}");
        }
    }
}

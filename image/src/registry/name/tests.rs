//! Names of images in registries, well written and badly.

use proptest::prelude::*;

use super::*;

const HEX: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

#[track_caller]
fn check(text: &str, want: Result<&str, &str>) {
    match (Name::parse(text), want) {
        (Ok(got), Ok(want)) => {
            assert_eq!(got.to_string(), want);
            assert_eq!(Name::parse(want).unwrap(), got);
        }
        (Err(got), Err(want)) => assert!(got.to_string().contains(want), "{got}"),
        (got, want) => panic!("{text}: got {got:?}, want {want:?}"),
    }
}

#[test]
fn short_names_become_long() {
    check("busybox", Ok("docker.io/library/busybox:latest"));
    check("busybox:1.36", Ok("docker.io/library/busybox:1.36"));
    check("user/app", Ok("docker.io/user/app:latest"));
    check("docker.io/busybox", Ok("docker.io/library/busybox:latest"));
    check("index.docker.io/user/app:x", Ok("docker.io/user/app:x"));
    check("localhost/app", Ok("localhost/app:latest"));
    check("LocalHost/app", Ok("localhost/app:latest"));
    check("localhost:5000/app", Ok("localhost:5000/app:latest"));
    check("localhost:5000", Ok("docker.io/library/localhost:5000"));
    check("Registry.EXAMPLE.com:0443/a/b/c:V1", Ok("registry.example.com:443/a/b/c:V1"));
    check("[::1]:5000/app", Ok("[::1]:5000/app:latest"));
    check("[0:0:0:0:0:0:0:1]/app", Ok("[::1]/app:latest"));
    check("127.0.0.1:5055/a__b/c---d.e_f", Ok("127.0.0.1:5055/a__b/c---d.e_f:latest"));
}

#[test]
fn a_digest_needs_no_tag() {
    check(&format!("busybox@sha256:{HEX}"), Ok(&format!("docker.io/library/busybox@sha256:{HEX}")));
    check(&format!("busybox:1@sha256:{HEX}"), Ok(&format!("docker.io/library/busybox:1@sha256:{HEX}")));
    let name = Name::parse(&format!("a.b/c:1@sha256:{HEX}")).unwrap();
    assert_eq!((name.host(), name.repository(), name.tag()), ("a.b", "c", Some("1")));
    assert_eq!(name.digest().unwrap().hex(), HEX);
    assert_eq!(name.without_tag(), "a.b/c");
    assert_eq!(name.moved("mirror:5000/x/c").unwrap().to_string(), format!("mirror:5000/x/c:1@sha256:{HEX}"));
}

#[test]
fn what_is_no_name_says_why() {
    for text in [
        "", "/", "a//b", "/a", "a/", "-a", "a-", "a..b", "a___b", "a_-b", "Busybox", "A/a", "a b", "a\n", "ä",
    ] {
        check(text, Err("a repository has parts"));
    }
    for text in ["a:", "a:-x", "a:.x", "a:x y", &format!("a:{}", "x".repeat(129))] {
        check(text, Err("a tag has at most 128"));
    }
    check(&format!("a:{}", "x".repeat(128)), Ok(&format!("docker.io/library/a:{}", "x".repeat(128))));
    for text in ["a@", "a@sha256:ab", "a@md5:0123", &format!("a@sha256:{}", HEX.to_uppercase())] {
        check(text, Err("is no sha256 or sha512 digest"));
    }
    for text in
        ["-a.b/c", "a..b/c", "[::1/c", "[::1%eth0]/c", "[::1]x/c", "127.1/c", "1.2.3.4.5/c", "a.0x7f/c"]
    {
        check(text, Err("is no host"));
    }
    for text in ["a:0/c", "a:65536/c", "a:+1/c", "a:/c", "a.b:x/c", "https://a/b"] {
        check(text, Err("is no port"));
    }
    check(HEX, Err("are the id of an image"));
    check(&format!("a.b/{}", "x".repeat(252)), Err("more than 255 characters"));
    check(&format!("{}.b/c", "x".repeat(64)), Err("is no host"));
}

proptest! {
    #[test]
    fn anything_may_come(text in "\\PC*") {
        let _ = Name::parse(&text);
    }

    #[test]
    fn what_was_read_is_written_so(text in "([A-Za-z0-9.-]{1,9}(:[0-9]{1,5})?/)?[a-z0-9._/-]{1,12}(:[\\w.-]{1,5})?") {
        if let Ok(name) = Name::parse(&text) {
            let canonical = name.to_string();
            prop_assert_eq!(&Name::parse(&canonical).unwrap(), &name);
            prop_assert_eq!(name.to_string(), canonical);
            let url = url::Url::parse(&format!("https://{}/v2/{}/x", name.host(), name.repository())).unwrap();
            prop_assert!(name.host().starts_with(url.host_str().unwrap()), "{}", url);
            prop_assert_eq!(url.path(), format!("/v2/{}/x", name.repository()));
        }
    }
}

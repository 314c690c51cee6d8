//! The man page's own examples, and files that are wrong.

use proptest::prelude::*;

use super::*;

/// The example of containers-registries.conf(5), less its first line.
const MANUAL: &str = r#"
[[registry]]
prefix = "example.com/foo"
insecure = false
blocked = false
location = "internal-registry-for-example.com/bar"

[[registry.mirror]]
location = "example-mirror-0.local/mirror-for-foo"

[[registry.mirror]]
location = "example-mirror-1.local/mirrors/foo"
insecure = true

[[registry]]
location = "registry.com"

[[registry.mirror]]
location = "mirror.registry.com"
"#;

const DIGEST: &str = "@sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

fn read(text: &str) -> Result<Registries, Error> {
    Ok(Registries { by_prefix: parse(text, Path::new("/etc/hull/registries.conf"))? })
}

/// Places as text; `!` stands before an insecure one.
#[track_caller]
fn check(conf: &str, name: &str, want: &[&str]) {
    let registries = read(conf).unwrap_or_else(|e| panic!("{}", hull_errors::chain(&e)));
    let places = registries.places(&Name::parse(name).unwrap()).unwrap();
    let mark = |place: &Place| format!("{}{}", if place.insecure { "!" } else { "" }, place.name);
    assert_eq!(places.iter().map(mark).collect::<Vec<_>>(), want);
}

#[track_caller]
fn refused(conf: &str, want: &str) {
    let error = hull_errors::chain(&read(conf).expect_err("it must be refused"));
    assert!(error.contains(want), "{error}");
}

#[test]
fn the_manual_s_examples_do_what_it_says() {
    check(
        MANUAL,
        "example.com/foo/image",
        &[
            "example-mirror-0.local/mirror-for-foo/image:latest",
            "!example-mirror-1.local/mirrors/foo/image:latest",
            "internal-registry-for-example.com/bar/image:latest",
        ],
    );
    check(MANUAL, "registry.com/image", &["mirror.registry.com/image:latest", "registry.com/image:latest"]);
    check(MANUAL, "example.com/foobar", &["example.com/foobar:latest"]);
    check(
        MANUAL,
        "example.com/foo:1",
        &[
            "example-mirror-0.local/mirror-for-foo:1",
            "!example-mirror-1.local/mirrors/foo:1",
            "internal-registry-for-example.com/bar:1",
        ],
    );
    check(
        "[[registry]]\nprefix = \"example.com/foo\"\nlocation = \"internal-registry-for-example.net/bar\"",
        "example.com/foo/myimage",
        &["internal-registry-for-example.net/bar/myimage:latest"],
    );
    let wild = "[[registry]]\nprefix = \"*.example.com\"\ninsecure = true";
    check(wild, "blah.example.com/foo/myimage", &["!blah.example.com/foo/myimage:latest"]);
    check(wild, "foo.bar.example.com/a", &["!foo.bar.example.com/a:latest"]);
    check(wild, "example.com/a", &["example.com/a:latest"]);
    check(wild, "badexample.com/a", &["badexample.com/a:latest"]);
    refused(
        &format!("unqualified-search-registries = [\"example.com\"]\n{MANUAL}"),
        "/etc/hull/registries.conf:1: names without a host",
    );
    refused(
        "[registries.search]\nregistries = ['registry1.com', 'registry2.com']",
        "registries.conf:1: `[registries.…]` is version 1",
    );
    for prefix in ["example.*.com", "*.example.com/foo", "*.example.com:5000/foo/bar:baz"] {
        refused(&format!("[[registry]]\nprefix = \"{prefix}\"\nlocation = \"a.b\""), "is no place of images");
    }
    check(
        "[[registry]]\nlocation = \"docker.io/library\"\ninsecure = true",
        "alpine",
        &["!docker.io/library/alpine:latest"],
    );
}

#[test]
fn the_longest_prefix_counts_and_whole_parts_only() {
    let conf = r#"
[[registry]]
location = "a.b"
insecure = true
[[registry]]
prefix = "A.b/c"
location = "x.y:05000"
[[registry]]
prefix = "a.b/c/d:1"
location = "one.z/d"
[[registry]]
location = "a.b:5000"
[[registry.mirror]]
location = "docker.io/mirror"
"#;
    check(conf, "a.b/x", &["!a.b/x:latest"]);
    check(conf, "a.b/cc", &["!a.b/cc:latest"]);
    check(conf, "a.b/c/x:2", &["x.y:5000/x:2"]);
    check(conf, "a.b/c/d:1", &["one.z/d:1"]);
    check(conf, "a.b/c/d:11", &["x.y:5000/d:11"]);
    check(conf, "a.b:5000/c", &["docker.io/mirror/c:latest", "a.b:5000/c:latest"]);
    // Where nothing would be left of the repository, there is no name.
    let error = read(conf).unwrap().places(&Name::parse("a.b/c").unwrap()).unwrap_err();
    assert!(error.to_string().contains("from `x.y:5000`, as `registries.conf` says"), "{error}");
}

#[test]
fn mirrors_may_be_for_digests_or_tags() {
    let conf = |more: &str, mirror: &str| {
        format!("[[registry]]\nlocation = \"a.b\"\n{more}\n[[registry.mirror]]\nlocation = \"m.x\"\n{mirror}")
    };
    let (tag, digest) = ("a.b/c:1", format!("a.b/c{DIGEST}"));
    let mirrored = format!("m.x/c{DIGEST}");
    check(&conf("mirror-by-digest-only = true", ""), tag, &[tag]);
    check(&conf("mirror-by-digest-only = true", ""), &digest, &[&mirrored, &digest]);
    check(&conf("", "pull-from-mirror = \"digest-only\""), tag, &[tag]);
    check(&conf("", "pull-from-mirror = \"tag-only\""), tag, &["m.x/c:1", tag]);
    check(&conf("", "pull-from-mirror = \"tag-only\""), &digest, &[&digest]);
    check(&conf("", "pull-from-mirror = \"all\""), &digest, &[&mirrored, &digest]);
    refused(
        &conf("mirror-by-digest-only = true", "pull-from-mirror = \"all\""),
        "registries.conf:4: `pull-from-mirror` and",
    );
    refused(&conf("", "pull-from-mirror = \"some\""), "registries.conf:4: `pull-from-mirror` is `some`");
}

#[test]
fn errors_name_file_and_line() {
    refused("\n\n[[registry]]\nlocation = 3", "/etc/hull/registries.conf:4: invalid type");
    refused("[[registry]]\nlocation = \"a.b\"\nunsafe = true", "registries.conf:3: unknown field `unsafe`");
    refused("[[registry]]\n", "registries.conf:1: a `[[registry]]` needs `location` or `prefix`");
    refused("\n[[registry]]\nprefix = \"a.b\"", "registries.conf:2: `prefix` without `location`");
    refused(
        "[[registry]]\nlocation = \"a.b\"\n[[registry]]\nlocation = \"a.b\"",
        "registries.conf:3: `a.b` has a table already, at /etc/hull/registries.conf:1",
    );
    refused("[[registry]]\nlocation = \"https://a.b\"", "is no place of images");
    refused("[[registry]]\nlocation = \"mirror/a\"", "a host has a dot or a port");
    refused("[[registry]]\nlocation = \"a.b/c:1\"", "a location has no tag");
    refused("[aliases]\n\"a\" = \"b.c/d\"", "registries.conf:1: aliases are not supported");
    refused("credential-helpers = [\"x\"]", "name them in `credHelpers`");
    refused("x = [", "registries.conf:1:");
    let blocked = read("\n[[registry]]\nlocation = \"a.b\"\nblocked = true").unwrap();
    let error = blocked.places(&Name::parse("a.b/c").unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "fetch image a.b/c:latest: /etc/hull/registries.conf:2 blocks it");
    assert!(read("unqualified-search-registries = [\"docker.io\"]\nshort-name-mode = \"enforcing\"").is_ok());
}

#[test]
fn later_files_replace_tables() {
    let folder = tempfile::TempDir::new().unwrap();
    let write = |name: &str, location: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("[[registry]]\nprefix = \"a.b\"\nlocation = \"{location}\"\n")).unwrap();
    };
    write("system/registries.conf", "one.x");
    write("system/registries.conf.d/10.conf", "three.x");
    write("system/registries.conf.d/05.conf", "two.x");
    write("system/registries.conf.d/99.txt", "no.x");
    let place = |local: &str| {
        let (system, local) = (folder.path().join("system"), folder.path().join(local));
        let registries = Registries::load(&SettingsFolders { system, local, user: None }).unwrap();
        registries.places(&Name::parse("a.b/c").unwrap()).unwrap().remove(0).name.host().to_owned()
    };
    assert_eq!(place("local"), "three.x");
    write("local/registries.conf", "four.x");
    assert_eq!(place("local"), "four.x");
}

proptest! {
    #[test]
    fn anything_may_come(text in "(\\PC|\n){0,200}") {
        let _ = read(&text);
    }

    #[test]
    fn almost_anything_may_come(prefix in "[*a-z.:/@0-9]{0,20}", location in "[*a-zA-Z.:/@0-9]{0,20}", name in "[a-z./:0-9]{1,12}") {
        let conf = read(&format!("[[registry]]\nprefix = '{prefix}'\nlocation = '{location}'"));
        if let (Ok(conf), Ok(name)) = (conf, Name::parse(&name)) {
            let _ = conf.places(&name);
        }
    }
}

//! Which credentials are found where, and that none are shown.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;
use serde_json::json;
use tempfile::TempDir;

use super::*;

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn login(user: &str, password: &str) -> Key {
    Key::Login(Login { user: user.into(), password: Secret::from(password) })
}

fn auth(user: &str, password: &str) -> serde_json::Value {
    json!({ "auth": STANDARD.encode(format!("{user}:{password}")) })
}

#[track_caller]
#[expect(clippy::needless_pass_by_value, reason = "a table of cases reads better so")]
fn check(file: &serde_json::Value, image: &str, want: Option<Key>) {
    let file = parse(file.to_string().as_bytes()).unwrap();
    let got = file.key(&name(image), Path::new("auth.json"), ANSWER_TIMEOUT).unwrap();
    assert_eq!(got, want, "{image}");
}

#[test]
fn the_longest_place_counts_and_no_other_host() {
    let file = json!({"auths": {
        "my-registry.local/foo/bar/image": auth("image", "1"),
        "my-registry.local/foo": auth("foo", "2"),
        "my-registry.local": auth("all", "3:4"),
        "https://index.docker.io/v1/": auth("hub", "5"),
        "Quay.IO/v2/": auth("quay", "6"),
        "https://old.example/v1/": auth("old", "7"),
        "localhost:5000": {"username": "plain", "password": "8"},
        "token.example": {"auth": "", "identitytoken": "9"},
        "raw.example": {"registrytoken": "10"},
    }});
    check(&file, "my-registry.local/foo/bar/image:1", Some(login("image", "1")));
    check(&file, "my-registry.local/foo/bar/images", Some(login("foo", "2")));
    check(&file, "my-registry.local/foobar", Some(login("all", "3:4")));
    check(&file, "busybox", Some(login("hub", "5")));
    check(&file, "quay.io/a/b", Some(login("quay", "6")));
    check(&file, "old.example/a", Some(login("old", "7")));
    check(&file, "localhost:5000/a", Some(login("plain", "8")));
    check(&file, "token.example/a", Some(Key::IdentityToken("9".into())));
    check(&file, "raw.example/a", Some(Key::RegistryToken("10".into())));
    for other in [
        "my-registry.local:5000/foo",
        "my-registry.local.evil/foo",
        "evil.local/foo",
        "localhost:5001/a",
        "localhost/a",
    ] {
        check(&file, other, None);
    }
}

#[test]
fn errors_and_debug_tell_no_secret() {
    let secret = "s3cr3t";
    for text in [
        format!("{{\"auths\": {{\"a.b\": \"{secret}\"}}}}"),
        format!("{{\"auths\": {{\"a.b\": {{\"auth\": 1, \"x\": \"{secret}\"}}}}}}"),
        format!("{{\"auths\": {secret}"),
        format!("{{\"auths\": {{\"a.b\": {{\"auth\": [\"{secret}\"]}}}}}}"),
    ] {
        let why = parse(text.as_bytes()).map(drop).unwrap_err();
        assert!(why.contains("line 1") && !why.contains(secret), "{why}");
    }
    let file = parse(json!({"auths": {"a.b": {"auth": secret}}}).to_string().as_bytes()).unwrap();
    let error = file.key(&name("a.b/c"), Path::new("x/auth.json"), ANSWER_TIMEOUT).unwrap_err();
    assert_eq!(
        hull_errors::chain(&error),
        "read credentials of x/auth.json: the entry for a.b has an `auth` that is not `USER:PASSWORD` in base64"
    );
    assert!(!format!("{:?}", login("me", secret)).contains(secret));
}

#[test]
fn files_are_asked_in_their_order() {
    let folder = TempDir::new().unwrap();
    let write = |path: &str, user: &str| {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, json!({"auths": {"a.b": auth(user, "x")}}).to_string()).unwrap();
    };
    let folders =
        SettingsFolders { system: folder.path().join("usr"), local: folder.path().join("etc"), user: None };
    let given = BTreeMap::from([("a.b".to_owned(), Login { user: "given".into(), password: "x".into() })]);
    let user = |set: &[(&str, &str)]| {
        let variables = |name: &str| {
            let value = set.iter().find(|(set, _)| *set == name)?.1;
            Some(folder.path().join(value).into_os_string())
        };
        match Keychain::new(variables, &folders, given.clone()).key(&name("a.b/c")) {
            Ok(Some(Key::Login(login))) => login.user,
            Ok(other) => format!("{other:?}"),
            Err(e) => hull_errors::chain(&e),
        }
    };
    let all = [("HOME", "home"), ("XDG_RUNTIME_DIR", "run"), ("DOCKER_CONFIG", "docker")];
    assert_eq!(user(&all), "given");
    write("usr/auth.json", "system");
    assert_eq!(user(&all), "system");
    write("etc/auth.json", "local");
    assert_eq!(user(&all), "local");
    write("home/.docker/config.json", "home");
    assert_eq!(user(&all[..1]), "home");
    assert_eq!(user(&all), "local");
    write("docker/config.json", "docker");
    assert_eq!(user(&all), "docker");
    write("run/containers/auth.json", "run");
    assert_eq!(user(&all), "run");
    write("mine.json", "mine");
    assert_eq!(user(&[&all[..], &[("REGISTRY_AUTH_FILE", "mine.json")]].concat()), "mine");
    let missing = user(&[&all[..], &[("REGISTRY_AUTH_FILE", "none.json")]].concat());
    assert!(missing.contains("none.json: No such file"), "{missing}");
}

/// Programs are found by `PATH`, which is one for all tests: this one looks for a name of its own.
#[test]
fn programs_are_asked_and_not_believed() {
    let folder = TempDir::new().unwrap();
    let run = |script: &str, timeout: Duration| {
        let path = folder.path().join("docker-credential-x");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$0\" get"]).arg(&path);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        Running(child).answer("docker.io", timeout)
    };
    let minute = Duration::from_secs(60);
    let echo = run("read -r url; echo \"$1 $url\"", minute).unwrap().unwrap();
    assert_eq!(echo, b"get https://index.docker.io/v1/\n");
    assert_eq!(run("exit 1", minute).unwrap(), None);
    assert!(run("yes", minute).unwrap_err().to_string().contains("more than 65536 bytes"));
    assert!(
        run("exec sleep 1000", Duration::from_millis(50))
            .unwrap_err()
            .to_string()
            .contains("no answer in 0.05 s")
    );
    assert!(run("exec >&-; exec sleep 1000", Duration::from_millis(50)).is_err());
    for program in ["../x", "", "a b", "/bin/sh"] {
        let file = json!({"credHelpers": {"a.b": program}}).to_string();
        let error =
            parse(file.as_bytes()).unwrap().key(&name("a.b/c"), Path::new("auth.json"), minute).unwrap_err();
        assert!(error.to_string().contains("is no name of a credential program"), "{error}");
    }
    let file =
        json!({"credHelpers": {"a.b": "surely-not-there"}, "auths": {"a.b": auth("a", "b")}}).to_string();
    let error =
        parse(file.as_bytes()).unwrap().key(&name("a.b/c"), Path::new("auth.json"), minute).unwrap_err();
    assert!(
        error.to_string().contains("ask docker-credential-surely-not-there for the credentials of a.b"),
        "{error}"
    );
}

proptest! {
    #[test]
    fn anything_may_come(text in "\\PC{0,99}", place in "\\PC{0,30}", auth in "[A-Za-z0-9+/=]{0,20}") {
        let _ = parse(text.as_bytes());
        let file = parse(json!({"auths": {place: {"auth": auth}}}).to_string().as_bytes()).unwrap();
        let _ = file.key(&name("a.b/c/d"), Path::new("x"), ANSWER_TIMEOUT);
    }
}

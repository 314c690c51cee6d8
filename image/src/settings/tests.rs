//! Folders of settings files, read together.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use proptest::prelude::{any, proptest};
use serde_json::json;
use tempfile::TempDir;

use super::*;

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn file(&self, name: &str, content: &Value) -> &Self {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content.to_string()).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        self
    }

    fn load(&self) -> Result<Settings, Error> {
        Settings::load(&SettingsFolders {
            system: self.0.path().join("system"),
            local: self.0.path().join("local"),
            user: Some(self.0.path().join("user")),
        })
    }

    #[track_caller]
    fn refuse(&self, want: &[&str]) {
        let error = self.load().unwrap_err().to_string();
        assert!(want.iter().all(|want| error.contains(want)), "{error}");
    }
}

fn basic(domain: &str, user: &str) -> Value {
    json!({ "hullKind": "auth", "hullVersion": "v1", "domains": [domain], "type": "basic",
            "credentials": { "user": user, "password": "secret" } })
}

fn user_for(settings: &Settings, url: &str) -> Option<String> {
    match settings.credentials(&Url::parse(url).unwrap())? {
        Credentials::Basic(login) => Some(login.user.clone()),
        _ => None,
    }
}

#[test]
fn without_any_folder_there_is_nothing_to_say() {
    let settings = Place::new().load().unwrap();
    assert!(settings.auth.is_empty() && settings.data().is_none() && settings.warnings().is_empty());
}

#[test]
fn a_later_folder_replaces_what_it_names_and_nothing_else() {
    let place = Place::new();
    place
        .file("system/auth.d/a.json", &basic("a.com", "system"))
        .file("system/auth.d/b.json", &basic("b.com", "system"))
        .file("local/auth.d/b.json", &basic("b.com", "local"))
        .file("local/auth.d/c.json", &basic("c.com", "local"))
        .file("user/auth.d/x.json", &basic("c.com", "user"))
        .file("system/paths.d/p.json", &json!({ "rktKind": "paths", "rktVersion": "v1", "data": "/s", "stage1-images": "/i" }))
        .file("local/paths.d/p.json", &json!({ "hullKind": "paths", "hullVersion": "v1", "data": "/l" }))
        .file("local/stage1.d/s.json", &json!({ "hullKind": "stage1", "hullVersion": "v1", "name": "hull/kvm", "version": "1", "location": "/x.aci" }))
        .file("user/stage1.d/s.json", &json!({ "hullKind": "stage1", "hullVersion": "v1", "location": "https://x/y" }));
    let settings = place.load().unwrap();
    assert_eq!(user_for(&settings, "https://a.com/x").as_deref(), Some("system"));
    assert_eq!(user_for(&settings, "https://b.com/x").as_deref(), Some("local"));
    assert_eq!(user_for(&settings, "https://c.com/x").as_deref(), Some("user"));
    assert_eq!(settings.data().unwrap().to_str(), Some("/l"));
    assert_eq!(settings.stage1_images().unwrap().to_str(), Some("/i"));
    assert_eq!(settings.stage1().image, Some(("hull/kvm".into(), "1".into())));
    assert_eq!(settings.stage1().location.as_deref(), Some("https://x/y"));
}

#[test]
fn hosts_match_exactly() {
    let place = Place::new();
    place
        .file("local/auth.d/a.json", &basic("A.com", "plain"))
        .file("local/auth.d/b.json", &basic("a.com:8443", "port"));
    let settings = place.load().unwrap();
    for (url, want) in [
        ("https://a.com/x", Some("plain")),
        ("https://A.COM:443/x", Some("plain")),
        ("https://a.com:8443/", Some("port")),
        ("https://a.com:8444/", None),
        ("https://b.a.com/", None),
        ("https://a.com.evil/", None),
        ("https://com/", None),
    ] {
        assert_eq!(user_for(&settings, url).as_deref(), want, "{url}");
    }
}

#[test]
fn the_same_twice_in_one_folder_names_both_files() {
    let place = Place::new();
    place.file("local/auth.d/a.json", &basic("a.com", "x")).file("local/auth.d/b.json", &basic("a.com", "x"));
    place.refuse(&["local/auth.d/a.json", "local/auth.d/b.json", "a.com"]);
    let place = Place::new();
    let paths = json!({ "hullKind": "paths", "hullVersion": "v1", "data": "/l" });
    place.file("user/paths.d/1.json", &paths).file("user/paths.d/2.json", &paths);
    place.refuse(&["1.json", "2.json", "`data`"]);
}

#[test]
fn only_json_files_directly_in_the_folder_count() {
    let place = Place::new();
    place
        .file("local/auth.d/a.json", &basic("a.com", "x"))
        .file("local/auth.d/b.json.bak", &json!("no settings"))
        .file("local/auth.d/folder.json/c.json", &json!("no settings"))
        .file("local/other.d/c.json", &json!("no settings"));
    assert_eq!(place.load().unwrap().auth.len(), 1);
}

#[test]
fn what_is_wrong_is_named_with_its_file() {
    let with = |key: &str, value: Value| {
        let mut document = basic("a.com", "x");
        document[key] = value;
        document
    };
    let secret = json!({ "user": "u", "password": ["hunter2"] });
    for (document, want) in [
        (
            with("hullKind", json!("paths")),
            "`hullKind` is `paths`; in this folder it may be auth, dockerAuth",
        ),
        (with("hullKind", json!("new")), "`hullKind` is `new`"),
        (with("hullKind", json!(null)), "`hullKind` is no text"),
        (with("rktKind", json!("auth")), "both `hullKind` and `rktKind`"),
        (with("hullVersion", json!("v2")), "`hullVersion` is `v2`"),
        (json!([]), "no JSON object"),
        (json!({ "hullKind": "auth" }), "`hullVersion` is missing"),
        (with("domains", json!([])), "`domains` is empty"),
        (with("domains", json!(["a.com/x"])), "`a.com/x` is no host"),
        (with("domains", json!(["u@a.com"])), "is no host"),
        (with("type", json!("kerberos")), "type `kerberos` is unknown"),
        (with("type", json!("oauth")), "missing field `token`"),
        (with("credentials", json!({ "user": "u" })), "missing field `password`"),
        (with("credentials", json!({ "user": "u", "password": "" })), "no `password`"),
        (with("credentials", json!({ "user": "u:v", "password": "p" })), "colon"),
        (with("credentials", secret), "wrong type"),
    ] {
        let place = Place::new();
        place.file("local/auth.d/a.json", &document);
        place.refuse(&["local/auth.d/a.json", want]);
        let error = place.load().unwrap_err();
        assert!(!hull_errors::chain(&error).contains("hunter2"), "a secret is shown: {error}");
    }
    let place = Place::new();
    place.file("local/paths.d/a.json", &json!({ "hullKind": "paths", "hullVersion": "v1", "data": "l" }));
    place.refuse(&["absolute"]);
}

#[test]
fn all_kinds_come_out_as_they_went_in() {
    let place = Place::new();
    let oauth = json!({ "hullKind": "auth", "hullVersion": "v1", "domains": ["o.com"], "type": "oauth",
                        "credentials": { "token": "t0ken" } });
    let aws = json!({ "hullKind": "auth", "hullVersion": "v1", "domains": ["s3.amazonaws.com"], "type": "aws",
                      "credentials": { "accessKeyID": "AKIA", "secretAccessKey": "k", "awsRegion": "eu-west-1" } });
    let docker = json!({ "hullKind": "dockerAuth", "hullVersion": "v1", "registries": ["quay.io"],
                         "credentials": { "user": "u", "password": "p" } });
    let paths = json!({ "hullKind": "paths", "hullVersion": "v1", "data": "/d", "stage1-images": "/i" });
    let stage1 =
        json!({ "hullKind": "stage1", "hullVersion": "v1", "name": "n", "version": "1", "location": "/l" });
    place
        .file("local/auth.d/1.json", &oauth)
        .file("local/auth.d/2.json", &aws)
        .file("local/auth.d/3.json", &docker)
        .file("local/paths.d/1.json", &paths)
        .file("local/stage1.d/1.json", &stage1);
    let settings = place.load().unwrap();
    assert_eq!(settings.to_json(), json!({ "stage0": [oauth, aws, docker, paths, stage1] }));
    assert!(settings.registries()["quay.io"].password.reveal() == "p");
    let debug = format!("{settings:?}");
    assert!(!debug.contains("t0ken"), "{debug}");
}

#[test]
fn readable_secrets_are_warned_of() {
    let place = Place::new();
    place.file("local/auth.d/a.json", &basic("a.com", "x"));
    place.file("local/paths.d/a.json", &json!({ "hullKind": "paths", "hullVersion": "v1", "data": "/l" }));
    assert!(place.load().unwrap().warnings().is_empty());
    for file in ["auth.d/a.json", "paths.d/a.json"] {
        fs::set_permissions(place.0.path().join("local").join(file), Permissions::from_mode(0o644)).unwrap();
    }
    let settings = place.load().unwrap();
    assert_eq!(settings.warnings().len(), 1);
    assert!(settings.warnings()[0].contains("auth.d/a.json"));
}

proptest! {
    #[test]
    fn any_bytes_are_settings_or_an_error(text in any::<Vec<u8>>()) {
        let _ = document::parse(&text, &["auth"]);
    }
}

//! Pulls from a real registry, and from servers that do as they like.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::Quiet;
use crate::transport::testing::{Reply, Request, Server};

const LAYER: &[u8] = &[7; 5000];

struct Place {
    folder: TempDir,
    blobs: Blobs,
}

impl Place {
    /// A store whose settings allow plain HTTP to `host`.
    fn new(host: &str) -> Self {
        let folder = TempDir::new().unwrap();
        for name in ["tmp", "partial", "blobs/sha256", "blobs/sha512", "etc"] {
            fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        let conf = format!("[[registry]]\nlocation = \"{host}\"\ninsecure = true\n");
        fs::write(folder.path().join("etc/registries.conf"), conf).unwrap();
        let auth = json!({"auths": {host: {"username": "me", "password": "s3cr3t"}}});
        fs::write(folder.path().join("etc/auth.json"), auth.to_string()).unwrap();
        let blobs = Blobs::new(folder.path().join("blobs"), folder.path().join("tmp"));
        Self { folder, blobs }
    }

    fn registry(&self, insecure: Insecure) -> Registry<'static> {
        let path = self.folder.path();
        let folders = SettingsFolders { system: path.join("usr"), local: path.join("etc"), user: None };
        let wait = Duration::from_millis(2);
        Registry {
            runtime: Builder::new_current_thread().enable_all().build().unwrap(),
            registries: Registries::load(&folders).unwrap(),
            keychain: Keychain::new(|_| None, &folders, BTreeMap::new()),
            folders,
            insecure,
            partials: Partials::new(path.join("partial")),
            patience: Patience { tries: 3, first_wait: wait, wait_max: wait, ..Patience::default() },
            progress: &Quiet,
        }
    }

    fn pull(&self, name: &str, insecure: Insecure) -> Result<(Digest, Prepared), Error> {
        let registry = self.registry(insecure);
        let resolved = registry.resolve(&Name::parse(name).unwrap(), &self.blobs)?;
        Ok((resolved.named().clone(), resolved.pull(&Admitted::unchecked(name), &self.blobs)?))
    }
}

const HTTP: Insecure = Insecure { image: false, tls: false, http: true, pubkey: false };

fn digest(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, bytes)
}

fn descriptor(kind: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": kind, "digest": digest(bytes), "size": bytes.len()})
}

fn config() -> Vec<u8> {
    let text = json!({"os": "linux", "architecture": crate::config::host_architecture(),
        "rootfs": {"type": "layers", "diff_ids": [digest(LAYER)]}});
    text.to_string().into_bytes()
}

fn image() -> Vec<u8> {
    let layer = descriptor("application/vnd.oci.image.layer.v1.tar", LAYER);
    let config = descriptor("application/vnd.oci.image.config.v1+json", &config());
    json!({"schemaVersion": 2, "config": config, "layers": [layer]}).to_string().into_bytes()
}

/// What an honest registry says, if it has the image under any tag.
fn honest(request: &Request) -> Reply {
    let is = |bytes: &[u8]| request.target.ends_with(&digest(bytes).to_string());
    if request.target.contains("/blobs/") {
        return if is(LAYER) { Reply::part(request, LAYER) } else { Reply::part(request, &config()) };
    }
    Reply::new(200, image()).header("Content-Type", &MANIFESTS[0])
}

#[track_caller]
fn refused(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static, kind: Kind, text: &str) {
    let server = Server::start(answer);
    let got = Place::new(&server.host()).pull(&format!("{}/a:1", server.host()), HTTP);
    let error = got.map(|_| ()).expect_err("it must be refused");
    let chain = chain(&error);
    assert!(*error.kind() == kind && chain.contains(text), "{:?}: {chain}", error.kind());
    assert!(!chain.contains("s3cr3t"), "{chain}");
}

fn document(kind: &'static str, body: impl Into<Vec<u8>>) -> impl Fn(&Request) -> Reply {
    let body = body.into();
    move |_| Reply::new(200, body.clone()).header("Content-Type", &kind)
}

#[test]
fn each_blob_is_fetched_once_ever() {
    let server = Server::start(honest);
    let place = Place::new(&server.host());
    let name = format!("{}/a:1", server.host());
    let (named, prepared) = place.pull(&name, HTTP).unwrap();
    assert_eq!((named, prepared.layers.len(), prepared.name), (digest(&image()), 1, name.clone()));
    place.pull(&name, HTTP).unwrap();
    for blob in [LAYER, &config()] {
        assert_eq!(server.count(&digest(blob).to_string()), 1);
    }
    // By digest nothing at all is asked.
    let before = server.seen().len();
    place.pull(&format!("{}/a@{}", server.host(), digest(&image())), HTTP).unwrap();
    assert_eq!(server.seen().len(), before);
    assert_eq!(fs::read_dir(place.folder.path().join("partial")).unwrap().count(), 0);
}

#[test]
fn hostile_registries_are_refused() {
    let [oci, docker] = MANIFESTS;
    refused(document("text/html", "<!DOCTYPE html>"), Kind::NotAnImage, "it is a web page");
    refused(document(docker, json!({"mediaType": oci}).to_string()), Kind::Corrupt, "and it was declared");
    refused(document(oci, json!({"manifests": [], "layers": []}).to_string()), Kind::Corrupt, "at once");
    refused(
        document(oci, json!({"schemaVersion": 1, "fsLayers": []}).to_string()),
        Kind::Unsupported,
        "schema 1",
    );
    refused(
        |_| Reply::new(200, image()).header("Docker-Content-Digest", &digest(b"x")),
        Kind::Corrupt,
        "another digest than the registry says",
    );
    refused(
        |_| Reply::new(200, image()).header("Content-Encoding", &"gzip"),
        Kind::Network,
        "encodes the content",
    );
    refused(|_| Reply::new(200, " ".repeat(9000)).endless(), Kind::TooLarge, "at most 4194304 are accepted");
    refused(|_| Reply::new(404, ""), Kind::NotFound, "the server answers 404");
    refused(|_| Reply::new(302, "").header("Location", &"/v2/x"), Kind::Network, "redirect");
    refused(
        |request| match request.target.contains("/blobs/") {
            true => Reply::new(200, vec![0; request.target.len()]),
            false => honest(request),
        },
        Kind::Corrupt,
        "were announced",
    );
    // An index that names itself cannot be: it would have to know its digest. It names another one for ever.
    refused(
        |_| {
            let entry = descriptor(INDEXES[0], b"x");
            Reply::new(200, json!({"schemaVersion": 2, "manifests": [entry]}).to_string())
                .header("Content-Type", &INDEXES[0])
        },
        Kind::Corrupt,
        "blob sha256:",
    );
}

#[test]
fn tokens_are_fetched_and_secrets_stay() {
    let other = Server::start(|request| {
        assert_eq!(request.header("authorization"), None);
        honest(request)
    });
    let elsewhere = other.url("");
    let server = Server::start(move |request| {
        let host = request.header("host").unwrap_or_default();
        if request.target.starts_with("/token?") {
            let right = request.header("authorization") == Some("Basic bWU6czNjcjN0");
            let scope = request.target.contains("scope=repository%3Aa%3Apull&")
                && request.target.contains("service=s&");
            return if right && scope {
                Reply::new(200, r#"{"token":"t0ken"}"#)
            } else {
                Reply::new(401, "")
            };
        }
        if request.header("authorization") != Some("Bearer t0ken") {
            let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"s\"");
            return Reply::new(401, "").header("WWW-Authenticate", &challenge);
        }
        match request.target.contains("/blobs/") {
            true => Reply::new(307, "").header("Location", &format!("{elsewhere}{}", request.target)),
            false => honest(request),
        }
    });
    let name = format!("{}/a:1", server.host());
    Place::new(&server.host()).pull(&name, HTTP).unwrap();
    assert!(other.seen().iter().all(|request| request.header("authorization").is_none()));
    assert_eq!(other.seen().len(), 2);
    // Not over plain HTTP, unless the user says so.
    let before = server.seen().len();
    let error = Place::new(&server.host()).pull(&name, Insecure::default()).map(|_| ()).unwrap_err();
    assert!(*error.kind() == Kind::Unauthorized);
    assert!(
        server.seen()[before..]
            .iter()
            .all(|request| request.header("authorization") != Some("Basic bWU6czNjcjN0"))
    );
}

/// A registry that wants tokens of its own server, which gives one for the right refresh token.
fn with_identity_token(request: &Request) -> Reply {
    let host = request.header("host").unwrap_or_default();
    if request.target.starts_with("/token") {
        let form = String::from_utf8_lossy(&request.body).into_owned();
        let has = |pair: &str| form.split('&').any(|own| own == pair);
        let right = has("grant_type=refresh_token") && has("refresh_token=l0ng+lived") && has("service=s");
        let right = right && has("scope=repository%3Aa%3Apull") && has("client_id=hull");
        let secret_stays = !request.target.contains("l0ng") && request.header("authorization").is_none();
        return match request.method == "POST" && right && secret_stays {
            true => Reply::new(200, r#"{"access_token":"sh0rt","expires_in":60}"#),
            false => Reply::new(401, ""),
        };
    }
    if request.header("authorization") != Some("Bearer sh0rt") {
        let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"s\"");
        return Reply::new(401, "").header("WWW-Authenticate", &challenge);
    }
    honest(request)
}

#[test]
fn an_identity_token_is_exchanged_for_a_short_lived_one() {
    let server = Server::start(with_identity_token);
    let place = Place::new(&server.host());
    let login = |token: &str| {
        let auth = json!({"auths": {server.host(): {"auth": "", "identitytoken": token}}});
        fs::write(place.folder.path().join("etc/auth.json"), auth.to_string()).unwrap();
    };
    login("another");
    let name = format!("{}/a:1", server.host());
    let error = place.pull(&name, HTTP).map(|_| ()).unwrap_err();
    assert!(*error.kind() == Kind::Unauthorized && !chain(&error).contains("another"), "{}", chain(&error));
    login("l0ng lived");
    place.pull(&name, HTTP).unwrap();
    let tokens = || server.seen().iter().filter(|request| request.target == "/token").count();
    assert_eq!(tokens(), 2, "one token does for all layers");
    // Nobody hears it over plain HTTP whom the user has not allowed.
    let error = Place::new(&server.host()).pull(&name, Insecure::default()).map(|_| ()).unwrap_err();
    assert!(*error.kind() == Kind::Unauthorized);
    let heard = |request: &Request| String::from_utf8_lossy(&request.body).contains("l0ng");
    assert_eq!(server.seen().iter().filter(|request| heard(request)).count(), 1);
}

#[test]
fn an_identity_token_follows_no_redirect() {
    let thief = Server::start(|_| Reply::new(200, r#"{"token":"x"}"#));
    let elsewhere = thief.url("/token");
    let server = Server::start(move |request| match request.target.starts_with("/token") {
        true => Reply::new(307, "").header("Location", &elsewhere),
        false => with_identity_token(request),
    });
    let place = Place::new(&server.host());
    let auth = json!({"auths": {server.host(): {"identitytoken": "l0ng lived"}}});
    fs::write(place.folder.path().join("etc/auth.json"), auth.to_string()).unwrap();
    place.pull(&format!("{}/a:1", server.host()), HTTP).map(|_| ()).unwrap_err();
    assert!(thief.seen().is_empty());
}

#[test]
fn referrers_come_in_pages_and_by_the_older_tag() {
    const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
    let entry = |bytes: &[u8]| {
        let mut entry = descriptor(MANIFESTS[0], bytes);
        entry["artifactType"] = BUNDLE.into();
        entry
    };
    let index = move |entries: &[&[u8]]| {
        let entries: Vec<_> = entries.iter().map(|bytes| entry(bytes)).collect();
        let text = json!({"schemaVersion": 2, "mediaType": INDEXES[0], "manifests": entries}).to_string();
        Reply::new(200, text).header("Content-Type", &INDEXES[0])
    };
    type Answering = Box<dyn Fn(&Request) -> Option<Reply> + Send + Sync>;
    let found = |answer: Answering| {
        let server = Server::start(move |request| answer(request).unwrap_or_else(|| honest(request)));
        let place = Place::new(&server.host());
        let registry = place.registry(HTTP);
        let name = Name::parse(&format!("{}/a:1", server.host())).unwrap();
        let resolved = registry.resolve(&name, &place.blobs).unwrap();
        resolved.referrers(&digest(&image()))
    };
    let want = [b"1", b"2", b"3"].map(|bytes| (digest(bytes), BUNDLE.to_owned()));
    let paged = found(Box::new(move |request| {
        let rest = request.target.strip_prefix(&format!("/v2/a/referrers/{}", digest(&image())))?;
        // The address leads elsewhere, and only what it asks for counts.
        let link = "<https://elsewhere.example/v2/b/referrers/x?last=2>; rel=\"next\"";
        Some(if rest.is_empty() { index(&[b"1", b"2"]).header("Link", &link) } else { index(&[b"3"]) })
    }));
    assert_eq!(paged.unwrap(), want);
    let tagged = found(Box::new(move |request| {
        let tag = format!("/v2/a/manifests/{}", digest(&image()).to_string().replace(':', "-"));
        match &request.target {
            target if target.contains("/referrers/") => Some(Reply::new(404, "")),
            target if *target == tag => Some(index(&[b"1", b"2", b"3"])),
            _ => None,
        }
    }));
    assert_eq!(tagged.unwrap(), want);
    let endless = found(Box::new(move |request| {
        let link = "</v2/a/referrers/x?more>; rel=\"next\"";
        request.target.contains("/referrers/").then(|| index(&[b"1"]).header("Link", &link))
    }));
    assert_eq!(*endless.unwrap_err().kind(), Kind::TooLarge);
}

#[test]
fn plain_http_is_for_registries_that_are_configured() {
    let server = Server::start(honest);
    let place = Place::new("other.example");
    let error = place.pull(&format!("{}/a:1", server.host()), HTTP).map(|_| ()).unwrap_err();
    assert_eq!(*error.kind(), Kind::Network);
    assert!(server.seen().iter().all(|request| !request.target.starts_with('/')));
}

/// Debian's registry, killed when dropped.
struct Distribution {
    child: Child,
    _folder: TempDir,
    host: String,
}

impl Distribution {
    fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let host = format!("127.0.0.1:{port}");
        let conf = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"{host}\"}}\n",
            folder.path().join("data").display()
        );
        let path = folder.path().join("conf.yml");
        fs::write(&path, conf).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&path).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("install docker-registry");
        let started = Instant::now();
        while std::net::TcpStream::connect(&host).is_err() {
            assert!(started.elapsed() < Duration::from_secs(30), "docker-registry does not start");
            std::thread::yield_now();
        }
        Self { child, _folder: folder, host }
    }
}

impl Drop for Distribution {
    fn drop(&mut self) {
        let _ = self.child.kill(); // It may have ended.
        let _ = self.child.wait(); // Likewise.
    }
}

#[test]
fn skopeo_pushes_and_we_pull() {
    let distribution = Distribution::start();
    let host = &distribution.host;
    let folder = TempDir::new().unwrap();
    let layout = folder.path().join("layout");
    // An empty archive is two empty blocks; this one is a layer of a real image in shape only.
    let layer = vec![0; 10_240];
    let diff = json!([digest(&layer)]);
    let config = json!({"os": "linux", "architecture": crate::config::host_architecture(),
        "config": {}, "rootfs": {"type": "layers", "diff_ids": diff}})
    .to_string()
    .into_bytes();
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFESTS[0],
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)]})
    .to_string()
    .into_bytes();
    fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    for bytes in [&layer, &config, &manifest] {
        fs::write(layout.join("blobs/sha256").join(digest(bytes).hex()), bytes).unwrap();
    }
    let index = json!({"schemaVersion": 2, "manifests": [descriptor(MANIFESTS[0], &manifest)]}).to_string();
    fs::write(layout.join("index.json"), index).unwrap();
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let push = |tag: &str, arguments: &[&str]| {
        let mut skopeo = Command::new("skopeo");
        skopeo.args(["copy", "--insecure-policy", "--dest-tls-verify=false"]).args(arguments);
        skopeo.arg(format!("oci:{}", layout.display())).arg(format!("docker://{host}/team/app:{tag}"));
        let output = skopeo.output().expect("install skopeo");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    push("oci", &[]);
    push("v2s2", &["--format", "v2s2"]);
    push("zstd", &["--dest-compress-format", "zstd"]);
    let place = Place::new(host);
    for tag in ["oci", "v2s2", "zstd"] {
        let name = Name::parse(&format!("{host}/team/app:{tag}")).unwrap();
        let head = place.registry(HTTP).digest_of(&name).unwrap();
        let (named, prepared) = place.pull(&name.to_string(), HTTP).unwrap();
        assert_eq!((head, prepared.layers.len()), (Some(named), 1));
    }
    let missing = place.pull(&format!("{host}/team/app:none"), HTTP).map(|_| ()).unwrap_err();
    assert_eq!(*missing.kind(), Kind::NotFound);
}

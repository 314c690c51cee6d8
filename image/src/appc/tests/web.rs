//! URLs, discovery, credentials, redirects, what is remembered.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

const NAME: &str = "example.com/app";

/// A signed image.
struct Signed {
    image: Vec<u8>,
    signature: Vec<u8>,
}

impl Signed {
    fn new(place: &Place, name: &str) -> Arc<Self> {
        let image = aci(&manifest(name, "1"), &[("a", "from a")]);
        let signature = place.signer.sign(&image);
        Arc::new(Self { image, signature })
    }

    fn reply(&self, request: &Request) -> Reply {
        match request.target.split('?').next() {
            Some(path) if path.ends_with(".aci") => {
                Reply::part(request, &self.image).header("ETag", &"\"1\"")
            }
            Some(path) if path.ends_with(".aci.asc") => Reply::new(200, self.signature.clone()),
            _ => Reply::new(404, ""),
        }
    }
}

#[test]
fn an_image_comes_with_its_signature_and_is_what_it_says() {
    let place = Place::new();
    let signed = Signed::new(&place, NAME);
    let host = Host::start(&place.authority, move |request| signed.reply(request));
    let got = place.by_url(&FetchOptions::default(), &host.url("/x.aci")).unwrap();
    assert!(got.converted && got.image.name == "example.com/app:1");
    assert_eq!(place.files(&got), [("a".to_owned(), "from a".to_owned())]);
    assert_eq!(host.targets(), ["/x.aci.asc", "/x.aci"], "the signature comes first");
    assert_eq!(host.seen()[0].header("user-agent"), Some(concat!("hull/", env!("CARGO_PKG_VERSION"))));
    assert!(place.noted("signature verified: Tess Ter <tess@example.com>"));
    // The store has it now.
    assert!(!place.by_url(&FetchOptions::default(), &host.url("/x.aci")).unwrap().converted);
    assert!(!place.by_name(&FetchOptions::default(), NAME).unwrap().converted);
    assert_eq!(host.seen().len(), 2);
}

#[test]
fn nothing_is_read_of_what_nobody_trusted_signed() {
    let place = Place::without_converter();
    let signed = Signed::new(&place, NAME);
    let other =
        Arc::new(Signed { image: signed.image.clone(), signature: Signer::new().sign(&signed.image) });
    let changed =
        Arc::new(Signed { image: [&signed.image, &b"x"[..]].concat(), signature: signed.signature.clone() });
    let options = FetchOptions::default();
    for (signed, text) in [(other, "signature"), (changed, "signature")] {
        let host = Host::start(&place.authority, move |request| signed.reply(request));
        refused(place.by_url(&options, &host.url("/x.aci")), Kind::Untrusted, text);
    }
    let host = Host::start(&place.authority, |_| Reply::new(404, ""));
    refused(place.by_url(&options, &host.url("/x.aci")), Kind::Untrusted, "--insecure-options=image");
    assert_eq!(host.targets(), ["/x.aci.asc"], "without a signature no image is asked for");
}

#[test]
fn a_key_for_other_names_is_none() {
    let place = Place::without_converter();
    place.distrust();
    place.trust(&Scope::prefix("example.org").unwrap(), &place.signer);
    let host = discovered(&place, "app", |metas| metas);
    let name = format!("{}/app", host.address());
    // It fails before anything of the image is read, for the name is known.
    refused(place.by_name(&FetchOptions::default(), &name), Kind::Untrusted, "not for that name");
}

/// A host that leads from its top to `/images/NAME` and has an image there.
fn discovered(place: &Place, path: &str, metas: fn(Vec<String>) -> Vec<String>) -> Host {
    let (image, path) = (Arc::<Mutex<Option<Arc<Signed>>>>::default(), path.to_owned());
    let kept = Arc::clone(&image);
    let host = Host::start(&place.authority, move |request| {
        let address = request.header("host").unwrap().to_owned();
        match &*request.target {
            "/?ac-discovery=1" => page(&metas(vec![
                format!("name=ac-discovery content='{address} https://{address}/none/{{name}}.{{ext}}'"),
                format!(
                    "name=ac-discovery content='{address} https://{address}/images/{{name}}-{{version}}.{{ext}}'"
                ),
            ])),
            target if target.starts_with("/images/") => {
                kept.lock().unwrap().as_ref().map_or(Reply::new(404, ""), |image| image.reply(request))
            }
            _ => Reply::new(404, ""),
        }
    });
    *image.lock().unwrap() = Some(Signed::new(place, &format!("{}/{path}", host.address())));
    host
}

#[test]
fn discovery_walks_up_and_tries_every_place() {
    let place = Place::new();
    let host = discovered(&place, "deep/app", |metas| metas);
    let name = format!("{}/deep/app", host.address());
    let got = place.by_name(&FetchOptions::default(), &name).unwrap();
    assert_eq!(got.image.name, format!("{name}:1"));
    let address = host.address();
    assert_eq!(
        host.targets(),
        [
            "/deep/app?ac-discovery=1".to_owned(),
            "/deep?ac-discovery=1".to_owned(),
            "/?ac-discovery=1".to_owned(),
            format!("/none/{address}/deep/app.aci.asc"),
            format!("/images/{address}/deep/app-latest.aci.asc"),
            format!("/images/{address}/deep/app-latest.aci"),
        ]
    );
    // From the store, by the labels it has.
    assert!(!place.by_name(&FetchOptions::default(), &format!("{name}:1")).unwrap().converted);
    assert_eq!(host.seen().len(), 6);
    let never = FetchOptions { pull: PullPolicy::Never, ..FetchOptions::default() };
    assert!(!place.by_name(&never, &name).unwrap().converted);
    refused(place.by_name(&never, &format!("{name}:2")), Kind::NotFound, "--pull-policy=never");
    assert_eq!(host.seen().len(), 6);
}

#[test]
fn the_image_must_be_the_one_that_was_asked_for() {
    let place = Place::new();
    let host = discovered(&place, "other", |metas| metas);
    let options = FetchOptions::default();
    let name = |rest: &str| format!("{}/{rest}", host.address());
    refused(place.by_name(&options, &name("app")), Kind::Corrupt, "expected but");
    refused(
        place.by_name(&options, &name("other:2")),
        Kind::Corrupt,
        "differs from fetched aci label value: \"1\"",
    );
    refused(place.by_name(&options, &name("other,x=y")), Kind::Corrupt, "requested label \"x\" not provided");
}

#[test]
fn plain_http_leads_nowhere_unless_the_user_says_so() {
    let place = Place::new();
    let signed = Signed::new(&place, NAME);
    let host = Host::start(&place.authority, move |request| signed.reply(request));
    place.setting("auth.d/a.json", &basic(host.address()));
    let url: url::Url = host.url("/x.aci").as_str().replace("https:", "http:").parse().unwrap();
    place.by_url(&FetchOptions::default(), &url).unwrap();
    assert!(host.seen().iter().all(|request| request.header("authorization").is_none()));
    let http =
        FetchOptions { pull: PullPolicy::Update, ..insecure(Insecure { http: true, ..Insecure::default() }) };
    place.by_url(&http, &url).unwrap();
    assert!(host.seen().last().unwrap().header("authorization").is_some());
}

#[test]
fn discovery_falls_back_to_http_only_if_it_may() {
    let place = Place::without_converter();
    let elsewhere = Authority::new();
    let host = Host::start(&elsewhere, |request| {
        let address = request.header("host").unwrap();
        page(&[format!("name=ac-discovery content='{address} http://{address}/{{name}}.{{ext}}'")])
    });
    let name = format!("{}/app", host.address());
    refused(place.by_name(&FetchOptions::default(), &name), Kind::NotFound, "certificate");
    assert!(host.seen().is_empty());
    let http = insecure(Insecure { http: true, ..Insecure::default() });
    refused(place.by_name(&http, &name), Kind::Untrusted, "signature");
    assert!(host.targets().contains(&"/app?ac-discovery=1".to_owned()));
}

fn basic(domain: &str) -> Value {
    json!({ "hullKind": "auth", "hullVersion": "v1", "domains": [domain], "type": "basic",
            "credentials": { "user": "tess", "password": "secret" } })
}

#[test]
fn each_kind_of_credentials_is_sent_to_its_host_only() {
    let place = Place::new();
    let signed = Signed::new(&place, NAME);
    let image = Arc::clone(&signed);
    let other = Host::start(&place.authority, move |request| image.reply(request));
    let there = other.address().to_owned();
    let image = Arc::clone(&signed);
    let host = Host::start(&place.authority, move |request| match request.header("authorization") {
        None => Reply::new(401, ""),
        Some(_) if request.target.ends_with(".aci") => {
            Reply::new(302, "").header("Location", &format!("https://{there}{}", request.target))
        }
        Some(_) => image.reply(request),
    });
    refused(place.by_url(&update(), &host.url("/0.aci")), Kind::Unauthorized, "401");
    let kind = |kind: &str, credentials: Value| {
        json!({ "rktKind": "auth", "rktVersion": "v1", "domains": [host.address()], "type": kind,
                "credentials": credentials })
    };
    let aws = json!({ "accessKeyID": "AKIA", "secretAccessKey": "secret", "awsRegion": "eu-west-1" });
    for (index, (setting, start)) in [
        (basic(host.address()), "Basic dGVzczpzZWNyZXQ="),
        (kind("oauth", json!({ "token": "t0ken" })), "Bearer t0ken"),
        (kind("aws", aws), "AWS4-HMAC-SHA256 Credential=AKIA/20"),
    ]
    .into_iter()
    .enumerate()
    {
        place.setting("auth.d/a.json", &setting);
        place.by_url(&update(), &host.url(&format!("/{}.aci", index + 1))).unwrap();
        let last = host.seen().pop().unwrap();
        assert!(last.header("authorization").unwrap().starts_with(start), "{last:?}");
    }
    assert!(other.seen().len() == 3 && other.seen().iter().all(|r| r.header("authorization").is_none()));
    assert!(other.seen().iter().all(|request| request.header("referer").is_none()));
}

#[test]
fn redirects_are_followed_ten_times_and_never_to_plain_http() {
    let place = Place::new();
    let signed = Signed::new(&place, NAME);
    let host = Host::start(&place.authority, move |request| {
        let address = request.header("host").unwrap().to_owned();
        let count = request
            .target
            .strip_prefix("/hops/")
            .and_then(|rest| rest.split('/').next()?.parse::<u32>().ok());
        let to = |to: String| Reply::new(302, "").header("Location", &to);
        match count {
            Some(count) if count > 0 => to(format!("/hops/{}/x.aci", count - 1)),
            _ if request.target.starts_with("/plain") => to(format!("http://{address}/x.aci")),
            _ => signed.reply(request),
        }
    });
    let options = insecure(Insecure { image: true, ..Insecure::default() });
    place.by_url(&options, &host.url("/hops/10/x.aci")).unwrap();
    refused(place.by_url(&options, &host.url("/hops/11/x.aci")), Kind::Network, "more than 10 redirects");
    refused(place.by_url(&options, &host.url("/plain/x.aci")), Kind::Network, "leads from https to http:");
}

#[test]
fn a_cut_download_goes_on_if_the_state_is_known() {
    for validated in [true, false] {
        let place = Place::new();
        let signed = Signed::new(&place, NAME);
        let size = signed.image.len();
        let (sent, served) = (Arc::new(AtomicUsize::new(0)), Arc::clone(&signed));
        let counted = Arc::clone(&sent);
        let host = Host::start(&place.authority, move |request| {
            if !request.target.ends_with(".aci") {
                return served.reply(request);
            }
            let reply = Reply::part(request, &served.image);
            let reply = if validated { reply.header("ETag", &"\"1\"") } else { reply };
            let rest = size - request.first().unwrap_or(0);
            // Nothing but the second try brings all that it is asked for.
            let is_first = counted.fetch_add(0, Ordering::SeqCst) == 0;
            let count = if is_first { 100 } else { rest };
            counted.fetch_add(count, Ordering::SeqCst);
            reply.cut_after(count)
        });
        place.by_url(&FetchOptions::default(), &host.url("/x.aci")).unwrap();
        let asked: Vec<_> = host.seen().iter().filter(|r| r.target == "/x.aci").map(Request::first).collect();
        let (asked_for, sent_for) = if validated { (Some(100), size) } else { (None, size + 100) };
        assert_eq!((&*asked, sent.load(Ordering::SeqCst)), (&[None, asked_for][..], sent_for));
    }
}

#[test]
fn what_has_not_changed_is_not_sent_again() {
    let place = Place::new();
    let signed = Signed::new(&place, NAME);
    let host = Host::start(&place.authority, move |request| {
        let fresh = request.target.starts_with("/fresh");
        let reply = match request.header("if-none-match") {
            Some("\"1\"") => Reply::new(304, "").header("ETag", &"\"1\""),
            _ => signed.reply(request),
        };
        if fresh { reply.header("Cache-Control", &"max-age=600") } else { reply }
    });
    let stale = host.url("/x.aci");
    let images = |host: &Host| host.seen().iter().filter(|r| r.target.ends_with(".aci")).count();
    let first = place.by_url(&update(), &stale).unwrap();
    let second = place.by_url(&update(), &stale).unwrap();
    assert!(first.converted && !second.converted && first.image.id == second.image.id);
    assert_eq!(images(&host), 2);
    assert_eq!(host.seen().last().unwrap().header("if-none-match"), Some("\"1\""));
    assert!(place.noted("has not changed"));
    assert_eq!(fs::read_dir(place.path("store/partial")).unwrap().count(), 0, "nothing came");
    let fresh = host.url("/fresh.aci");
    place.by_url(&update(), &fresh).unwrap();
    let before = host.seen().len();
    place.by_url(&update(), &fresh).unwrap();
    assert_eq!(host.seen().len(), before);
    assert!(place.noted("isn't expired, not fetching"));
}

#[test]
fn what_came_unsigned_is_fetched_again_when_signatures_count() {
    let place = Place::new();
    let signed = Signed::new(&place, NAME);
    let host = Host::start(&place.authority, move |request| match request.header("if-none-match") {
        Some(_) => Reply::new(304, ""),
        None if request.target.ends_with(".asc") => Reply::new(404, ""),
        None => signed.reply(request),
    });
    let url = host.url("/x.aci");
    place.by_url(&insecure(Insecure { image: true, ..Insecure::default() }), &url).unwrap();
    refused(place.by_url(&FetchOptions::default(), &url), Kind::Untrusted, "no signature");
}

#[test]
fn a_signature_that_is_still_made_is_asked_for_again() {
    let place = Place::new();
    let signed = Signed::new(&place, NAME);
    let asked = AtomicUsize::new(0);
    let host = Host::start(&place.authority, move |request| {
        let later = request.target.starts_with("/never") || asked.fetch_add(1, Ordering::SeqCst) == 0;
        if request.target.ends_with(".asc") && later { Reply::new(202, "") } else { signed.reply(request) }
    });
    place.by_url(&FetchOptions::default(), &host.url("/x.aci")).unwrap();
    assert_eq!(host.targets(), ["/x.aci.asc", "/x.aci", "/x.aci.asc"]);
    refused(
        place.by_url(&FetchOptions::default(), &host.url("/never.aci")),
        Kind::Untrusted,
        "still has to make it",
    );
}

#[test]
fn public_keys_are_discovered_and_may_be_trusted_at_once() {
    let place = Place::new();
    place.distrust();
    let public = place.signer.public();
    let keys = Host::start(&place.authority, move |_| Reply::new(200, public.clone()));
    static KEYS: OnceLock<String> = OnceLock::new();
    KEYS.set(keys.address().to_owned()).unwrap();
    let host = discovered(&place, "app", |mut metas| {
        let prefix = metas[0].split('\'').nth(1).unwrap().split(' ').next().unwrap().to_owned();
        metas.push(format!(
            "name=ac-discovery-pubkeys content='{prefix} https://{}/k.asc'",
            KEYS.get().unwrap()
        ));
        metas
    });
    let name = format!("{}/app", host.address());
    let parsed = Name::parse(&name).unwrap();
    let found = place.with(&FetchOptions::default(), |fetcher| fetcher.public_keys(&parsed)).unwrap();
    assert_eq!((found.len(), &found[0].1), (1, &place.signer.public()));
    refused(place.by_name(&FetchOptions::default(), &name), Kind::Untrusted, "");
    place.by_name(&FetchOptions { trust_keys_from_https: true, ..FetchOptions::default() }, &name).unwrap();
    assert!(place.noted("Added key for prefix"));
    // Where somebody has said whose keys count, a page adds none.
    let settled = Place { folder: TempDir::new().unwrap(), notes: Notes::default(), ..place };
    settled.trust(&Scope::prefix(host.address()).unwrap(), &Signer::new());
    let options = FetchOptions { trust_keys_from_https: true, ..FetchOptions::default() };
    refused(settled.by_name(&options, &name), Kind::Untrusted, "signature");
    assert!(!settled.noted("Added key"));
    // A key for everything says nothing of this name.
    settled.distrust();
    settled.trust(&Scope::ROOT, &Signer::new());
    settled.by_name(&options, &name).unwrap();
}

/// Started by the test below in a process of its own: environments belong to whole processes.
#[test]
fn child_of_the_test_below() {
    let Ok(url) = std::env::var("HULL_TEST_URL") else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let trust = crate::transport::client::Trust::Authorities(Vec::new());
    let got = crate::transport::client::client(&trust)
        .map(|client| runtime.block_on(async { client.get(url).send().await }));
    println!(
        "[{}]",
        got.map_or("no authorities".into(), |got| got.map_or("refused".into(), |r| r.status().to_string()))
    );
}

#[test]
fn authorities_are_those_of_the_host_or_of_the_environment() {
    let place = Place::without_converter();
    let host = Host::start(&place.authority, |_| Reply::new(200, ""));
    let folder = place.path("certificates");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("own.pem"), place.authority.pem()).unwrap();
    fs::write(place.path("empty.pem"), "").unwrap();
    let hash =
        Command::new("openssl").args(["x509", "-hash", "-noout", "-in"]).arg(folder.join("own.pem")).output();
    let hash = String::from_utf8(hash.expect("run openssl (apt-get install openssl)").stdout).unwrap();
    fs::copy(folder.join("own.pem"), folder.join(format!("{}.0", hash.trim()))).unwrap();
    for (variable, value, want) in [
        ("SSL_CERT_FILE", folder.join("own.pem"), "[200 OK]"),
        ("SSL_CERT_DIR", folder.clone(), "[200 OK]"),
        ("SSL_CERT_FILE", place.path("empty.pem"), "[no authorities]"),
        ("HULL_TEST_NOTHING", folder.clone(), "[refused]"),
    ] {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "appc::tests::web::child_of_the_test_below", "--nocapture"])
            .env_remove("SSL_CERT_FILE")
            .env_remove("SSL_CERT_DIR")
            .env("HULL_TEST_URL", host.url("/").as_str())
            .env(variable, value)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains(want), "{variable}: {said}");
    }
    // Or nobody's are asked for.
    let tls = insecure(Insecure { tls: true, ..Insecure::default() });
    let elsewhere = Host::start(&Authority::new(), |_| Reply::new(404, ""));
    refused(place.by_url(&tls, &elsewhere.url("/x.aci")), Kind::Untrusted, "no signature");
    assert_eq!(elsewhere.seen().len(), 1);
}

//! App Container Images of other hosts: found, fetched, resumed, believed.

use std::fs;
use std::process::Command;

use hull_tests::Hull;
use hull_tests::hull::{Ended, finish, until};
use hull_tests::image::Builder;
use hull_tests::signer::Signer;
use hull_tests::terminal::Terminal;
use hull_tests::web::Web;
use nix::sys::signal::Signal;

/// What the images are called that [`Builder::aci`] makes; the label makes it an ACI's name.
const NAME: &str = "example.com/busybox,os=linux";
/// Where discovery leads, and where everybody can get it from.
const PATH: &str = "/images/example.com/busybox-latest.aci";
const URL: &str = "https://example.com/images/example.com/busybox-latest.aci";

/// A host with an image, its signature and the key, and a hull that trusts nobody.
struct Fixture {
    hull: Hull,
    web: Web,
    archive: Vec<u8>,
    _ann: Signer,
}

impl Fixture {
    fn new() -> Self {
        let (web, ann) = (Web::new(&["example.com"]), Signer::new("Ann <ann@example.com>"));
        let image = Builder::standard().aci();
        let archive = fs::read(image.path()).expect("just made");
        web.put(PATH, archive.clone());
        web.put(&format!("{PATH}.asc"), ann.sign(image.path()));
        web.put("/ann.asc", ann.public_key());
        let page = "<html><head>\
            <meta name=\"ac-discovery\" content=\"example.com https://example.com/images/{name}-{version}.{ext}\">\
            <meta name=\"ac-discovery-pubkeys\" content=\"example.com https://example.com/ann.asc\"></head></html>";
        web.put("/busybox?ac-discovery=1", page);
        web.put("/?ac-discovery=1", page);
        Self { hull: Hull::new(), web, archive, _ann: ann }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.hull.command(args);
        self.web.lead(&mut command);
        command
    }

    fn hull(&self, args: &[&str]) -> Ended {
        finish(self.command(args))
    }

    /// Trusts what the host says is its key.
    fn trust(&self) {
        self.hull(&["trust", "--prefix=example.com", "--skip-fingerprint-review"]).success();
    }
}

#[test]
fn an_image_is_fetched_by_its_url_and_by_its_name() {
    let fixture = Fixture::new();
    fixture.hull(&["fetch", URL]).failure(&["hull trust --prefix"]);
    fixture.hull(&["fetch", "--pull-policy=never", URL]).failure(&[URL, "--pull-policy=never"]);
    fixture.trust();
    let ended = fixture.hull(&["fetch", "--full", URL]);
    assert!(ended.stderr().contains("signature verified: Ann <ann@example.com>"), "{}", ended.stderr());
    let id = ended.success();
    assert_eq!(fixture.hull(&["fetch", "--full", NAME]).success(), id);
    assert_eq!(fixture.hull(&["run", "--stage1=fly", NAME, "--", "me"]).success(), "from the image me\n");
    // From now on it is there, whoever is not.
    let asked = fixture.web.count(PATH);
    assert_eq!(fixture.hull(&["fetch", "--full", "--pull-policy=new", URL]).success(), id);
    assert_eq!(fixture.hull.hull(&["fetch", "--full", "--pull-policy=never", NAME]).success(), id);
    assert_eq!(fixture.web.count(PATH), asked);
}

#[test]
fn keys_are_found_where_discovery_leads() {
    let fixture = Fixture::new();
    let added = |ended: Ended| assert!(ended.success().starts_with("Added key for prefix \"example.com"));
    added(fixture.hull(&["trust", "--prefix=example.com/busybox", "--skip-fingerprint-review"]));
    added(fixture.hull(&["trust", "--prefix=example.com", "--trust-keys-from-https"]));
    added(fixture.hull(&[
        "trust",
        "--prefix=example.com",
        "--skip-fingerprint-review",
        "https://example.com/ann.asc",
    ]));
    fixture.hull(&["trust", "--prefix=example.com"]).failure(&["no terminal", "--skip-fingerprint-review"]);
    let plain = ["trust", "--prefix=example.com", "http://example.com/ann.asc"];
    fixture.hull(&plain).failure(&["http://example.com/ann.asc", "https only"]);
    fixture.hull(&["trust", "--root", "https://example.com/nobody.asc"]).failure(&["nobody.asc"]);
}

#[test]
fn a_server_that_nobody_vouches_for_is_not_believed() {
    let fixture = Fixture::new();
    let fetch = |insecure: &str| {
        let mut command = fixture.command(&["fetch", insecure, URL]);
        command.env_remove("SSL_CERT_FILE");
        finish(command)
    };
    fetch("--insecure-options=image").failure(&[URL, "certificate"]);
    fetch("--insecure-options=image,tls").success();
}

#[test]
fn where_nobody_watches_a_transfer_has_two_lines() {
    let fixture = Fixture::new();
    let ended = fixture.hull(&["fetch", "--insecure-options=image", URL]);
    let lines: Vec<String> = ended.stderr().lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with("fetching ") && lines[0].ends_with(".aci"), "{lines:?}");
    assert!(lines[1].starts_with("fetched ") && lines[1].ends_with(" s"), "{lines:?}");
    assert_eq!(ended.success().lines().count(), 1);
    let other = Hull::new();
    let mut command = other.command(["fetch", "--quiet", "--insecure-options=image", URL]);
    fixture.web.lead(&mut command);
    let quiet = finish(command);
    assert_eq!(quiet.stderr(), "");
    quiet.success();
}

#[test]
fn somebody_at_a_terminal_sees_a_bar() {
    let fixture = Fixture::new();
    fixture.web.stall_once(PATH, fixture.archive.len() / 2);
    let mut terminal = Terminal::run(fixture.command(&["fetch", "--insecure-options=image", URL]), 24, 160);
    // The bar, how much of how much, the rate, and the time left at the end.
    terminal.await_text("[=");
    terminal.await_text("/1.92 MiB");
    terminal.await_text("iB/s ");
}

#[test]
fn a_fetch_that_was_killed_goes_on_where_it_was() {
    let fixture = Fixture::new();
    fixture.web.stall_once(PATH, fixture.archive.len() / 2);
    let args = ["fetch", "--insecure-options=image", URL];
    let partial = || {
        let folder = fs::read_dir(fixture.hull.dir().join("images/partial"));
        let files = folder.into_iter().flatten().flatten().filter_map(|file| file.metadata().ok());
        files.map(|file| file.len()).max().unwrap_or(0)
    };
    let first = fixture.hull.spawn_command(fixture.command(&args));
    until("half of it is there", || partial() >= fixture.archive.len() as u64 / 2);
    first.signal(Signal::SIGKILL);
    assert_eq!(first.wait().code, -9);
    let ended = fixture.hull(&args);
    assert!(ended.stderr().contains("are there"), "{}", ended.stderr());
    ended.success();
    assert_eq!(partial(), 0);
    fixture.hull(&["run", "--stage1=fly", "--insecure-options=image", URL]).success();
}

#[test]
fn two_that_want_the_same_fetch_it_once() {
    let fixture = Fixture::new();
    let fetch = || {
        fixture.hull.spawn_command(fixture.command(&[
            "fetch",
            "--insecure-options=image",
            "--pull-policy=new",
            URL,
        ]))
    };
    let (first, second) = (fetch(), fetch());
    let (first, second) = (first.wait(), second.wait());
    assert_eq!(first.success(), second.success());
    assert_eq!(fixture.web.count(PATH), 1);
}

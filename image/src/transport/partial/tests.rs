//! Downloads that are cut, held, left behind and lied to.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tempfile::TempDir;

use super::*;
use crate::Quiet;
use crate::transport::testing::{Reply, Request, Server};

/// Quick to lose patience, so that tests end.
const PATIENCE: Patience = Patience {
    tries: 4,
    first_wait: Duration::from_millis(1),
    wait_max: Duration::from_millis(4),
    asked_wait_max: Duration::from_secs(1),
    stall: Duration::from_millis(300),
    stall_bytes: 1000,
};

struct Web {
    client: reqwest::Client,
    url: String,
}

impl Web {
    fn of(server: &Server) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default(); // Another test may have been first.
        Self { client: reqwest::Client::builder().no_proxy().build().unwrap(), url: server.url("/x") }
    }
}

impl Source for Web {
    async fn open(&self, offset: u64, validator: Option<&str>) -> Result<Response, Failure> {
        let mut request = self.client.get(&self.url);
        if offset > 0 {
            request = request.header("Range", format!("bytes={offset}-"));
            if let Some(validator) = validator {
                request = request.header("If-Range", validator);
            }
        }
        request.send().await.map_err(|e| Failure::of(e, "fetch x"))
    }
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|i| u8::try_from(i * 7 % 251).unwrap()).collect()
}

fn sha256(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, bytes)
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn download(folder: &TempDir, server: &Server, identity: Identity<'_>) -> Result<Complete, Error> {
    let wanted = Wanted { what: "layer x", identity };
    run(async {
        let partial = Partials::new(folder.path().into()).lock("x", wanted.what, &Quiet).await?;
        partial.complete(&wanted, &Web::of(server), &PATIENCE, &Quiet).await
    })
}

fn by_digest<'a>(digest: &'a Digest, size: usize) -> Identity<'a> {
    Identity::Digest { digest, size: size as u64 }
}

const ANY: Identity<'_> = Identity::Validator { algorithm: Algorithm::Sha512, size_max: 1 << 20 };

fn content(complete: &Complete) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut file = complete.file();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

#[track_caller]
fn check_error(got: Result<Complete, Error>, kind: Kind, text: &str) {
    let error = got.expect_err("it must fail");
    let chain = hull_errors::chain(&error);
    assert!(*error.kind() == kind && chain.contains(text), "{:?}: {chain}", error.kind());
}

#[test]
fn a_cut_connection_costs_no_byte_twice() {
    let body = bytes(100_000);
    let (served, want) = (body.clone(), sha256(&body));
    let server = Server::start(move |request| Reply::part(request, &served).cut_after(30_000));
    let folder = TempDir::new().unwrap();
    let complete = download(&folder, &server, by_digest(&want, body.len())).unwrap();
    assert_eq!((content(&complete), complete.digest()), (body, &want));
    let firsts: Vec<_> = server.seen().iter().map(|request| request.first().unwrap_or(0)).collect();
    assert_eq!(firsts, [0, 30_000, 60_000, 90_000]);
    let path = folder.path().join("whole");
    complete.commit(&path).unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn what_a_dead_process_left_is_used() {
    let body = bytes(50_000);
    let (served, want) = (body.clone(), sha256(&body));
    let server = Server::start(move |request| Reply::part(request, &served));
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("x"), &body[..20_000]).unwrap();
    let complete = download(&folder, &server, by_digest(&want, body.len())).unwrap();
    assert_eq!(content(&complete), body);
    assert_eq!(server.seen().iter().map(Request::first).collect::<Vec<_>>(), [Some(20_000)]);
    // All of it was there already.
    drop(complete);
    download(&folder, &server, by_digest(&want, body.len())).unwrap();
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn what_a_dead_process_left_wrong_is_thrown_away() {
    let body = bytes(50_000);
    let (served, want) = (body.clone(), sha256(&body));
    let server = Server::start(move |request| Reply::part(request, &served));
    let folder = TempDir::new().unwrap();
    for left in [vec![0; 20_000], vec![0; 50_000], vec![0; 60_000]] {
        fs::write(folder.path().join("x"), left).unwrap();
        let complete = download(&folder, &server, by_digest(&want, body.len())).unwrap();
        assert_eq!(content(&complete), body);
    }
    assert_eq!(
        server.seen().iter().map(Request::first).collect::<Vec<_>>(),
        [Some(20_000), None, None, None]
    );
}

#[test]
fn other_bytes_are_refused_and_not_kept() {
    let want = sha256(&bytes(50_000));
    let check = |reply: Reply, text: &str| {
        let folder = TempDir::new().unwrap();
        let server = Server::start(move |_| reply.clone());
        check_error(download(&folder, &server, by_digest(&want, 50_000)), Kind::Corrupt, text);
        assert!(server.seen().len() <= 2, "{text}: {}", server.seen().len());
        let left = fs::metadata(folder.path().join("x")).map_or(0, |file| file.len());
        assert_eq!(left, 0, "{text}");
    };
    check(Reply::new(200, vec![1; 50_000]), "it has another digest: sha256:");
    check(Reply::new(200, vec![1; 50_001]), "the server has 50001 bytes, 50000 were announced");
    check(Reply::new(200, vec![1; 49_999]), "the server has 49999 bytes, 50000 were announced");
    check(Reply::new(200, vec![1; 50_001]).unknown_length(), "sends more than 50000 bytes");
    check(Reply::new(200, vec![1; 50_000]).endless(), "sends more than 50000 bytes");
}

#[test]
fn the_patience_ends() {
    let want = sha256(b"x");
    let check = |reply: Reply, tries: usize, kind: Kind, text: &str| {
        let folder = TempDir::new().unwrap();
        let server = Server::start(move |_| reply.clone());
        check_error(download(&folder, &server, by_digest(&want, 5000)), kind, text);
        assert_eq!(server.seen().len(), tries, "{text}");
    };
    check(
        Reply::new(503, ""),
        4,
        Kind::Network,
        "give up after 4 tries: download layer x: the server answers 503",
    );
    check(Reply::new(404, ""), 1, Kind::NotFound, "the server answers 404");
    check(
        Reply::new(403, r#"{"errors":[{"code":"DENIED","message":"no \u001b[31mway"}]}"#),
        1,
        Kind::Unauthorized,
        r"no \x1b[31mway",
    );
    check(
        Reply::new(429, "").header("Retry-After", &3600),
        1,
        Kind::Network,
        "the server asks to wait for 3600 seconds",
    );
    check(Reply::new(200, bytes(5000)).cut_after(0), 4, Kind::Network, "the connection broke");
    check(
        Reply::new(200, bytes(5000)).drip(Duration::from_millis(5)),
        4,
        Kind::Network,
        "next to nothing came in 0.3 s",
    );
    check(Reply::new(206, "x"), 4, Kind::Network, "does not say which part");
    check(Reply::new(302, "").header("Location", &"/x"), 11, Kind::Network, "redirect");
}

#[test]
fn a_server_that_recovers_is_waited_for() {
    let body = bytes(5000);
    let (served, want, count) = (body.clone(), sha256(&body), AtomicUsize::new(0));
    let server = Server::start(move |request| match count.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::new(503, ""),
        1 => Reply::new(429, "").header("Retry-After", &0),
        _ => Reply::part(request, &served),
    });
    let folder = TempDir::new().unwrap();
    assert_eq!(content(&download(&folder, &server, by_digest(&want, 5000)).unwrap()), body);
}

#[test]
fn a_server_without_ranges_is_asked_for_everything() {
    let body = bytes(90_000);
    let (served, want, count) = (body.clone(), sha256(&body), AtomicUsize::new(0));
    let server = Server::start(move |_| {
        let reply = Reply::new(200, served.clone());
        if count.fetch_add(1, Ordering::SeqCst) == 0 { reply.cut_after(40_000) } else { reply }
    });
    let folder = TempDir::new().unwrap();
    assert_eq!(content(&download(&folder, &server, by_digest(&want, body.len())).unwrap()), body);
    assert_eq!(server.seen().iter().map(Request::first).collect::<Vec<_>>(), [None, Some(40_000)]);
}

#[test]
fn pieces_of_two_states_are_never_joined() {
    let states = [bytes(60_000), vec![b'x'; 70_000]];
    let count = AtomicUsize::new(0);
    let served = states.clone();
    let server = Server::start(move |request| {
        let now = count.fetch_add(1, Ordering::SeqCst).min(1);
        let etag = format!("\"{now}\"");
        let same = request.header("if-range").is_none_or(|wanted| wanted == etag);
        let reply =
            if same { Reply::part(request, &served[now]) } else { Reply::new(200, served[now].clone()) };
        let reply = reply.header("ETag", &etag);
        if now == 0 { reply.cut_after(20_000) } else { reply }
    });
    let folder = TempDir::new().unwrap();
    let complete = download(&folder, &server, ANY).unwrap();
    assert_eq!((content(&complete), complete.validator()), (states[1].clone(), Some("\"1\"")));
    // The next process goes on where it is told to, and only there.
    let complete = {
        drop(complete);
        let file = OpenOptions::new().write(true).open(folder.path().join("x")).unwrap();
        file.set_len(10_000).unwrap();
        download(&folder, &server, ANY).unwrap()
    };
    assert_eq!(content(&complete), states[1]);
    drop(complete);
    download(&folder, &server, ANY).unwrap().remove();
    assert_eq!(
        server.seen().iter().map(Request::first).collect::<Vec<_>>(),
        [None, Some(20_000), Some(10_000), Some(70_000)]
    );
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn bytes_of_no_known_state_are_not_gone_on_with() {
    let server = Server::start(|request| Reply::part(request, &bytes(9000)));
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("x"), vec![0; 500]).unwrap();
    assert_eq!(content(&download(&folder, &server, ANY).unwrap()), bytes(9000));
    let server = Server::start(|_| Reply::new(200, vec![0; 1000]).endless());
    check_error(download(&folder, &server, ANY), Kind::TooLarge, "sends more than 1048576 bytes");
}

#[test]
fn two_that_want_the_same_download_it_once() {
    #[derive(Default)]
    struct Notes(Mutex<Vec<String>>);
    impl Progress for Notes {
        fn transfer(&self, _: &str, _: Option<u64>, _: u64) -> Box<dyn Transfer + '_> {
            Box::new(Quiet)
        }
        fn note(&self, text: &str) {
            self.0.lock().unwrap().push(text.to_owned());
        }
    }
    let folder = TempDir::new().unwrap();
    let partials = Partials::new(folder.path().into());
    let notes = Notes::default();
    run(async {
        let first = partials.lock("x", "layer x", &notes).await.unwrap();
        let second = partials.lock("x", "layer x", &notes);
        let mut second = std::pin::pin!(second);
        let waits = tokio::time::timeout(Duration::from_millis(1), second.as_mut()).await;
        assert!(waits.is_err());
        // Renamed, as into the store: the second one must get a file of its own.
        (&*first.file).write_all(b"whole").unwrap();
        let complete = Complete { partial: first, digest: sha256(b"whole"), validator: None };
        complete.commit(&folder.path().join("stored")).unwrap();
        let second = second.await.unwrap();
        assert_eq!(second.file.metadata().unwrap().len(), 0);
        assert_eq!(*notes.0.lock().unwrap(), ["waiting for another hull that downloads layer x"]);
        // Held, so not removed; then it is.
        assert_eq!(partials.remove_older(Duration::ZERO).unwrap(), 5);
        assert!(folder.path().join("x").exists());
        drop(second);
        partials.remove_older(Duration::ZERO).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    });
}

#[test]
fn ranges_are_read_strictly() {
    assert_eq!(content_range("bytes 5-9/10"), Some((5, Some(10))));
    assert_eq!(content_range("bytes 5-9/*"), Some((5, None)));
    for text in ["", "bytes */10", "bytes 5-9", "bytes 9-5/10", "bytes 5-10/10", "bits 5-9/10", "bytes a-b/c"]
    {
        assert_eq!(content_range(text), None, "{text}");
    }
}

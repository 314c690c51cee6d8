//! Web servers of other hosts: HTTPS with an authority of the test's own, reached through a proxy that leads
//! every name here.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tempfile::TempDir;

/// Longest head of a request that is read.
const HEAD_MAX: u64 = 64 << 10;

/// A certificate for `names` and the authority that signed it, as files.
#[derive(Debug)]
pub struct Certificate {
    folder: TempDir,
    config: Arc<ServerConfig>,
}

impl Certificate {
    pub fn new(names: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("hull-tls-").tempdir().expect("a temporary directory");
        let mut of_authority = CertificateParams::new([]).expect("no names");
        of_authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let authority = CertifiedIssuer::self_signed(of_authority, key).expect("an authority");
        let key = KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let params = CertificateParams::new(names).expect("names of hosts");
        let leaf = params.signed_by(&key, &authority).expect("a certificate");
        let write = |name: &str, text: String| fs::write(folder.path().join(name), text).expect("a new file");
        write("authority.pem", authority.pem());
        write("server.pem", leaf.pem());
        write("key.pem", key.serialize_pem());
        let client = KeyPair::generate().expect("a key");
        let of_client = CertificateParams::new(["ann.example.com".to_owned()]).expect("a name");
        let of_client = of_client.signed_by(&client, &authority).expect("a certificate");
        write("client.pem", of_client.pem());
        write("client-key.pem", client.serialize_pem());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring knows them")
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
            .expect("a key and its certificate");
        Self { folder, config: Arc::new(config) }
    }

    /// The path of `authority.pem`, `server.pem`, `key.pem`, and of `client.pem` and `client-key.pem`, which somebody
    /// else has of the same authority.
    pub fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }
}

/// What is at a path.
#[derive(Clone, Debug, Default)]
struct Page {
    body: Vec<u8>,
    /// After so many bytes the first answer goes no further until its reader leaves.
    stalls_after: Option<usize>,
    count: usize,
}

type Pages = Arc<Mutex<BTreeMap<String, Page>>>;

/// A server. It ends when it is dropped.
#[derive(Debug)]
pub struct Web {
    address: SocketAddr,
    certificate: Certificate,
    pages: Pages,
    over: Arc<AtomicBool>,
}

impl Web {
    /// A server that is all the hosts of `names`.
    pub fn new(names: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let web = Self {
            address: listener.local_addr().expect("bound"),
            certificate: Certificate::new(names),
            pages: Pages::default(),
            over: Arc::default(),
        };
        let (pages, over, config) = (web.pages.clone(), web.over.clone(), web.certificate.config.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let (pages, config) = (pages.clone(), config.clone());
                // A client that leaves in the middle is no matter of the server's.
                std::thread::spawn(move || serve(stream, &pages, &config));
            }
        });
        web
    }

    /// Puts `body` at `path`; what follows a question mark belongs to it.
    pub fn put(&self, path: &str, body: impl Into<Vec<u8>>) {
        self.page(path, |page| *page = Page { body: body.into(), ..Page::default() });
    }

    /// The next answer for `path` stops after `count` bytes.
    pub fn stall_once(&self, path: &str, count: usize) {
        self.page(path, |page| page.stalls_after = Some(count));
    }

    /// How often `path` was asked for.
    pub fn count(&self, path: &str) -> usize {
        let mut count = 0;
        self.page(path, |page| count = page.count);
        count
    }

    /// Lets a command find this server behind every name.
    pub fn lead(&self, command: &mut Command) {
        command.env("HTTPS_PROXY", format!("http://{}", self.address)).env_remove("NO_PROXY");
        command.env("SSL_CERT_FILE", self.certificate.file("authority.pem")).env_remove("SSL_CERT_DIR");
    }

    fn page(&self, path: &str, change: impl FnOnce(&mut Page)) {
        change(self.pages.lock().expect("no server panics").entry(path.to_owned()).or_default());
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address); // Wakes whoever accepts; gone already is as good.
    }
}

/// As a proxy for `CONNECT`, then as the server that was meant.
fn serve(mut stream: TcpStream, pages: &Pages, config: &Arc<ServerConfig>) -> Option<()> {
    let head = Head::read(&mut stream)?;
    if head.method != "CONNECT" {
        return stream.write_all(b"HTTP/1.1 405 Only CONNECT\r\nContent-Length: 0\r\n\r\n").ok();
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").ok()?;
    let tls = ServerConnection::new(config.clone()).ok()?;
    let mut stream = StreamOwned::new(tls, stream);
    loop {
        let head = Head::read(&mut stream)?;
        answer(&mut stream, &head, pages)?;
    }
}

struct Head {
    method: String,
    path: String,
    range: Option<usize>,
}

impl Head {
    fn read(stream: &mut impl Read) -> Option<Self> {
        // Byte by byte: what follows the head belongs to TLS.
        let mut reader = BufReader::with_capacity(1, stream.take(HEAD_MAX));
        let mut first = String::new();
        reader.read_line(&mut first).ok()?;
        let mut words = first.split_whitespace();
        let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
        let mut range = None;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? <= 2 {
                return Some(Self { method, path, range });
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("range: bytes=") {
                range = value.trim().trim_end_matches('-').parse().ok();
            }
        }
    }
}

fn answer(stream: &mut impl Write, head: &Head, pages: &Pages) -> Option<()> {
    let page = {
        let mut pages = pages.lock().ok()?;
        let page = pages.get_mut(&head.path).map(|page| {
            page.count += 1;
            let now = page.clone();
            page.stalls_after = None;
            now
        });
        page.filter(|page| !page.body.is_empty())
    };
    let Some(page) = page else {
        return stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").ok();
    };
    let (first, total) = (head.range.unwrap_or(0).min(page.body.len()), page.body.len());
    let status = match head.range {
        Some(_) => format!("206 Partial Content\r\nContent-Range: bytes {first}-{}/{total}", total - 1),
        None => "200 OK".to_owned(),
    };
    let tag = crate::image::hex(&page.body);
    write!(
        stream,
        "HTTP/1.1 {status}\r\nETag: \"{tag}\"\r\nAccept-Ranges: bytes\r\nContent-Length: {}\r\n\r\n",
        total - first
    )
    .ok()?;
    let body = &page.body[first..];
    let (now, later) = body.split_at(page.stalls_after.unwrap_or(body.len()).min(body.len()));
    stream.write_all(now).and_then(|()| stream.flush()).ok()?;
    if page.stalls_after.is_some() {
        // The rest never comes: whoever waits for it leaves or is killed.
        std::thread::park();
    }
    stream.write_all(later).and_then(|()| stream.flush()).ok()
}

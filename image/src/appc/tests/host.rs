//! A host of the web for tests: an address of its own on the loopback network, HTTPS on its port 443, HTTP on 80.
//!
//! Behind both is the plain server that can misbehave; a front hands bytes on.

use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use crate::transport::testing::{Reply, Request, Server};

/// Makes certificates for hosts.
pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(super) fn new() -> Self {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap())
    }

    pub(super) fn certificate(&self) -> reqwest::Certificate {
        reqwest::Certificate::from_der(self.0.der()).unwrap()
    }

    pub(super) fn pem(&self) -> String {
        self.0.pem()
    }

    fn configuration(&self, address: &str, clients: Option<&Authority>) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let parameters = CertificateParams::new(vec![address.to_owned()]).unwrap();
        let certificate = parameters.signed_by(&key, &self.0).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
        let builder = match clients {
            None => builder.unwrap().with_no_client_auth(),
            Some(clients) => {
                let mut roots = RootCertStore::empty();
                roots.add(clients.0.der().clone()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.unwrap().with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        Arc::new(builder.with_single_cert(vec![certificate.der().clone()], key).unwrap())
    }

    /// A certificate for a client and its key, in PEM.
    pub(super) fn client(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let parameters = CertificateParams::new(vec!["tess.example.com".to_owned()]).unwrap();
        (parameters.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }
}

/// A host, gone when dropped.
pub(super) struct Host {
    address: String,
    server: Server,
    _fronts: [Front; 2],
}

impl Host {
    /// Needs root, as all who listen on such ports do.
    pub(super) fn start(
        authority: &Authority,
        answer: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::start_for(authority, None, answer)
    }

    /// Only for those who have a certificate of `clients`.
    pub(super) fn start_for(
        authority: &Authority,
        clients: Option<&Authority>,
        answer: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let server = Server::start(answer);
        let (address, https, http) = listeners();
        let configuration = authority.configuration(&address, clients);
        let fronts = [
            Front::start(https, server.host(), Some(configuration)),
            Front::start(http, server.host(), None),
        ];
        Self { address, server, _fronts: fronts }
    }

    /// As it stands in the names of images.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) fn url(&self, path: &str) -> url::Url {
        format!("https://{}{path}", self.address).parse().unwrap()
    }

    pub(super) fn seen(&self) -> Vec<Request> {
        self.server.seen()
    }

    /// The paths and queries that were asked for so far.
    pub(super) fn targets(&self) -> Vec<String> {
        self.seen().into_iter().map(|request| request.target).collect()
    }
}

/// An address that nobody else listens on.
fn listeners() -> (String, TcpListener, TcpListener) {
    let random = RandomState::new();
    for attempt in 0..1000_u32 {
        let bytes = random.hash_one(attempt).to_le_bytes();
        let address = format!("127.{}.{}.{}", 1 + bytes[0] % 250, bytes[1], 1 + bytes[2] % 250);
        if let (Ok(https), Ok(http)) =
            (TcpListener::bind((&*address, 443)), TcpListener::bind((&*address, 80)))
        {
            return (address, https, http);
        }
    }
    panic!("no loopback address has its ports 443 and 80 free (these tests need root)");
}

struct Front {
    address: std::net::SocketAddr,
    stop: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl Front {
    fn start(listener: TcpListener, behind: String, tls: Option<Arc<ServerConfig>>) -> Self {
        let address = listener.local_addr().unwrap();
        let stop = Arc::<AtomicBool>::default();
        let ended = Arc::clone(&stop);
        let accepting = thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let (behind, tls) = (behind.clone(), tls.clone());
                thread::spawn(move || {
                    let _ = serve(&stream, &behind, tls); // Clients may leave when they like.
                });
            }
        });
        Self { address, stop, accepting: Some(accepting) }
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address); // Wakes `accept`.
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join(); // It does not panic.
        }
    }
}

fn serve(stream: &TcpStream, behind: &str, tls: Option<Arc<ServerConfig>>) -> io::Result<()> {
    match tls {
        None => hand_on(&mut &*stream, behind)?,
        Some(configuration) => {
            let connection = ServerConnection::new(configuration).map_err(io::Error::other)?;
            let mut tls = StreamOwned::new(connection, stream.try_clone()?);
            hand_on(&mut tls, behind)?;
            tls.conn.send_close_notify();
            tls.flush()?;
        }
    }
    stream.shutdown(Shutdown::Both)
}

/// One request without a body, and its answer to the end.
fn hand_on(client: &mut (impl Read + Write), behind: &str) -> io::Result<()> {
    let (mut request, mut byte) = (Vec::new(), [0]);
    while !request.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte)?;
        request.push(byte[0]);
    }
    let mut server = TcpStream::connect(behind)?;
    server.write_all(&request)?;
    io::copy(&mut server, client)?;
    client.flush()
}

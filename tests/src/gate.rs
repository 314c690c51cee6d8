//! A gate in front of a server: hands bytes on, and lets only so many through while it is closed.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;

/// It ends when it is dropped.
#[derive(Debug)]
pub struct Gate {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    server: String,
    /// Bytes that one connection brings to its client.
    limit: AtomicU64,
    connections: AtomicUsize,
    over: AtomicBool,
}

impl Gate {
    /// In front of `server` (`HOST:PORT`); each connection stops after so many bytes and brings no more.
    pub fn new(server: &str, limit_bytes: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let shared = Arc::new(Shared {
            server: server.to_owned(),
            limit: AtomicU64::new(limit_bytes),
            connections: AtomicUsize::new(0),
            over: AtomicBool::new(false),
        });
        let ours = shared.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if ours.over.load(Ordering::SeqCst) {
                    return;
                }
                ours.connections.fetch_add(1, Ordering::SeqCst);
                let shared = ours.clone();
                // Either side may leave when it likes.
                thread::spawn(move || shared.serve(client));
            }
        });
        Self { address, shared }
    }

    /// `127.0.0.1:PORT`
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// How many have come.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// From now on everything comes through, for connections that are made from now on.
    pub fn open(&self) {
        self.shared.limit.store(u64::MAX, Ordering::SeqCst);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address); // Wakes whoever accepts; gone already is as good.
    }
}

impl Shared {
    fn serve(&self, mut client: TcpStream) -> Option<()> {
        let mut left = self.limit.load(Ordering::SeqCst);
        let mut server = TcpStream::connect(&self.server).ok()?;
        let (mut from_client, mut to_server) = (client.try_clone().ok()?, server.try_clone().ok()?);
        thread::spawn(move || std::io::copy(&mut from_client, &mut to_server));
        let mut buffer = [0; 4096];
        loop {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            if most == 0 {
                // The rest never comes: whoever waits for it leaves or is killed.
                thread::park();
            }
            let count = server.read(&mut buffer[..most]).ok().filter(|count| *count > 0)?;
            client.write_all(&buffer[..count]).ok()?;
            left -= count as u64;
        }
    }
}

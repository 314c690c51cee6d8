//! A web server for tests, that can misbehave: answers are raw bytes, and may break off or dawdle.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// What a client asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    /// The first byte wanted by `Range: bytes=FIRST-`.
    pub(crate) fn first(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

/// What a server says.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    says_length: bool,
    cut_after: Option<usize>,
    endless: bool,
    drip: Option<Duration>,
}

impl Reply {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let (headers, body) = (Vec::new(), body.into());
        Self { status, headers, body, says_length: true, cut_after: None, endless: false, drip: None }
    }

    pub(crate) fn header(mut self, name: &str, value: &impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    /// `body`, or the part of it that the client wants.
    pub(crate) fn part(request: &Request, body: &[u8]) -> Self {
        let Some(first) = request.first() else { return Self::new(200, body) };
        if first >= body.len() {
            return Self::new(416, "").header("Content-Range", &format!("bytes */{}", body.len()));
        }
        let range = format!("bytes {first}-{}/{}", body.len() - 1, body.len());
        Self::new(206, &body[first..]).header("Content-Range", &range)
    }

    /// The connection breaks after so many bytes of the body.
    pub(crate) fn cut_after(mut self, count: usize) -> Self {
        self.cut_after = Some(count);
        self
    }

    /// Does not say how long the body is: it ends with the connection.
    pub(crate) fn unknown_length(mut self) -> Self {
        self.says_length = false;
        self
    }

    /// The body is repeated until the client has enough.
    pub(crate) fn endless(mut self) -> Self {
        (self.endless, self.says_length) = (true, false);
        self
    }

    /// One byte at a time.
    pub(crate) fn drip(mut self, pause: Duration) -> Self {
        self.drip = Some(pause);
        self
    }

    fn send(&self, method: &str, mut stream: &TcpStream) -> std::io::Result<()> {
        let mut head = format!("HTTP/1.1 {} x\r\nConnection: close\r\n", self.status);
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        if self.says_length {
            head += &format!("Content-Length: {}\r\n", self.body.len());
        }
        stream.write_all((head + "\r\n").as_bytes())?;
        if method == "HEAD" {
            return Ok(());
        }
        if self.endless {
            loop {
                stream.write_all(&self.body)?;
            }
        }
        let body = &self.body[..self.cut_after.unwrap_or(self.body.len()).min(self.body.len())];
        let Some(pause) = self.drip else { return stream.write_all(body) };
        for byte in body {
            stream.write_all(&[*byte])?;
            thread::sleep(pause); // What is tested is a server that is this slow.
        }
        Ok(())
    }
}

/// A server on a free port, gone when dropped.
pub(crate) struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Request>>>,
    stop: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, stop) = (Arc::<Mutex<Vec<Request>>>::default(), Arc::<AtomicBool>::default());
        let (log, ended, answer) = (Arc::clone(&seen), Arc::clone(&stop), Arc::new(answer));
        let accepting = thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                thread::spawn(move || {
                    let Some(request) = read_request(&stream) else { return };
                    log.lock().unwrap_or_else(PoisonError::into_inner).push(request.clone());
                    let _ = answer(&request).send(&request.method, &stream); // Clients may leave when they like.
                    let _ = stream.shutdown(Shutdown::Both); // Likewise.
                });
            }
        });
        Self { address, seen, stop, accepting: Some(accepting) }
    }

    /// `127.0.0.1:PORT`
    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What was asked so far.
    pub(crate) fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    /// How often something was asked for whose path ends so.
    pub(crate) fn count(&self, end: &str) -> usize {
        self.seen().iter().filter(|request| request.target.ends_with(end)).count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address); // Wakes `accept`.
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join(); // It does not panic.
        }
    }
}

fn read_request(stream: &TcpStream) -> Option<Request> {
    let mut input = BufReader::new(stream);
    let mut line = String::new();
    input.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut request = Request { method, target, ..Request::default() };
    loop {
        let mut line = String::new();
        input.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        request.headers.push((name.to_lowercase(), value.trim().to_owned()));
    }
    let length = request.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    input.take(length).read_to_end(&mut request.body).ok()?;
    Some(request)
}

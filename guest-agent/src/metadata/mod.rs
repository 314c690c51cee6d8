//! appc's metadata service (appc spec 0.8.11, `spec/ace.md`) for the apps of this pod, on the loopback address: so
//! it is there in a VM, and in a pod without a network. What it knows came with the pod ([`book`]); signatures are
//! stage1's, whose key never enters the pod.

mod book;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use hull_agent_protocol::{FromAgent, Metadata};
use nix::poll::PollFlags;

use self::book::{Answer, Book, HEAD_MAX, Question, REQUEST_MAX};
use crate::link::Link;

/// Most clients at a time.
const CLIENTS_MAX: usize = 32;

/// How long a client may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The service.
#[derive(Debug)]
pub(crate) struct Service {
    book: Book,
    listener: TcpListener,
    clients: Vec<Client>,
    next: u32,
}

#[derive(Debug)]
struct Client {
    stream: TcpStream,
    stage: Stage,
    by: Instant,
}

#[derive(Debug)]
enum Stage {
    Reading(Vec<u8>),
    /// For stage1's answer to this request.
    Waiting(u32),
    Writing {
        bytes: Vec<u8>,
        written: usize,
    },
    Done,
}

impl Service {
    /// Begins to listen.
    pub(crate) fn start(metadata: &Metadata) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        Ok(Self { book: Book::new(metadata), listener, clients: vec![], next: 0 })
    }

    /// What `AC_METADATA_URL` says.
    pub(crate) fn url(&self, metadata: &Metadata) -> io::Result<String> {
        Ok(format!("http://{}/{}", self.listener.local_addr()?, metadata.token))
    }

    /// The listener first, then the clients; each with the number that [`Self::serve`] takes.
    pub(crate) fn polled(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>, PollFlags)> {
        let room = self.clients.len() < CLIENTS_MAX;
        let listener = room.then(|| (0, self.listener.as_fd(), PollFlags::POLLIN)).into_iter();
        let clients = self.clients.iter().enumerate().filter_map(|(index, client)| {
            let flags = match client.stage {
                Stage::Reading(_) => PollFlags::POLLIN,
                Stage::Writing { .. } => PollFlags::POLLOUT,
                Stage::Waiting(_) | Stage::Done => return None,
            };
            Some((index + 1, client.stream.as_fd(), flags))
        });
        listener.chain(clients)
    }

    /// Does what can be done now.
    pub(crate) fn serve(&mut self, number: usize, link: &mut Link) {
        let Some(index) = number.checked_sub(1) else { return self.accept() };
        let Some(client) = self.clients.get_mut(index) else { return };
        if let Stage::Reading(input) = &mut client.stage {
            match read(&mut client.stream, input) {
                Some(true) => {
                    let question = self.book.question(input);
                    self.answer(index, question, link);
                }
                Some(false) => (),
                None => client.stage = Stage::Done,
            }
        }
        if let Some(client) = self.clients.get_mut(index) {
            client.write();
        }
    }

    fn accept(&mut self) {
        while self.clients.len() < CLIENTS_MAX {
            let Ok((stream, _)) = self.listener.accept() else { return };
            if stream.set_nonblocking(true).is_ok() {
                let (stage, by) = (Stage::Reading(vec![]), Instant::now() + PATIENCE);
                self.clients.push(Client { stream, stage, by });
            }
        }
    }

    fn answer(&mut self, index: usize, question: Option<Question>, link: &mut Link) {
        let Some(question) = question else { return }; // More of it has to come.
        let request = self.next;
        let stage = match question {
            Question::Answered(answer) => Stage::writing(&answer),
            Question::Sign { content } => {
                link.say(&FromAgent::Sign { request, content });
                Stage::Waiting(request)
            }
            Question::Verify { uuid, content, signature } => {
                link.say(&FromAgent::Verify { request, uuid, content, signature });
                Stage::Waiting(request)
            }
        };
        self.next = self.next.wrapping_add(1);
        self.clients[index].stage = stage;
    }

    /// Takes stage1's signature, or its word on one.
    pub(crate) fn answered(&mut self, request: u32, signature: Option<&str>, valid: bool) {
        let answer = match signature {
            Some(signature) => Answer::text(signature),
            None if valid => Answer::status("200 OK"),
            None => Answer::status("403 Forbidden"),
        };
        let waits =
            |client: &&mut Client| matches!(client.stage, Stage::Waiting(number) if number == request);
        if let Some(client) = self.clients.iter_mut().find(waits) {
            client.stage = Stage::writing(&answer);
            client.write();
        }
    }

    /// When a client will have taken too long.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.clients.iter().map(|client| client.by).min()
    }

    /// Lets go of those that are done, or too slow.
    pub(crate) fn tidy(&mut self, now: Instant) {
        self.clients.retain(|client| client.by > now && !matches!(client.stage, Stage::Done));
    }
}

/// Whether something has come; `None` if nothing more will.
fn read(stream: &mut TcpStream, input: &mut Vec<u8>) -> Option<bool> {
    let mut chunk = [0; HEAD_MAX];
    match stream.read(&mut chunk) {
        Ok(0) => None,
        Ok(len) if input.len() + len <= REQUEST_MAX => {
            input.extend_from_slice(&chunk[..len]);
            Some(true)
        }
        Ok(_) => None,
        Err(why) if matches!(why.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Some(false),
        Err(_) => None,
    }
}

impl Stage {
    fn writing(answer: &Answer) -> Self {
        Self::Writing { bytes: answer.encode(), written: 0 }
    }
}

impl Client {
    fn write(&mut self) {
        let Stage::Writing { bytes, written } = &mut self.stage else { return };
        match self.stream.write(&bytes[*written..]) {
            Ok(len) => *written += len,
            Err(why) if matches!(why.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return,
            Err(_) => *written = bytes.len(),
        }
        if *written == bytes.len() {
            self.stage = Stage::Done;
        }
    }
}

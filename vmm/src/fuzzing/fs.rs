//! What the server of a file system answers: it may have been taken over by a guest.

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use virtio_queue::{Queue, QueueT};

use crate::device::virtio::F_COMMON;
use crate::device::virtio::fs::Server;
use crate::layout::Region;
use crate::memory::GuestRam;

/// Answers that a socket holds without a reader.
const ANSWERS_MAX: usize = 16 << 10;

/// The answers of a server, one after the other: when it is greeted, and when queues go there and back.
pub fn file_server(answers: &[u8]) {
    let Ok((ours, mut theirs)) = UnixStream::pair() else { return };
    let written = theirs.write_all(&answers[..answers.len().min(ANSWERS_MAX)]);
    written.and_then(|()| theirs.shutdown(Shutdown::Write)).expect("a socket holds as much");
    let ram =
        Arc::new(GuestRam::shared(&[Region { first: 0, size: 0x2_0000 }]).expect("memory for a machine"));
    let Ok(mut server) = Server::greet(ours, "tag", &ram) else { return };
    let mut queue = Queue::new(16).expect("a power of two");
    queue.set_ready(true);
    // An answer that is refused ends the conversation: so it would for the machine.
    let _ = server.start(F_COMMON, &[queue]).and_then(|()| server.stop());
}

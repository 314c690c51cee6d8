//! One request with its files in one direction of a socket, one answer in the other.
//!
//! The files come first: messages of one byte with up to [`FILES_PER_MESSAGE`] descriptors each, then one
//! without. The request, and likewise the answer, is JSON up to the end of its direction.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{ANSWER_MAX, Answer, LAYERS_MAX, REQUEST_MAX, Request};

/// `SCM_MAX_FD` of include/net/scm.h.
const FILES_PER_MESSAGE: usize = 253;

/// Every layer, and the output.
const FILES_MAX: usize = LAYERS_MAX + 1;

/// Sends a request; nothing can be sent after it.
///
/// # Errors
/// Those of the socket.
pub fn ask(socket: &UnixStream, request: &Request, files: &[BorrowedFd<'_>]) -> io::Result<()> {
    for files in files.chunks(FILES_PER_MESSAGE) {
        send_files(socket, files)?;
    }
    send_files(socket, &[])?;
    send(socket, request)
}

/// Receives what [`ask`] sent.
///
/// # Errors
/// Those of the socket, and `InvalidData` for what is no request.
pub fn asked(socket: &UnixStream) -> io::Result<(Request, Vec<OwnedFd>)> {
    let mut files = Vec::new();
    loop {
        let count = files.len();
        receive_files(socket, &mut files)?;
        if files.len() == count {
            return Ok((receive(socket, REQUEST_MAX)?, files));
        }
        if files.len() > FILES_MAX {
            return Err(invalid("too many files"));
        }
    }
}

/// Sends the answer; nothing can be sent after it.
///
/// # Errors
/// Those of the socket.
pub fn answer(socket: &UnixStream, answer: &Answer) -> io::Result<()> {
    send(socket, answer)
}

/// Receives what [`answer`] sent.
///
/// # Errors
/// Those of the socket, and `InvalidData` for what is no answer.
pub fn answered(socket: &UnixStream) -> io::Result<Answer> {
    receive(socket, ANSWER_MAX)
}

fn send_files(socket: &UnixStream, files: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_PER_MESSAGE))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() {
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(files)), "a message has room for its files");
    }
    // One that is gone must not kill us too.
    sendmsg(socket, &[IoSlice::new(&[0])], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn receive_files(socket: &UnixStream, files: &mut Vec<OwnedFd>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_PER_MESSAGE))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut buffers = [IoSliceMut::new(&mut byte)];
    let received = recvmsg(socket, &mut buffers, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    if received.bytes != 1 {
        return Err(invalid("no request"));
    }
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(more) = message {
            files.extend(more);
        }
    }
    Ok(())
}

fn send(mut socket: &UnixStream, document: &impl Serialize) -> io::Result<()> {
    socket.write_all(&serde_json::to_vec(document)?)?;
    socket.shutdown(Shutdown::Write)
}

fn receive<T: DeserializeOwned>(socket: &UnixStream, max: u64) -> io::Result<T> {
    let mut text = Vec::new();
    socket.take(max + 1).read_to_end(&mut text)?;
    if text.len() as u64 > max {
        return Err(invalid("too long a document"));
    }
    Ok(serde_json::from_slice(&text)?)
}

fn invalid(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_request_comes_with_its_files_in_order() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let files: Vec<_> = (0..FILES_MAX).map(|_| io::pipe().unwrap()).collect();
        let request = Request::Look { name: "n".repeat(1 << 20) };
        let fds: Vec<_> = files.iter().map(|(reader, _)| reader.as_fd()).collect();
        let (got, received) = std::thread::scope(|scope| {
            let sent = scope.spawn(|| ask(&ours, &request, &fds));
            let got = asked(&theirs).unwrap();
            sent.join().unwrap().unwrap();
            got
        });
        assert_eq!(got, request);
        assert_eq!(received.len(), files.len());
        for (number, (_, writer)) in files.iter().enumerate() {
            (&mut &*writer).write_all(&number.to_le_bytes()).unwrap();
        }
        for (number, file) in received.into_iter().enumerate() {
            let mut bytes = [0; size_of::<usize>()];
            File::from(file).read_exact(&mut bytes).unwrap();
            assert_eq!(usize::from_le_bytes(bytes), number);
        }
    }

    #[test]
    fn an_answer_is_bounded_and_well_formed_or_none() {
        let check = |bytes: &[u8], want: Option<&Answer>| {
            let (ours, theirs) = UnixStream::pair().unwrap();
            std::thread::scope(|scope| {
                // Whoever reads too long an answer hangs up.
                scope.spawn(move || drop((&mut &theirs).write_all(bytes)));
                let got = answered(&ours).ok();
                drop(ours);
                assert_eq!(got.as_ref(), want);
            });
        };
        check(br#""converted""#, Some(&Answer::Converted));
        check(br#""converted" "converted""#, None);
        check(br#"{"listed":[{"path":"a","place":{"file":{"start":-1,"size":0}}}]}"#, None);
        check(b"", None);
        check(&vec![b' '; usize::try_from(ANSWER_MAX).unwrap() + 10], None);
        check(&vec![b'['; 1 << 20], None);
    }
}

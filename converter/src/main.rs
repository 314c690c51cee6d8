//! `hull-converter`: reads one archive or one image's layers for hull, and answers.
//!
//! Started by hull for each job; the crate `hull-converter-protocol` says how. Nothing of an archive is read
//! before the process is in its jail.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use hull_converter::{Error, calls, carry_out, enter};
use hull_converter_protocol::{Answer, Kind, Request, channel};
use hull_errors::Doing;

fn main() -> ExitCode {
    let socket = match io::stdin().as_fd().try_clone_to_owned() {
        Ok(socket) => UnixStream::from(socket),
        Err(_) => return ExitCode::FAILURE,
    };
    let answer = work(&socket).unwrap_or_else(|error| Answer::Failed {
        kind: *error.kind(),
        text: format!("read an archive by hull-converter: {}", hull_errors::chain(&error)),
    });
    match channel::answer(&socket, &answer) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn work(socket: &UnixStream) -> Result<Answer, Error> {
    let (request, files) = channel::asked(socket).doing(Kind::Host, || "hear what to do".into())?;
    let files: Vec<File> = files.into_iter().map(File::from).collect();
    let fds: Vec<_> = files.iter().map(AsFd::as_fd).collect();
    let (stdout, stderr) = (io::stdout(), io::stderr());
    let kept: Vec<_> =
        [socket.as_fd(), stdout.as_fd(), stderr.as_fd()].into_iter().chain(fds.clone()).collect();
    let entered = enter(&kept)?;
    let sealed = entered.seal(&calls(&request, socket.as_fd(), &fds));
    let sealed = sealed.doing(Kind::Host, || "seal its jail".into())?;
    if request == Request::Describe {
        return Ok(Answer::Described { missing: sealed.missing().iter().map(ToString::to_string).collect() });
    }
    Ok(carry_out(&sealed, &request, &files))
}

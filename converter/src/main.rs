//! `hull-converter`: reads one archive or one image's layers for hull, and answers.
//!
//! Started by hull for each job; the crate `hull-converter-protocol` says how.
#![forbid(unsafe_code)]

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use hull_converter_protocol::{Answer, Kind, channel};

fn main() -> ExitCode {
    let Ok(socket) = std::io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from) else {
        return ExitCode::FAILURE;
    };
    let answer = match channel::asked(&socket) {
        Ok((request, files)) => {
            let files: Vec<File> = files.into_iter().map(File::from).collect();
            hull_converter::carry_out(&request, &files)
        }
        Err(e) => Answer::Failed { kind: Kind::Host, text: format!("read the request: {e}") },
    };
    match channel::answer(&socket, &answer) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

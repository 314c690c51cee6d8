//! Goes into the jail of `hull-converter` and tries to do what is forbidden there: `prisoner STEP DEED`.
//!
//! STEP is `entered` (every system call is still there), `sealed`, or `threads` (there are two). The files of the job are standard input
//! (the socket) and standard output. Exits with 0 if the deed was done, with 100 + errno if it was refused.

#[path = "../../jail/tests/deeds/mod.rs"]
mod deeds;

use std::os::fd::AsFd;
use std::process::ExitCode;
use std::{env, io, thread};

use deeds::call;
use hull_converter::{calls, enter};
use hull_converter_protocol::{Algorithm, Digest, ImageId, Request};

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [step, deed] = &*arguments else { return ExitCode::from(2) };
    let (stdin, stdout) = (io::stdin(), io::stdout());
    let (socket, output) = (stdin.as_fd(), stdout.as_fd());
    let id = ImageId::from(&Digest::of(Algorithm::Sha256, b""));
    let request = Request::Convert { id, layers: Vec::new() };
    if step == "threads" {
        thread::spawn(thread::park);
    }
    let Ok(entered) = enter(&[socket, output]) else { return ExitCode::from(3) };
    if step == "sealed" {
        entered.seal(&calls(&request, socket, &[output])).expect("a door");
    }
    match deeds::attempt(deed).unwrap_or_else(|| attempt(deed)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => ExitCode::from(100 + u8::try_from(e.raw_os_error().unwrap_or(99)).unwrap_or(99)),
    }
}

/// What is about the files of the job.
fn attempt(deed: &str) -> io::Result<()> {
    match deed {
        "map-file" => call(libc::SYS_mmap, [0, 4096, 1, 2, 1, 0]),
        "chmod-output" => call(libc::SYS_fchmod, [1, 0o777, 0, 0, 0, 0]),
        "chown-output" => call(libc::SYS_fchown, [1, 0, 0, 0, 0, 0]),
        "write-output" => call(libc::SYS_pwrite64, [1, c"x".as_ptr() as i64, 1, 0, 0, 0]),
        "write-far-output" => call(libc::SYS_pwrite64, [1, c"x".as_ptr() as i64, 1, 97 << 30, 0, 0]),
        "grow-output" => call(libc::SYS_ftruncate, [1, 97 << 30, 0, 0, 0, 0]),
        "write-other" => call(libc::SYS_pwrite64, [0, c"x".as_ptr() as i64, 1, 0, 0, 0]),
        "allocate-output" => call(libc::SYS_fallocate, [1, 0, 0, 1 << 20, 0, 0]),
        "send-elsewhere" => {
            let address = [1_u8, 0, 0, b'x'];
            call(libc::SYS_sendto, [0, address.as_ptr() as i64, 1, 0x4000, address.as_ptr() as i64, 4])
        }
        "receive" => call(libc::SYS_recvfrom, [0, [0_u8; 1].as_mut_ptr() as i64, 1, 0x40, 0, 0]),
        other => panic!("no deed {other}"),
    }
}

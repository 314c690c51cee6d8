//! Open files that nobody named.

use std::fs;
use std::os::fd::RawFd;

use hull_errors::Doing;
use nix::errno::Errno;
use nix::unistd::close;

use crate::Error;

pub(crate) fn close_all_but(kept: &[RawFd]) -> Result<(), Error> {
    let doing = || "list the open files of the process".to_owned();
    let mut open = Vec::new();
    for entry in fs::read_dir("/proc/self/fd").doing((), doing)? {
        let name = entry.doing((), doing)?.file_name();
        open.extend(name.to_str().and_then(|name| name.parse::<RawFd>().ok()));
    }
    for fd in open.into_iter().filter(|fd| !kept.contains(fd)) {
        match close(fd) {
            // The list itself was one of them, and is closed by now.
            Ok(()) | Err(Errno::EBADF) => (),
            Err(e) => return Err(Error::because((), format!("close file {fd}"), e)),
        }
    }
    Ok(())
}

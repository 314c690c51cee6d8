//! What the VMM's jail lacks on this host: found out by going in, for `hull doctor`.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Command, ExitCode, Stdio};

use hull_errors::{Doing, chain};
use hull_jail::{Ids, Jail, Limits};
use hull_stage1::Kind;
use nix::unistd::geteuid;

use crate::Error;

/// The second argument of the process that goes in.
const INSIDE: &str = "inside";

pub(crate) fn main() -> ExitCode {
    let done = match std::env::args().nth(2).as_deref() {
        Some(INSIDE) => inside(),
        _ => outside(),
    };
    done.unwrap_or_else(|why| {
        println!("{}", chain(&why));
        ExitCode::FAILURE
    })
}

/// Only a child can be alone in a pid namespace.
fn outside() -> Result<ExitCode, Error> {
    let doing = || "find out what the virtual machine's jail lacks".to_owned();
    let mut command = Command::new("/proc/self/exe");
    command.args([hull_pod::contract::WALLS, INSIDE]).stdin(Stdio::null());
    let mut child = hull_jail::spawn_alone(&mut command).doing(Kind::Host, doing)?;
    let status = child.wait().doing(Kind::Host, doing)?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn inside() -> Result<ExitCode, Error> {
    let doing = || "enter the virtual machine's jail".to_owned();
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    let kept = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()].map(|fd| fd.as_raw_fd());
    let limits =
        Limits { memory: 64 << 20, file_size: u64::MAX, files: 64, cpu_seconds: 60, locked_memory: 0 };
    // Any id of the default range will do: this process is gone at once, and has nothing.
    let id = hull_pod::contract::IdRange::default().first;
    let ids = if geteuid().is_root() { Ids::Given(id) } else { Ids::Kept };
    let entered = Jail { kept: kept.to_vec(), limits, ids, alone: true }.enter().doing(Kind::Host, doing)?;
    for missing in entered.missing() {
        println!("{missing}");
    }
    Ok(ExitCode::SUCCESS)
}

//! `cargo xtask lab`: runs a command on an emulated host whose KVM boots Linux, as if it ran here.
//! This program is both sides: outside it drives QEMU, and as the emulated host's PID 1 it
//! prepares the place, runs the command and sends back what it says.
mod archive;
mod child;
mod guest;
mod host;
mod loopback;
mod message;
mod mounts;
mod options;
mod qemu;

use std::process::ExitCode;

use crate::error::Result;
use crate::paths::Paths;
use options::Options;

pub(crate) const HELP: &str = "\
cargo xtask lab [OPTIONS] -- COMMAND [ARGUMENTS]

Runs COMMAND as root on a host that QEMU emulates in software, with hardware virtualisation in it:
/dev/kvm works there, whatever it does here. The command sees this machine's files at the same
paths and starts in this folder; what it writes is lost, but for one folder. Its stdout, stderr
and exit code become this command's; its stdin is empty. /tmp and /var/lib/hull are empty tmpfs,
/sys/fs/cgroup is a full cgroup2. Installs QEMU and builds the lab's kernel if need be.

  --icount         the clock counts instructions, one a nanosecond: the same work always takes the
                   same time, and counts repeat exactly. Slower; one guest at a time
  --memory MIB     default 4096
  --cpus N         default 1, the stable choice
  --timeout S      default 600; then exit code 124
  --share PATH     keep PATH visible although it lies in /tmp (this folder, cargo's target folder
                   and the cache stay visible by themselves); may be repeated
  --console        show the emulated host's console on stderr
  --append WORDS   add to its kernel command line, for example selinux=1; may be repeated

Environment variables that start with HULL_, RUST_ or CARGO_ are passed on. HULL_LAB_EXCHANGE names
the one folder whose changes survive: TARGET/lab, the same path on both sides.
Exit code 125: the emulated host broke, not the command.
";

/// Names the exchange folder to the command.
const EXCHANGE_VARIABLE: &str = "HULL_LAB_EXCHANGE";

pub(crate) use archive::Archive;
pub(crate) use guest::{is_guest, run as run_guest};

pub(crate) fn run(arguments: &[String], paths: &Paths) -> Result<ExitCode> {
    host::run(&Options::parse(arguments)?, paths)
}

//! `cargo xtask bench`: hull against another VMM on the same kernel and image, in one run. The program is
//! both sides: outside it builds and chooses the host, inside (mostly the lab) it measures.
mod contender;
mod convert;
mod elf;
mod exits;
mod figures;
mod image;
mod memory;
mod net;
mod options;
mod place;
mod reasons;
mod report;
mod run;
mod tracing;

use std::io::{self, Write};
use std::process::ExitCode;

use hull_errors::Doing;

use crate::error::{Kind, Result};
use crate::paths::Paths;
use crate::test::{Doctor, doctor};
use crate::tool::say;
use crate::{build, install, lab};
use options::{Host, Order};

pub(crate) const HELP: &str = "\
cargo xtask bench start [--json] [--runs N]
cargo xtask bench convert [--json] [LAYER.tar]
cargo xtask bench net [--json]

Measures the start of a pod: `hull run --stage1=kvm` of a static busybox that says hello, against
QEMU's microvm with the same guest kernel and the same EROFS image, each from exec to the app's
first byte and to the exit code. Builds what it needs.

  --json     one JSON object on stdout instead of a table
  --runs N   how many timed runs each; default 5, the median counts

Where this host's KVM cannot boot Linux it runs in the lab with --icount: a virtual millisecond is
then a million instructions of the emulated host, and counts repeat. Elsewhere it runs here, and a
millisecond is one. What the figures mean is in docs/benchmarks.md.

`convert` measures how long a layer (a Debian root, if none is named) takes into hull's store, to disk
by `tar -x`, and by `umoci unpack`, compressed by gzip and by zstd, and how much memory at most.

`net` measures TCP between a guest and its host, each way by iperf3 over a tap, on hull's VMM and on
QEMU's microvm with the same kernel. In the lab that is throughput per instruction.
";

/// busybox-static is the app, tar packs it, QEMU is the other contender, libc-bin has ldd.
const PACKAGES: &[&str] = &["busybox-static", "libc-bin", "qemu-system-x86", "tar"];

/// How long the emulated host may take for everything, in seconds.
const LAB_TIMEOUT: &str = "1500";

pub(crate) fn run(arguments: &[String], paths: &Paths) -> Result<ExitCode> {
    match Order::parse(arguments)? {
        Order::Start(wishes) => {
            install::ensure(PACKAGES)?;
            let programs = build::installation(paths)?;
            match doctor(&programs)? {
                Doctor::Kvm => inside(&wishes.on(Host::Native, programs)),
                Doctor::NoKvm(reason) => {
                    say(format_args!("VMs cannot run on this host ({reason}): measuring in the lab"));
                    let program = paths.program.display().to_string();
                    let mut words = ["--icount", "--timeout", LAB_TIMEOUT, "--"].map(str::to_owned).to_vec();
                    words.push(program);
                    words.extend(wishes.on(Host::Lab, programs).words());
                    lab::run(&words, paths)
                }
            }
        }
        Order::Convert { json, layer } => convert::run(json, layer, paths),
        Order::Net { json } => net::run(json, paths),
        Order::Inside(job) => inside(&job),
        Order::InsideNet { host, programs, json } => net::inside(host, &programs, json),
    }
}

fn inside(job: &options::Job) -> Result<ExitCode> {
    let figures = run::run(job)?;
    let text = match job.json {
        true => format!("{}\n", report::json(&figures)),
        false => report::table(&figures),
    };
    io::stdout().lock().write_all(text.as_bytes()).doing(Kind::Failed, || "print the figures".into())?;
    Ok(ExitCode::SUCCESS)
}

//! The VMM's process itself: hears its order, goes into its jail, runs the machine, says how it ended.

use std::io;
use std::os::fd::AsFd;
use std::panic;
use std::process::ExitCode;

use hull_errors::{Doing, chain};
use hull_jail::{Entered, Ids};
use hull_stage1::Kind;
use hull_vmm::{Machine, VmConfig};
use rustix::net::{RecvFlags, recv};

use crate::Error;
use crate::order::{self, Report, Wanted};

/// What this process does instead of supervising. Standard input is the supervisor.
pub(crate) fn main() -> ExitCode {
    panic::set_hook(Box::new(|why| {
        order::report(io::stdin(), &Report::Failed(format!("the virtual machine broke down: {why}")));
    }));
    order::report(io::stdin(), &run().unwrap_or_else(|why| Report::Failed(chain(&why))));
    ExitCode::SUCCESS
}

fn run() -> Result<Report, Error> {
    let doing = || "start the virtual machine".to_owned();
    // Else it is called like the link that it was started by.
    rustix::thread::set_name(c"hull-vmm").doing(Kind::Host, doing)?;
    // The terminal's signals are for the supervisor.
    rustix::process::setsid().doing(Kind::Host, doing)?;
    let wanted = order::take(io::stdin()).doing(Kind::Host, || "hear what machine to run".into())?;
    let entered = enter(&wanted)?;
    let debug = wanted.asked.console.is_some();
    let config = VmConfig::try_from(wanted.asked).and_then(|c| c.with_filesystems(wanted.filesystems));
    let config = config.doing(Kind::Contract, || "plan the virtual machine".into())?;
    let machine = Machine::new(config).doing(Kind::Host, doing)?;
    let machine = match machine.load() {
        Ok(machine) => machine,
        Err(why) => return Ok(Report::BadKernel(chain(&why))),
    };
    if debug {
        eprintln!("hull-kvm: {} bytes of kernel copied", machine.kernel_bytes_copied());
    }
    let (machine, sealed) = machine.boot_sealed(entered, io::stdin().as_fd()).doing(Kind::Host, doing)?;
    if debug {
        for missing in sealed.missing() {
            eprintln!("hull-kvm: the virtual machine's jail lacks {missing}");
        }
    }
    Ok(machine.wait().into())
}

/// Leaves everything behind but what the order has brought.
fn enter(wanted: &Wanted) -> Result<Entered, Error> {
    let doing = || "enter the virtual machine's jail".to_owned();
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    let mut others = vec![stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
    others.extend(wanted.filesystems.iter().map(|filesystem| filesystem.server.as_fd()));
    let ids = wanted.id.map_or(Ids::Kept, Ids::Given);
    let entered = hull_vmm::enter(&wanted.asked, &others, ids).doing(Kind::Host, doing)?;
    // The supervisor may have died before the process was tied to it.
    match recv(&stdin, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        Err(rustix::io::Errno::AGAIN) => Ok(entered),
        _ => Err(Error::new(Kind::Host, format!("{}: the supervisor has gone", doing()))),
    }
}

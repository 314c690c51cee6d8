//! `cargo xtask demo`: makes a real image with standard tools and runs it as pods, showing every
//! command of hull's before it runs.
mod image;
mod show;
mod tour;

use std::path::Path;
use std::process::{Command, ExitCode};

use crate::build;
use crate::error::{Result, usage};
use crate::paths::Paths;
use crate::test::{Doctor, Stream, doctor};
use crate::tool;
use tour::Tour;

pub(crate) const HELP: &str = "\
cargo xtask demo

On Debian, as root: installs what is missing, builds hull and its guest kernel, makes an image of
Debian with a redis server (mmdebstrap, umoci; kept in the cache) and runs it as pods: in
namespaces, and in a VM. Where this host's KVM cannot boot Linux, the VM part runs in the lab. Every
command is shown before it runs, and its output and exit code are checked.
";

/// The word that makes us the part that runs pods, here or in the lab.
const TOUR: &str = "tour";

pub(crate) fn run(arguments: &[String], paths: &Paths) -> Result<ExitCode> {
    match arguments {
        [] => demo(paths)?,
        [word, stage1, image] if word == TOUR => Tour::new(paths, stage1, Path::new(image)).run()?,
        _ => return Err(usage(format_args!("demo takes nothing, not {}", arguments.join(" ")))),
    }
    Ok(ExitCode::SUCCESS)
}

fn demo(paths: &Paths) -> Result<()> {
    heading("Building hull's programs and the guest kernel");
    let programs = build::installation(paths)?;
    println!("{}", programs.display());
    heading("An image: Debian with a redis server");
    let image = image::ensure(paths)?;
    heading("In namespaces of this host");
    Tour::new(paths, "nspawn", &image).run()?;
    match doctor(&programs)? {
        Doctor::Kvm => {
            heading("In a virtual machine of this host");
            Tour::new(paths, "kvm", &image).run()?;
        }
        Doctor::NoKvm(reason) => {
            heading("In a virtual machine, in the lab");
            println!("VMs cannot run on this host: {reason}.");
            println!("So this part runs on an emulated host, in software, and takes its time.");
            in_lab(paths, &image)?;
        }
    }
    heading("All as expected");
    Ok(())
}

fn in_lab(paths: &Paths, image: &Path) -> Result<()> {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM"]).arg(&paths.program).args(["lab", "--"]);
    command.arg(&paths.program).args(["demo", TOUR, "kvm"]).arg(image);
    let name = tool::shown(&command);
    let status = Stream::start(command)?.finish("", |_| ())?;
    tool::verdict(&name, status)
}

fn heading(text: &str) {
    println!("\n== {text}\n");
}

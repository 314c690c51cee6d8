//! `cargo xtask`: builds, tests and measures hull. Every command has a file or folder of its own.
#![forbid(unsafe_code)]
mod bench;
mod build;
mod debian;
mod demo;
mod error;
mod fuzz;
mod install;
mod kernel;
mod lab;
mod paths;
mod sid;
mod test;
mod tool;

use std::process::ExitCode;

use error::{Result, usage};
use paths::Paths;

/// One command. Arguments come without the command's own name.
struct Command {
    name: &'static str,
    about: &'static str,
    help: &'static str,
    run: fn(&[String], &Paths) -> Result<ExitCode>,
}

const COMMANDS: &[Command] = &[
    Command { name: "test", about: "everything that a change must pass", help: test::HELP, run: test::run },
    Command { name: "demo", about: "make a real image and run it as pods", help: demo::HELP, run: demo::run },
    Command {
        name: "bench",
        about: "measure the start of a pod against another VMM's",
        help: bench::HELP,
        run: bench::run,
    },
    Command { name: "fuzz", about: "search for bytes that break a parser", help: fuzz::HELP, run: fuzz::run },
    Command { name: "build", about: "build hull's programs for release", help: build::HELP, run: build::run },
    Command {
        name: "kernel",
        about: "build the guest kernel, or the lab's",
        help: kernel::HELP,
        run: kernel::run,
    },
    Command {
        name: "lab",
        about: "run a command on an emulated host whose KVM boots Linux",
        help: lab::HELP,
        run: lab::run,
    },
];

fn main() -> ExitCode {
    if lab::is_guest() {
        return lab::run_guest();
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    dispatch(&arguments).unwrap_or_else(|e| {
        eprintln!("xtask: {}", hull_errors::chain(&e));
        e.kind().exit_code()
    })
}

fn dispatch(arguments: &[String]) -> Result<ExitCode> {
    let Some((first, rest)) = arguments.split_first() else {
        return help(&[]);
    };
    if matches!(first.as_str(), "help" | "--help" | "-h") {
        return help(rest);
    }
    let command = find(first)?;
    // What follows `--` belongs to somebody else.
    let own = rest.iter().take_while(|a| *a != "--");
    if own.clone().any(|a| a == "--help" || a == "-h") {
        return help(std::slice::from_ref(first));
    }
    (command.run)(rest, &Paths::find()?)
}

fn find(name: &str) -> Result<&'static Command> {
    COMMANDS.iter().find(|c| c.name == name).ok_or_else(|| usage(format_args!("no command {name}")))
}

fn help(topics: &[String]) -> Result<ExitCode> {
    if let [topic] = topics {
        print!("{}", find(topic)?.help);
        return Ok(ExitCode::SUCCESS);
    }
    println!("cargo xtask COMMAND [ARGUMENTS]\n\nCommands:");
    for command in COMMANDS {
        println!("  {:8} {}", command.name, command.about);
    }
    println!("  {:8} say this, or everything about one command", "help");
    Ok(ExitCode::SUCCESS)
}

//! In a pod: `probe serve PORT...` answers until it is killed, and says `ready`; `probe ask KIND ADDRESS...` says what
//! each server answered, a line each.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::thread;

use hull_tests::probe;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.split_first() {
        Some((verb, ports)) if verb == "serve" => serve(ports),
        Some((verb, servers)) if verb == "ask" => ask(servers),
        _ => ExitCode::FAILURE,
    }
}

fn serve(ports: &[String]) -> ExitCode {
    for port in ports {
        let port = port.parse().expect("the test names ports");
        probe::serve(port).expect("a pod's ports are free");
    }
    println!("ready");
    loop {
        thread::park();
    }
}

fn ask(servers: &[String]) -> ExitCode {
    for server in servers.chunks(2) {
        let [kind, address] = server else { return ExitCode::FAILURE };
        let parsed = address.parse().expect("the test names addresses");
        let said = if kind == "udp" { probe::udp(parsed) } else { probe::tcp(parsed) };
        println!("{kind} {address} {}", said.unwrap_or_else(|| "nothing".into()));
    }
    ExitCode::SUCCESS
}

//! `hull version`

use std::process::ExitCode;

use hull_pod::Manifest;

pub(crate) fn version() -> ExitCode {
    println!("hull Version: {}", env!("CARGO_PKG_VERSION"));
    println!("appc Version: {}", Manifest::AC_VERSION);
    println!("Stage1 Interface: {}", hull_pod::contract::VERSION);
    ExitCode::SUCCESS
}

//! Imports an image into a store and says what came out: `import CONVERTER STORE REFERENCE`.
use std::path::Path;
use std::process::ExitCode;

use hull_image::{Converter, Reference, Store};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [converter, folder, reference] = &*arguments else {
        eprintln!("usage: import CONVERTER STORE REFERENCE");
        return ExitCode::from(2);
    };
    let converter = Converter { program: converter.into() };
    let imported = Reference::parse(reference)
        .and_then(|reference| Store::open(Path::new(folder), converter)?.import(&reference));
    match imported {
        Ok(imported) => {
            println!("{imported:#?}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{}", hull_errors::chain(&error));
            ExitCode::FAILURE
        }
    }
}

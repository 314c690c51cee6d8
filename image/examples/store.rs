//! Does one thing to a store: `store CONVERTER STORE import REFERENCE`, `gc`, `remove ID`, `verify ID`,
//! `export ID OUTPUT`, `render ID FOLDER`, `check`.
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use hull_image::{Converter, Error, Existing, Kind, Parts, Reference, Store};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{}", hull_errors::chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<String, Error> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let usage = || {
        Error::new(
            Kind::NotFound,
            "usage: store CONVERTER STORE import|gc|remove|verify|export|render|check …",
        )
    };
    let [converter, folder, command @ ..] = &*arguments else { return Err(usage()) };
    let store = Store::open(Path::new(folder), Converter { program: converter.into() })?;
    let none = || Ok::<_, Infallible>(BTreeSet::new());
    match command {
        ["import", reference] => Ok(format!("{:#?}", store.import(&Reference::parse(reference)?)?)),
        ["gc"] => Ok(format!("{:#?}", store.gc(Duration::ZERO, none)?)),
        ["check"] => Ok(format!("{:#?}", store.check()?)),
        ["remove", id] => Ok(format!("{:?}", store.remove(&[store.lookup(id)?.id], none)?)),
        ["verify", id] => Ok(format!("{:?}", store.verify(&store.lookup(id)?.id)?)),
        ["export", id, output] => {
            store.export(&store.lookup(id)?.id, &output.parse()?, Existing::Keep)?;
            Ok(String::new())
        }
        ["render", id, folder] => {
            store.render(&store.lookup(id)?.id, Path::new(folder), Parts::RootFs, Existing::Keep)?;
            Ok(String::new())
        }
        _ => Err(usage()),
    }
}

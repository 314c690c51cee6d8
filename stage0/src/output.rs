//! Printing to standard output, whoever reads it.
//!
//! The standard library's own macros panic when the reader has gone (`hull image list | head -1`). These do not: what
//! a command still has to do is done, and nobody hears of it.

use std::fmt;
use std::io::{self, Write};

/// As the standard library's.
macro_rules! print {
    ($($part:tt)*) => { crate::output::put(format_args!($($part)*)) };
}

/// As the standard library's.
macro_rules! println {
    () => { crate::output::put(format_args!("\n")) };
    ($($part:tt)*) => { crate::output::put(format_args!("{}\n", format_args!($($part)*))) };
}

pub(crate) fn put(text: fmt::Arguments<'_>) {
    let mut output = io::stdout().lock();
    match output.write_fmt(text).and_then(|()| output.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("hull: write to standard output: {e}");
            std::process::exit(crate::FAILURE.into());
        }
        _ => (),
    }
}

//! Progress where nobody watches: lines for a journal.

use std::time::Instant;

use hull_image::{Progress, Transfer};
use indicatif::HumanBytes;

use super::{broken_off, finished};

#[derive(Clone, Copy, Debug)]
pub(super) struct Lines;

impl Progress for Lines {
    fn transfer(&self, what: &str, total: Option<u64>, done: u64) -> Box<dyn Transfer + '_> {
        eprintln!("fetching {what}{}", size(total, done));
        let start = Instant::now();
        Box::new(Line { name: what.to_owned(), bytes: done, has_moved: false, start, finished: false })
    }

    fn note(&self, text: &str) {
        eprintln!("{text}");
    }
}

fn size(total: Option<u64>, done: u64) -> String {
    match (total, done) {
        (None, 0) => String::new(),
        (None, done) => format!(" ({} are there)", HumanBytes(done)),
        (Some(total), 0) => format!(" ({})", HumanBytes(total)),
        (Some(total), done) => format!(" ({}, of which {} are there)", HumanBytes(total), HumanBytes(done)),
    }
}

#[derive(Debug)]
struct Line {
    name: String,
    bytes: u64,
    has_moved: bool,
    start: Instant,
    finished: bool,
}

impl Transfer for Line {
    fn advance(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.has_moved = true;
    }

    fn total(&mut self, _: u64) {}

    fn restart(&mut self) {
        self.bytes = 0;
    }

    fn finish(mut self: Box<Self>) {
        self.finished = true;
        eprintln!("{}", finished(&self.name, self.bytes, self.start.elapsed()));
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // What never began is told by an error, or has not changed since the last time.
        if self.has_moved && !self.finished {
            eprintln!("{}", broken_off(&self.name, self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_says_how_much_comes() {
        assert_eq!(size(None, 0), "");
        assert_eq!(size(Some(2048), 0), " (2.00 KiB)");
        assert_eq!(size(Some(2048), 1024), " (2.00 KiB, of which 1.00 KiB are there)");
        assert_eq!(size(None, 1024), " (1.00 KiB are there)");
    }
}

//! What the VMM says while a guest runs: on the console, for whoever debugs. A guest can cause a line as often as
//! it likes, so lines are throttled, and those that are left out are counted.
#![forbid(unsafe_code)]

use std::fmt;
use std::fs::File;
use std::io::Write;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::bus::lock;

/// So many lines in so long.
const LINES_MAX: u32 = 10;
const WINDOW: Duration = Duration::from_secs(5);

/// Shared by all devices of a machine. A leaf in the lock order.
pub(crate) struct Journal {
    out: Option<File>,
    began: Instant,
    throttle: Mutex<Throttle>,
}

impl Journal {
    /// Without a file nothing is said.
    pub(crate) fn new(out: Option<File>) -> Self {
        Self { out, began: Instant::now(), throttle: Mutex::default() }
    }

    /// Something odd that a guest has caused; we go on.
    pub(crate) fn warn(&self, what: fmt::Arguments<'_>) {
        if let Some(left_out) = lock(&self.throttle).admit(self.began.elapsed()) {
            match left_out {
                0 => self.write(what),
                _ => self.write(format_args!("{what} ({left_out} lines before it were left out)")),
            }
        }
    }

    /// For what happens as often as it does, whatever a guest may do.
    pub(crate) fn say_unthrottled(&self, what: fmt::Arguments<'_>) {
        self.write(what);
    }

    fn write(&self, what: fmt::Arguments<'_>) {
        if let Some(mut out) = self.out.as_ref() {
            // In one piece between the guest's own. Whoever asked for it may have gone.
            let _ = out.write_all(format!("vmm: {what}\n").as_bytes());
        }
    }
}

/// Lets the first lines of each window through.
#[derive(Debug, Default)]
struct Throttle {
    window: Duration,
    said: u32,
    left_out: u64,
}

impl Throttle {
    /// `now` is since any fixed moment. `None`: be silent. Else how many were silent before.
    fn admit(&mut self, now: Duration) -> Option<u64> {
        if WINDOW <= now.saturating_sub(self.window) {
            (self.window, self.said) = (now, 0);
        }
        if LINES_MAX <= self.said {
            self.left_out += 1;
            return None;
        }
        self.said += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek};

    #[test]
    fn a_flood_is_cut_and_counted() {
        let mut throttle = Throttle::default();
        let mut admit = |ms| throttle.admit(Duration::from_millis(ms));
        assert_eq!([0; 10].map(&mut admit), [Some(0); 10]);
        assert_eq!([1, 2, 4999].map(&mut admit), [None; 3]);
        assert_eq!([5000, 5001].map(&mut admit), [Some(3), Some(0)]);
        assert_eq!([20_000; 11].map(&mut admit)[8..], [Some(0), Some(0), None]);
    }

    #[test]
    fn lines_say_whose_they_are() {
        let mut out = tempfile::tempfile().unwrap();
        let journal = Journal::new(Some(out.try_clone().unwrap()));
        (0..30).for_each(|index| journal.warn(format_args!("line {index}")));
        journal.say_unthrottled(format_args!("the end"));
        let mut said = String::new();
        out.rewind().unwrap();
        out.read_to_string(&mut said).unwrap();
        let lines: Vec<_> = said.lines().collect();
        assert_eq!((lines.len(), lines[0], lines[10]), (11, "vmm: line 0", "vmm: the end"));
        Journal::new(None).warn(format_args!("nobody hears it"));
    }
}

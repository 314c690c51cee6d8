//! Progress of fetches, on standard error: bars on a terminal, a line at a transfer's start and end elsewhere.

mod bars;
mod plain;

use std::collections::BTreeSet;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use hull_image::{Progress, Transfer};
use indicatif::HumanBytes;

use self::bars::Bars;
use self::plain::Lines;

/// Longest name of a transfer that is shown, in characters.
const NAME_MAX: usize = 60;

/// Longest note that is shown, in characters.
const NOTE_MAX: usize = 1000;

/// Looks at the terminal when the first transfer begins: most commands have none.
#[derive(Debug, Default)]
pub(crate) struct OnStderr {
    shown: OnceLock<Shown>,
    warned: Mutex<BTreeSet<String>>,
}

#[derive(Debug)]
enum Shown {
    Bars(Bars),
    Lines(Lines),
}

impl OnStderr {
    fn shown(&self) -> &dyn Progress {
        let shown = self.shown.get_or_init(|| Bars::on_terminal().map_or(Shown::Lines(Lines), Shown::Bars));
        match shown {
            Shown::Bars(bars) => bars,
            Shown::Lines(lines) => lines,
        }
    }
}

impl Progress for OnStderr {
    fn transfer(&self, what: &str, total: Option<u64>, done: u64) -> Box<dyn Transfer + '_> {
        self.shown().transfer(&printable(what, NAME_MAX), total, done)
    }

    fn note(&self, text: &str) {
        self.shown().note(&printable(text, NOTE_MAX));
    }

    fn warn(&self, text: &str) {
        let is_new = self.warned.lock().is_ok_and(|mut warned| warned.insert(text.to_owned()));
        if is_new {
            self.note(text);
        }
    }
}

/// Text that a server may have written: nothing in it moves the cursor, and it has an end.
pub(crate) fn printable(text: &str, max: usize) -> String {
    let mut shown = String::new();
    for (index, character) in text.chars().enumerate() {
        if index == max {
            shown.push_str("...");
            break;
        }
        match character {
            ' '..='~' => shown.push(character),
            other => shown.extend(other.escape_default()),
        }
    }
    shown
}

fn finished(name: &str, bytes: u64, time: Duration) -> String {
    format!("fetched {name}: {} in {:.1} s", HumanBytes(bytes), time.as_secs_f64())
}

fn broken_off(name: &str, bytes: u64) -> String {
    format!("broke off {name} after {}", HumanBytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_servers_say_does_not_reach_the_terminal() {
        let check = |text: &str, want: &str| assert_eq!(printable(text, 12), want);
        check("layer 3fa1", "layer 3fa1");
        check("a\x1b[2Jb\n", "a\\u{1b}[2Jb\\n");
        check("\u{202e}x\u{9b}", "\\u{202e}x\\u{9b}");
        check("0123456789abcdef", "0123456789ab...");
    }
}

//! Progress where somebody watches: a bar for each transfer, and a line when it is over.

use std::fmt;

use hull_image::{Progress, Transfer};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{broken_off, finished};

/// Name, bar, bytes, rate, time left.
const KNOWN: &str = "{msg} [{bar:24}] {bytes}/{total_bytes} {bytes_per_sec} {eta}";
/// The same of something whose end nobody told.
const UNKNOWN: &str = "{msg} {spinner} {bytes} {bytes_per_sec}";

#[derive(Clone)]
pub(super) struct Bars(MultiProgress);

impl fmt::Debug for Bars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bars")
    }
}

impl Bars {
    /// `None` where standard error is no terminal.
    pub(super) fn on_terminal() -> Option<Self> {
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        (!bars.is_hidden()).then_some(Self(bars))
    }

    fn line(&self, text: &str) {
        let _ = self.0.println(text); // A terminal that is gone needs no lines.
    }
}

impl Progress for Bars {
    fn transfer(&self, what: &str, total: Option<u64>, done: u64) -> Box<dyn Transfer + '_> {
        let (bar, template) = match total {
            Some(total) => (ProgressBar::new(total), KNOWN),
            None => (ProgressBar::no_length(), UNKNOWN),
        };
        let bar = self.0.add(bar.with_style(style(template)).with_message(what.to_owned()));
        bar.set_position(done);
        // What was there before says nothing of the rate.
        bar.reset_eta();
        Box::new(Bar { bars: self.clone(), bar, has_moved: false })
    }

    fn note(&self, text: &str) {
        self.line(text);
    }
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).expect("our own template is right");
    style.progress_chars("=> ")
}

struct Bar {
    bars: Bars,
    bar: ProgressBar,
    has_moved: bool,
}

impl Transfer for Bar {
    fn advance(&mut self, bytes: u64) {
        self.bar.inc(bytes);
        self.has_moved = true;
    }

    fn total(&mut self, bytes: u64) {
        self.bar.set_length(bytes);
        self.bar.set_style(style(KNOWN));
    }

    fn restart(&mut self) {
        self.bar.set_position(0);
        self.bar.reset_eta();
    }

    fn finish(self: Box<Self>) {
        self.bar.finish_and_clear();
        let text = finished(&self.bar.message(), self.bar.position(), self.bar.elapsed());
        self.bars.line(&text);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if !self.bar.is_finished() {
            self.bar.finish_and_clear();
            // What never began is told by an error, or has not changed since the last time.
            if self.has_moved {
                self.bars.line(&broken_off(&self.bar.message(), self.bar.position()));
            }
        }
    }
}

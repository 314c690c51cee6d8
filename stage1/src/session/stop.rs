//! How a pod is asked to end, and what becomes of the other signals.

use std::time::{Duration, Instant};

use hull_agent_protocol::ToAgent;
use nix::sys::signal::Signal;

use super::{End, Session};
use crate::{Error, terminal};

/// What an app gets between the signal that asks it to end and the one that makes it.
const GRACE: Duration = Duration::from_secs(10);

/// What the agent gets beyond the grace before its machine is taken away.
const OBEDIENCE: Duration = Duration::from_secs(5);

/// How urgently the pod has been asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    No,
    Asked,
    Forced,
}

impl Session {
    pub(super) fn overdue(&self) -> Option<End> {
        self.deadline.filter(|deadline| *deadline <= Instant::now())?;
        Some(if self.stop == Stop::No { End::Silent } else { End::Abandoned })
    }

    pub(super) fn on_signal(&mut self, signal: Signal) -> Result<(), Error> {
        match (signal, self.stop, self.terminal) {
            (Signal::SIGINT | Signal::SIGTERM, Stop::No, _) => {
                self.stop = Stop::Asked;
                self.deadline = Some(Instant::now() + GRACE + OBEDIENCE);
                self.ask_to_stop(signal, GRACE)
            }
            (Signal::SIGINT | Signal::SIGTERM, Stop::Asked, _) => {
                self.stop = Stop::Forced;
                self.deadline = Some(Instant::now() + OBEDIENCE);
                self.ask_to_stop(Signal::SIGKILL, Duration::ZERO)
            }
            (Signal::SIGINT | Signal::SIGTERM, Stop::Forced, _) => {
                self.deadline = Some(Instant::now());
                Ok(())
            }
            (Signal::SIGWINCH, _, Some(channel)) => {
                self.say(&ToAgent::Resize { channel, size: terminal::size() })
            }
            // A size that nobody's terminal has is no news.
            (Signal::SIGWINCH, _, None) => Ok(()),
            (other, _, _) => self.say(&ToAgent::Signal { signal: other as i32 }),
        }
    }

    fn ask_to_stop(&mut self, signal: Signal, grace: Duration) -> Result<(), Error> {
        self.manager.tell("STOPPING=1");
        let grace_ms = u32::try_from(grace.as_millis()).expect("the grace is seconds");
        // SIGTERM is what the host's tools send to anything; the image may know a better one.
        let signal = (signal != Signal::SIGTERM).then_some(signal as i32);
        self.say(&ToAgent::Stop { signal, grace_ms })
    }

    /// Ends the pod as `hull stop` asks for it, however often: the shortest grace counts.
    pub(super) fn stop(&mut self, force: bool, grace: Duration) -> Result<(), Error> {
        let grace = if force { Duration::ZERO } else { grace };
        let by = Instant::now() + grace + OBEDIENCE;
        let sooner = self.stop == Stop::No || self.deadline.is_none_or(|deadline| by < deadline);
        if !sooner {
            return Ok(());
        }
        self.deadline = Some(by);
        if force {
            self.stop = Stop::Forced;
            return self.ask_to_stop(Signal::SIGKILL, grace);
        }
        if self.stop == Stop::No {
            self.stop = Stop::Asked;
        }
        self.ask_to_stop(Signal::SIGTERM, grace)
    }
}

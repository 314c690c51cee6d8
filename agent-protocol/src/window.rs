//! Flow control: how much of a channel may be on its way.
//!
//! Each direction of each data channel starts with [`WINDOW`] bytes of credit. Sending spends credit;
//! the receiver gives it back with a `Credit` message once it has passed the bytes on. So neither end
//! ever holds more than a window of a channel, however slow the other side of it is.

use crate::Violation;

/// Bytes of one channel that may be sent and not yet consumed.
pub const WINDOW: u32 = 128 << 10;

/// The sender's account of one channel.
#[derive(Debug)]
pub struct Sending {
    available: u32,
}

impl Default for Sending {
    fn default() -> Self {
        Self { available: WINDOW }
    }
}

impl Sending {
    /// How many bytes may be sent now.
    pub fn available(&self) -> usize {
        self.available as usize
    }

    /// Notes that `bytes` were sent.
    ///
    /// # Panics
    /// If that is more than [`Self::available`]: our own bug.
    pub fn spend(&mut self, bytes: usize) {
        let bytes = u32::try_from(bytes).expect("a frame is shorter than 4 GiB");
        self.available = self.available.checked_sub(bytes).expect("the sender asked how much it may send");
    }

    /// Notes that the peer consumed `bytes`.
    ///
    /// # Errors
    /// More credit than was ever spent.
    pub fn credit(&mut self, bytes: u32) -> Result<(), Violation> {
        self.available = self
            .available
            .checked_add(bytes)
            .filter(|sum| *sum <= WINDOW)
            .ok_or_else(|| Violation(format!("credit of {bytes} bytes that were never sent")))?;
        Ok(())
    }
}

/// The receiver's account of one channel.
#[derive(Debug, Default)]
pub struct Receiving {
    held: u32,
    consumed: u32,
    ended: bool,
}

impl Receiving {
    /// Notes the payload of a data frame; an empty one ends the channel.
    ///
    /// # Errors
    /// More bytes than the window allows, or bytes after the end.
    pub fn receive(&mut self, bytes: usize) -> Result<(), Violation> {
        if self.ended {
            return Err(Violation("bytes on a channel that was ended".into()));
        }
        self.ended = bytes == 0;
        self.held = u32::try_from(bytes)
            .ok()
            .and_then(|bytes| self.held.checked_add(bytes))
            .filter(|held| *held <= WINDOW)
            .ok_or_else(|| Violation(format!("{bytes} bytes beyond the window of {WINDOW}")))?;
        Ok(())
    }

    /// Notes that `bytes` were passed on. `Some(n)`: tell the peer so now. Credit is given back in
    /// quarters of a window, to spend few messages on it.
    ///
    /// # Panics
    /// If more is consumed than was received: our own bug.
    pub fn consume(&mut self, bytes: usize) -> Option<u32> {
        let bytes = u32::try_from(bytes).expect("a frame is shorter than 4 GiB");
        self.consumed += bytes;
        assert!(self.consumed <= self.held, "consumed more than was received");
        if self.consumed < WINDOW / 4 {
            return None;
        }
        self.held -= self.consumed;
        Some(std::mem::take(&mut self.consumed))
    }

    /// Whether the peer has ended the channel.
    pub fn has_ended(&self) -> bool {
        self.ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credit_comes_back_in_quarters_and_never_exceeds_the_window() {
        let (mut sending, mut receiving) = (Sending::default(), Receiving::default());
        let quarter = WINDOW as usize / 4;
        for _ in 0..100 {
            sending.spend(quarter - 1);
            receiving.receive(quarter - 1).unwrap();
            assert_eq!(receiving.consume(quarter - 1), None);
            sending.spend(1);
            receiving.receive(1).unwrap();
            let back = receiving.consume(1).expect("a quarter was consumed");
            sending.credit(back).unwrap();
            assert_eq!(sending.available(), WINDOW as usize);
        }
    }

    #[test]
    fn a_peer_that_ignores_the_window_is_caught() {
        let mut receiving = Receiving::default();
        receiving.receive(WINDOW as usize).unwrap();
        assert!(receiving.receive(1).is_err());
    }

    #[test]
    fn invented_credit_is_caught() {
        assert!(Sending::default().credit(1).is_err());
        let mut sending = Sending::default();
        sending.spend(10);
        assert!(sending.credit(u32::MAX).is_err());
    }

    #[test]
    fn nothing_follows_the_end() {
        let mut receiving = Receiving::default();
        receiving.receive(0).unwrap();
        assert!(receiving.has_ended());
        assert!(receiving.receive(1).is_err());
        assert!(receiving.receive(0).is_err());
    }
}

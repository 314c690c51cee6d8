//! What is told of a fetch while it runs; how that is shown is the caller's matter.

/// Told of everything that takes time. Calls come from several threads and may come often.
pub trait Progress: Sync {
    /// A transfer begins: `what` names it for people (`layer 3fa1b2c3d4e5`), `total` is its size in bytes
    /// if the server says it, `done` what an earlier try had left.
    fn transfer(&self, what: &str, total: Option<u64>, done: u64) -> Box<dyn Transfer + '_>;

    /// Something happened that a person waiting wants to know: `waiting for another hull that downloads …`.
    fn note(&self, text: &str);

    /// Something is odd about the settings. It may be said again by every image of a command.
    fn warn(&self, text: &str) {
        self.note(text);
    }
}

/// One transfer of several. Dropped without [`Transfer::finish`], it has failed.
pub trait Transfer: Send {
    /// So many bytes have arrived since the last call.
    fn advance(&mut self, bytes: u64);

    /// The server says only now how many bytes there are in all.
    fn total(&mut self, bytes: u64);

    /// The server ignored where we wanted to go on: everything comes anew.
    fn restart(&mut self);

    fn finish(self: Box<Self>);
}

/// Tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quiet;

impl Progress for Quiet {
    fn transfer(&self, _: &str, _: Option<u64>, _: u64) -> Box<dyn Transfer + '_> {
        Box::new(Quiet)
    }

    fn note(&self, _: &str) {}
}

impl Transfer for Quiet {
    fn advance(&mut self, _: u64) {}

    fn total(&mut self, _: u64) {}

    fn restart(&mut self) {}

    fn finish(self: Box<Self>) {}
}

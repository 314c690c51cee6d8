//! What can go wrong here, by what the caller's shell should see.
use std::process::ExitCode;

/// Decides the exit code; see [`Kind::exit_code`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A step failed.
    Failed,
    /// The command line makes no sense.
    Usage,
    /// The lab ran out of time.
    Timeout,
    /// The lab itself broke, not the command in it.
    Lab,
    /// A signal ended us.
    Signal(u8),
}

impl Kind {
    /// As timeout(1), env(1) and the shells have it: 124 out of time, 125 the tool itself failed,
    /// 128+N signal N.
    pub(crate) fn exit_code(self) -> ExitCode {
        ExitCode::from(match self {
            Kind::Failed => 1,
            Kind::Usage => 2,
            Kind::Timeout => 124,
            Kind::Lab => 125,
            Kind::Signal(number) => 128 + number,
        })
    }
}

pub(crate) type Error = hull_errors::Error<Kind>;
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// A complaint about the command line, with the way out.
pub(crate) fn usage(what: impl std::fmt::Display) -> Error {
    Error::new(Kind::Usage, format!("{what} (see `cargo xtask help`)"))
}

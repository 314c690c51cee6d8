//! Failures of this crate.

use std::io;

use hull_converter_protocol::Kind;

/// Every failure of this crate.
pub type Error = hull_errors::Error<Kind>;

/// The kind of a failure to write the output.
pub(crate) fn writing(error: &io::Error) -> Kind {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Kind::NoSpace,
        io::ErrorKind::FileTooLarge => Kind::TooLarge,
        _ => Kind::Host,
    }
}

/// What a user can do about a failure to write; nothing to say for most.
pub(crate) fn way_out(error: &io::Error) -> &'static str {
    match writing(error) {
        Kind::NoSpace => " (free some space, or remove images and pods that are no longer needed)",
        _ => "",
    }
}

/// The kind of a failure to read bytes that came from outside. The readers of this crate report an
/// exceeded limit as `FileTooLarge`.
pub(crate) fn reading(error: &io::Error) -> Kind {
    match error.kind() {
        io::ErrorKind::FileTooLarge => Kind::TooLarge,
        _ => Kind::Corrupt,
    }
}

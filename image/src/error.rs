//! What can go wrong with an image, and who has to do something about it.

use std::io;

pub(crate) use hull_converter_protocol::shown;

/// Every failure of this crate.
pub type Error = hull_errors::Error<Kind>;

/// What callers branch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing by that name: no file, no tag, no image in the store.
    NotFound,
    /// Something is there, and it is no image in a format we know.
    NotAnImage,
    /// The image contradicts itself, its digest, or the format it claims.
    Corrupt,
    /// An image for another machine.
    WrongPlatform,
    /// Well-formed, and more than this version can do.
    Unsupported,
    /// The reference fits several images.
    Ambiguous,
    /// No signature that counts, or one that does not hold.
    Untrusted,
    /// A server asked for credentials, or refused those it was given.
    Unauthorized,
    /// A server could not be reached, or did not answer as it must.
    Network,
    /// A limit of ours would be exceeded.
    TooLarge,
    /// The disk of the store is full.
    NoSpace,
    /// The host failed us: permissions, I/O errors.
    Host,
}

/// The kind of a failure to write into the store.
pub(crate) fn writing(error: &io::Error) -> Kind {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Kind::NoSpace,
        _ => Kind::Host,
    }
}

/// What a user can do about a failure to write; nothing to say for most.
pub(crate) fn way_out(error: &io::Error) -> &'static str {
    match (writing(error), error.kind()) {
        (Kind::NoSpace, _) => " (free some space, or remove images and pods that are no longer needed)",
        (_, io::ErrorKind::PermissionDenied) => {
            " (this user may not: run it as root, or choose another place)"
        }
        (_, io::ErrorKind::ReadOnlyFilesystem) => " (mount it writable, or choose another place)",
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

/// The kind of a failure to open what the user named.
pub(crate) fn opening(error: &io::Error) -> Kind {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Kind::NotFound,
        _ => Kind::Host,
    }
}

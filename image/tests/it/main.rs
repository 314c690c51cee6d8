//! Whole images in, mounted file systems out: needs root, `fsck.erofs` (erofs-utils), GNU tar, strace.

mod conversion;
mod formats;
mod hostile;
mod interruption;
mod support;

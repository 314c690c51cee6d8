//! How much of everything there may be.

/// Bytes that all layers of one image may have together once uncompressed.
pub const UNCOMPRESSED_MAX: u64 = 64 << 30;

/// Longest JSON document that is read: an index, a manifest, a configuration.
pub const DOCUMENT_MAX: u64 = 4 << 20;

/// Most layers of one image. Docker stops at 127, overlayfs at 500.
pub const LAYERS_MAX: usize = 512;

/// Most members of an archive that holds images: layers, their configurations, folders.
pub const MEMBERS_MAX: usize = 1 << 14;

/// Longest request in bytes.
pub const REQUEST_MAX: u64 = 16 << 20;

/// Longest answer in bytes: a document of [`DOCUMENT_MAX`] with every byte escaped.
pub const ANSWER_MAX: u64 = 6 * DOCUMENT_MAX + (1 << 20);

/// Pieces in which contents are read and written.
pub const BUFFER_SIZE: usize = 256 << 10;

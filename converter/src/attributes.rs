//! What every file has beside its content: permissions, owner, time, extended attributes.

/// Longest name of one file, in bytes (`NAME_MAX` of limits.h).
pub(crate) const NAME_MAX: usize = 255;

/// Longest path and longest target of a link, in bytes (`PATH_MAX` of limits.h, less the NUL).
pub(crate) const PATH_MAX: usize = 4095;

/// Longest value of one extended attribute, in bytes: what EROFS has room for, one less than
/// `XATTR_SIZE_MAX` of linux/limits.h.
pub(crate) const XATTR_VALUE_MAX: usize = u16::MAX as usize;

/// All names and values of one file's extended attributes, in bytes (`XATTR_LIST_MAX`, which the
/// kernel applies to the names alone).
pub(crate) const XATTRS_TOTAL_MAX: usize = 128 << 10;

/// Seconds since 1970 and nanoseconds after that second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Time {
    pub(crate) seconds: i64,
    pub(crate) nanoseconds: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    /// The low twelve bits of `st_mode`.
    pub(crate) permissions: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) modified: Time,
}

/// An extended attribute; the name is whole, `security.capability` say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Xattr {
    pub(crate) name: Box<[u8]>,
    pub(crate) value: Box<[u8]>,
}

impl Attributes {
    /// Those of a directory that an archive uses without listing it.
    pub(crate) fn of_implied_directory() -> Self {
        Self { permissions: 0o755, ..Self::default() }
    }
}

/// A device number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeviceNumber {
    major: u32,
    minor: u32,
}

impl DeviceNumber {
    /// `None`: more than Linux has bits for (12 and 20, include/linux/kdev_t.h).
    pub(crate) fn new(major: u32, minor: u32) -> Option<Self> {
        (major < 1 << 12 && minor < 1 << 20).then_some(Self { major, minor })
    }

    /// As `new_encode_dev` of include/linux/kdev_t.h.
    pub(crate) fn encoded(self) -> u32 {
        (self.minor & 0xff) | (self.major << 8) | ((self.minor & !0xff) << 12)
    }

    /// The other way.
    pub(crate) fn decoded(encoded: u32) -> Self {
        Self { major: (encoded >> 8) & 0xfff, minor: (encoded & 0xff) | ((encoded >> 12) & 0xf_ff00) }
    }
}

//! Extended attributes, written behind the inode they belong to (`struct erofs_xattr_ibody_header`).

use super::format::put;
use crate::attributes::Xattr;

const HEADER: usize = 12;
const ALIGN: usize = 4;

/// Namespaces that EROFS knows, longest first where one begins another (`EROFS_XATTR_INDEX_*`).
const PREFIXES: [(&[u8], u8); 5] = [
    (b"system.posix_acl_access", 2),
    (b"system.posix_acl_default", 3),
    (b"user.", 1),
    (b"trusted.", 4),
    (b"security.", 6),
];

/// Attributes that an image must not set: they are how overlayfs marks its own files, and the image
/// becomes a layer of one.
const OF_OVERLAYFS: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];

/// The attributes as they lie behind the inode; empty if there are none. Names of namespaces that
/// Linux does not have (archives of other systems) are left out, as no Linux could set them.
pub(crate) fn body(xattrs: &[Xattr]) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    for Xattr { name, value } in xattrs {
        let Some((index, suffix)) = split_name(name) else { continue };
        let (Ok(name_len), Ok(value_len)) = (u8::try_from(suffix.len()), u16::try_from(value.len())) else {
            continue;
        };
        let start = bytes.len();
        bytes.resize(start + 4, 0);
        put(&mut bytes, start, &[name_len, index]);
        put(&mut bytes, start + 2, &value_len.to_le_bytes());
        bytes.extend_from_slice(suffix);
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(ALIGN), 0);
    }
    if bytes.len() == HEADER {
        bytes.clear();
    }
    bytes
}

/// `i_xattr_icount`: the header counts as one, then units of four bytes.
pub(super) fn count(body_len: usize) -> u16 {
    match body_len.checked_sub(HEADER) {
        None => 0,
        Some(entries) => u16::try_from(entries / ALIGN + 1).expect("XATTRS_TOTAL_MAX bounds the body"),
    }
}

fn split_name(name: &[u8]) -> Option<(u8, &[u8])> {
    if OF_OVERLAYFS.iter().any(|prefix| name.starts_with(prefix)) {
        return None;
    }
    PREFIXES.iter().find_map(|(prefix, index)| {
        let suffix = name.strip_prefix(*prefix)?;
        let is_whole_name = !prefix.ends_with(b".");
        (suffix.is_empty() == is_whole_name).then_some((*index, suffix))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_linux_can_set_survive() {
        let check = |name: &[u8], want: Option<(u8, &[u8])>| assert_eq!(split_name(name), want, "{name:?}");
        check(b"user.a", Some((1, b"a")));
        check(b"security.capability", Some((6, b"capability")));
        check(b"trusted.x", Some((4, b"x")));
        check(b"system.posix_acl_access", Some((2, b"")));
        check(b"system.posix_acl_default", Some((3, b"")));
        check(b"system.posix_acl_access2", None);
        check(b"user.", None);
        check(b"com.apple.quarantine", None);
        check(b"trusted.overlay.opaque", None);
        check(b"user.overlay.redirect", None);
    }
}

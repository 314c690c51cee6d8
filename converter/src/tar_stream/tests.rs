//! Archives, well made and not.
use proptest::prelude::*;
use tar::Header;

use super::pax::Pax;
use super::{EntryKind, TarStream};
use crate::attributes::Time;

fn header(name: &str, kind: u8, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_mode(0o4755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header.set_cksum();
    header
}

fn archive(parts: &[(&Header, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (header, content) in parts {
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

/// All entries as `path kind content`, or the error.
fn read(bytes: &[u8]) -> Result<Vec<String>, String> {
    let mut tar = TarStream::new(bytes, "archive");
    let mut lines = Vec::new();
    while let Some(entry) = tar.next_entry().map_err(|e| hull_errors::chain(&e))? {
        let content = tar.short_content(1 << 20).map_err(|e| hull_errors::chain(&e))?;
        let kind = match &entry.kind {
            EntryKind::File(content) => format!("file {}", content.size()),
            other => format!("{other:?}"),
        };
        lines.push(format!("{} {kind} {}", entry.path.escape_ascii(), content.escape_ascii()));
    }
    Ok(lines)
}

#[test]
fn extensions_apply_to_the_next_entry_only() {
    let long = header("L", b'L', 6);
    let (one, two) = (header("one", b'0', 3), header("two", b'0', 3));
    let bytes = archive(&[(&long, b"other\0"), (&one, b"abc"), (&two, b"def")]);
    assert_eq!(read(&bytes).unwrap(), ["other file 3 abc", "two file 3 def"]);
    let pax = header("x", b'x', 12);
    let bytes = archive(&[(&pax, b"12 path=pax\n"), (&one, b"abc"), (&two, b"def")]);
    assert_eq!(read(&bytes).unwrap(), ["pax file 3 abc", "two file 3 def"]);
}

#[test]
fn a_size_in_a_pax_header_counts() {
    let (pax, file, next) = (header("x", b'x', 10), header("a", b'0', 0), header("b", b'0', 0));
    let bytes = archive(&[(&pax, b"10 size=5\n"), (&file, b"12345"), (&next, b"")]);
    assert_eq!(read(&bytes).unwrap(), ["a file 5 12345", "b file 0 "]);
}

#[test]
fn every_cut_is_noticed_or_is_a_whole_archive() {
    let (one, two) = (header("one", b'0', 700), header("two", b'0', 3));
    let bytes = archive(&[(&one, &[b'a'; 700]), (&two, b"def")]);
    for end in 0..bytes.len() {
        let boundary = end == 0 || end == 512 + 1024 || end >= 512 + 1024 + 1024;
        let got = read(&bytes[..end]);
        assert!(got.is_ok() == (boundary && end % 512 == 0), "{end}: {got:?}");
    }
}

#[test]
fn a_damaged_header_is_noticed() {
    let bytes = archive(&[(&header("one", b'0', 3), b"abc")]);
    for at in 0..512 {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x40;
        let spaces_in_the_checksum = (148..156).contains(&at);
        assert!(read(&damaged).is_err() || spaces_in_the_checksum, "byte {at}");
    }
}

#[test]
fn times_before_1970_and_fractions() {
    let check = |text: &str, want: Option<(i64, u32)>| {
        let record = format!(" mtime={text}\n");
        let length = record.len() + 2;
        let mut pax = Pax::default();
        let got = pax.add(format!("{length}{record}").as_bytes()).ok().and(pax.modified);
        assert_eq!(got, want.map(|(seconds, nanoseconds)| Time { seconds, nanoseconds }), "{text}");
    };
    check("12", Some((12, 0)));
    check("12.5", Some((12, 500_000_000)));
    check("12.123456789987", Some((12, 123_456_789)));
    check("-12", Some((-12, 0)));
    check("-12.25", Some((-13, 750_000_000)));
    check("12x", None);
    check("1.-2", None);
    check("99999999999999999999", None);
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
        let _ = read(&bytes); // Whatever it says, it says it without a panic.
    }

    /// Headers that pass the checksum, with fields of any content.
    #[test]
    fn no_header_panics(
        fields in proptest::collection::vec((0usize..512, any::<u8>()), 0..12),
        kind in prop::sample::select(b"01234567xgLKSDV\0".to_vec()),
        content in proptest::collection::vec(any::<u8>(), 0..1500),
        digits in "[0-9]{1,4} (path|size|mtime|GNU.sparse.(map|major|minor|realsize)|SCHILY.xattr.user.a)=[0-9,.-]{0,8}\n",
    ) {
        let mut odd = header("entry", kind, content.len() as u64);
        for (at, byte) in fields {
            odd.as_mut_bytes()[at] = byte;
        }
        odd.set_cksum();
        let pax = header("x", b'x', digits.len() as u64);
        let last = header("last", b'0', 0);
        let _ = read(&archive(&[(&odd, &content), (&last, b"")])); // As above.
        let _ = read(&archive(&[(&pax, digits.as_bytes()), (&odd, &content), (&last, b"")])); // As above.
    }

    #[test]
    fn pax_records_come_back(values in proptest::collection::btree_map("[a-z]{1,20}", proptest::collection::vec(any::<u8>(), 0..200), 0..5)) {
        let mut bytes = Vec::new();
        for (name, value) in &values {
            let rest = " SCHILY.xattr.=\n".len() + name.len() + value.len();
            let length = (1..5).map(|digits| rest + digits).find(|n| n.to_string().len() + rest == *n).unwrap();
            bytes.extend_from_slice(format!("{length} SCHILY.xattr.{name}=").as_bytes());
            bytes.extend_from_slice(value);
            bytes.push(b'\n');
        }
        let mut pax = Pax::default();
        pax.add(&bytes).unwrap();
        let want = values.into_iter().map(|(name, value)| (name.into_bytes(), value)).collect();
        prop_assert_eq!(pax.xattrs, want);
    }
}

//! Archives made to break something: one table, each kind in a process of its own.
//!
//! Each writes nothing but its output, which the jail sees to (`jail.rs`); stays within bounds of memory
//! and time; and ends in a sound image or in an error that names the entry.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use hull_converter_protocol::{Answer, Flavour};

use crate::support::{Archive, convert, output_of, unknown};

/// Most memory of the process, whatever the archive.
const PEAK_MAX: u64 = 64 << 20;

/// Most disk that a refused or accepted archive of this table takes.
const DISK_MAX: u64 = 64 << 20;

/// Most processor time for one, unoptimised.
const TIME_MAX: Duration = Duration::from_secs(60);

/// What becomes of it.
enum Want {
    /// A sound image.
    Accepted,
    /// An error with this text.
    Refused(&'static str),
}

use Want::{Accepted, Refused};

struct Kind {
    name: &'static str,
    archive: fn() -> File,
    want: Want,
}

const fn kind(name: &'static str, archive: fn() -> File, want: Want) -> Kind {
    Kind { name, archive, want }
}

fn new() -> Archive {
    Archive::new()
}

fn with(name: &str, records: &[(&str, &[u8])]) -> File {
    new().pax(records).file(name).done()
}

/// A number field set to these bytes.
fn field(at: usize, bytes: &'static [u8]) -> File {
    new().raw(b"odd", b'0', b"", |h| h[at..at + bytes.len()].copy_from_slice(bytes)).done()
}

const SIZE: usize = 124;

const KINDS: &[Kind] = &[
    // Names that lead out.
    kind("dot-dot", || new().file("../x").done(), Refused("entry `../x`")),
    kind("dot-dot inside", || new().file("a/../../x").done(), Refused("entry `a/../../x`")),
    kind("dot-dot at the end", || new().entry(b"a/..", b'5', b"").done(), Refused("entry `a/..`")),
    kind("absolute", || new().file("/etc/passwd").done(), Accepted),
    kind("many slashes", || new().file("////etc////passwd").done(), Accepted),
    kind("backslashes and a drive", || new().file("C:\\..\\x").done(), Accepted),
    kind("dot-dot by pax", || with("a", &[("path", b"../../x")]), Refused("entry `../../x`")),
    kind("dot-dot by GNU", || new().entry(b"L", b'L', b"../x\0").file("a").done(), Refused("entry `../x`")),
    kind(
        "dot-dot by prefix",
        || new().raw(b"x", b'0', b"", |h| h[345..347].copy_from_slice(b"..")).done(),
        Refused("leads up"),
    ),
    kind("proc", || new().file("proc/self/fd/1").done(), Accepted),
    // Links.
    kind(
        "symlink, then a file through it",
        || new().link("a", b'2', "/etc").file("a/passwd").done(),
        Refused("entry `a/passwd`: `a` on its way is a symbolic link"),
    ),
    kind(
        "symlink, then a directory over it",
        || new().link("a", b'2', "/etc").entry(b"a", b'5', b"").done(),
        Accepted,
    ),
    kind(
        "symlink, then a directory through it",
        || new().link("a", b'2', "/etc").entry(b"a/b", b'5', b"").done(),
        Refused("entry `a/b`"),
    ),
    kind(
        "symlink, then a link through it",
        || new().link("a", b'2', "/etc").link("a/b", b'2', "x").done(),
        Refused("entry `a/b`"),
    ),
    kind(
        "symlink, then a file of its name",
        || new().link("a", b'2', "/etc/passwd").file("a").done(),
        Accepted,
    ),
    kind("symlink out", || new().link("a", b'2', "../../../../etc/shadow").done(), Accepted),
    kind("symlinks in a circle", || new().link("a", b'2', "b").link("b", b'2', "a").done(), Accepted),
    kind("symlink to itself", || new().link("a", b'2', "a").done(), Accepted),
    kind(
        "symlink to nothing",
        || new().entry(b"a", b'2', b"").done(),
        Refused("entry `a`: its target is empty"),
    ),
    kind("hard link out", || new().link("a", b'1', "../../etc/shadow").done(), Refused("entry `a`")),
    kind(
        "hard link to the host",
        || new().link("a", b'1', "/etc/shadow").done(),
        Refused("is not in the image"),
    ),
    kind("hard link to itself", || new().link("a", b'1', "a").done(), Refused("entry `a`")),
    kind(
        "hard links in a circle",
        || new().link("a", b'1', "b").link("b", b'1', "a").done(),
        Refused("entry `a`"),
    ),
    kind(
        "hard link to a directory",
        || new().entry(b"d", b'5', b"").link("a", b'1', "d").done(),
        Refused("is a directory"),
    ),
    kind(
        "hard link through a symlink",
        || new().entry(b"d", b'5', b"").file("d/f").link("s", b'2', "d").link("a", b'1', "s/f").done(),
        Refused("entry `a`"),
    ),
    kind(
        "hard link with content",
        || new().file("b").raw(b"a", b'1', b"hidden", |h| h[157] = b'b').done(),
        Refused("6 bytes of content"),
    ),
    kind("hard link over its own folder", || new().file("d/f").link("d", b'1', "d/f").done(), Accepted),
    // Whiteouts.
    kind(
        "whiteout through a symlink",
        || new().link("s", b'2', "/etc").file("s/.wh.passwd").done(),
        Accepted,
    ),
    kind("whiteout of the parent", || new().file("a/.wh...").done(), Refused("whiteout of no name")),
    kind("whiteout of no name", || new().file(".wh.").done(), Refused("whiteout of no name")),
    kind("whiteout as a folder", || new().file(".wh.a/b").done(), Refused("called like a whiteout")),
    kind("opaque on a symlink", || new().link("s", b'2', "/etc").file("s/.wh..wh..opq").done(), Accepted),
    kind("opaque on a file", || new().file("f").file("f/.wh..wh..opq").done(), Accepted),
    kind("opaque on the root", || new().file(".wh..wh..opq").done(), Accepted),
    // Types.
    kind(
        "device of the host's disk",
        || {
            new()
                .raw(b"sda", b'4', b"", |h| {
                    h[329..336].copy_from_slice(b"0000010");
                    h[337..344].copy_from_slice(b"0000000");
                })
                .done()
        },
        Accepted,
    ),
    kind(
        "device without a number",
        || new().raw(b"dev", b'3', b"", |h| h[329..337].copy_from_slice(b"7777777\0")).done(),
        Refused("its device number is none"),
    ),
    kind("pipe with content", || new().entry(b"pipe", b'6', b"x").done(), Refused("1 bytes of content")),
    kind(
        "setuid root",
        || new().raw(b"su", b'0', b"x", |h| h[100..107].copy_from_slice(b"0004755")).done(),
        Accepted,
    ),
    kind("unknown type", || new().entry(b"a", b'Z', b"").done(), Refused("its type `Z` is unknown")),
    kind("multi-volume", || new().entry(b"a", b'M', b"").done(), Refused("entry `a`")),
    kind("file as the root", || new().file("./").done(), Refused("in the place of the root directory")),
    kind(
        "symlink as the root",
        || new().link("./", b'2', "/etc").done(),
        Refused("in the place of the root directory"),
    ),
    kind(
        "directory, then a file, then a directory",
        || new().entry(b"a", b'5', b"").file("a/x").file("a").entry(b"a", b'5', b"").done(),
        Accepted,
    ),
    kind("file, then something in it", || new().file("a").file("a/b").done(), Refused("entry `a/b`")),
    // Names that are none.
    kind("NUL in a name", || with("a", &[("path", b"a\0b")]), Refused("has a NUL inside")),
    kind("line feed in a name", || with("a", &[("path", b"a\nb\x1b[2J")]), Accepted),
    kind("bytes that are no text", || with("a", &[("path", b"\xff\xfe\x80")]), Accepted),
    kind("name of 255 bytes", || with("a", &[("path", &[b'n'; 255])]), Accepted),
    kind("name of 256 bytes", || with("a", &[("path", &[b'n'; 256])]), Refused("more than 255 bytes")),
    kind("path of 5000 bytes", || with("a", &[("path", &[b'/'; 5000])]), Refused("at most 4095")),
    kind(
        "path of 1 GiB",
        || new().raw(b"L", b'L', b"", |h| h[SIZE..SIZE + 12].copy_from_slice(b"10000000000\0")).cut(),
        Refused("an extended header of 1073741824 bytes"),
    ),
    kind("empty name", || new().entry(b"", b'0', b"").done(), Refused("is empty")),
    kind(
        "two names",
        || new().entry(b"L", b'L', b"long\0").pax(&[("path", b"other")]).file("a").done(),
        Refused("given twice"),
    ),
    // Numbers.
    kind(
        "negative size",
        || field(SIZE, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
        Refused("odd"),
    ),
    kind(
        "largest size in base 256",
        || field(SIZE, b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
        Refused("odd"),
    ),
    kind(
        "64 bits of size in base 256",
        || field(SIZE, b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff"),
        Refused("odd"),
    ),
    kind("size that is no number", || field(SIZE, b"0x10        "), Refused("odd")),
    kind("size with a sign", || field(SIZE, b"-0000000001\0"), Refused("odd")),
    kind(
        "size of a terabyte",
        || new().pax(&[("size", b"1099511627776")]).file("big").done(),
        Refused("entry `big`: 1099511627776 bytes, at most"),
    ),
    kind(
        "pax size too large for a number",
        || new().pax(&[("size", b"99999999999999999999")]).file("big").done(),
        Refused("is no number"),
    ),
    kind(
        "pax and ustar sizes differ",
        || new().pax(&[("size", b"513")]).file("a").file("smuggled").done(),
        Refused("checksum is wrong"),
    ),
    kind(
        "uid above 2^32",
        || with("a", &[("uid", b"4294967296")]),
        Refused("its owner 4294967296 is too large"),
    ),
    kind("uid that means none", || with("a", &[("uid", b"4294967295")]), Refused("is too large")),
    kind("uid above 2^31", || with("a", &[("uid", b"4294967294")]), Accepted),
    kind("negative uid", || with("a", &[("uid", b"-1")]), Refused("is no number")),
    kind("time before the universe", || with("a", &[("mtime", b"-9223372036854775807")]), Accepted),
    kind("time that is no number", || with("a", &[("mtime", b"1e9")]), Refused("is no time")),
    kind("wrong checksum", || new().file("a").bytes(&[b'x'; 512]).done(), Refused("checksum is wrong")),
    // Extended headers.
    kind(
        "pax record longer than its header",
        || new().entry(b"p", b'x', b"99 path=a\n").file("a").done(),
        Refused("a malformed pax header"),
    ),
    kind(
        "pax record of length zero",
        || new().entry(b"p", b'x', b"0 a=b\n").file("a").done(),
        Refused("a malformed pax header"),
    ),
    kind(
        "pax header of 2 MiB",
        || new().entry(b"p", b'x', &[b'x'; 2 << 20]).file("a").done(),
        Refused("an extended header of 2097152 bytes"),
    ),
    kind(
        "a hundred thousand pax headers",
        || {
            let mut a = new();
            for _ in 0..100_000 {
                a = a.entry(b"p", b'x', b"6 a=b\n");
            }
            a.done()
        },
        Refused("the archive ends after an extended header"),
    ),
    kind(
        "global pax header with a path",
        || new().entry(b"g", b'g', b"12 path=aaa\n").file("a").done(),
        Refused("a global pax header sets `path`"),
    ),
    kind(
        "global pax header with a size",
        || new().entry(b"g", b'g', b"9 size=5\n").file("a").done(),
        Refused("a global pax header sets `size`"),
    ),
    kind(
        "extended header at the end",
        || new().pax(&[("path", b"a")]).done(),
        Refused("ends after an extended header"),
    ),
    // Attributes.
    kind("xattr of no namespace", || with("a", &[("SCHILY.xattr.com.apple.quarantine", b"1")]), Accepted),
    kind("xattr without a name", || with("a", &[("SCHILY.xattr.", b"1")]), Accepted),
    kind("xattr with a NUL and a slash", || with("a", &[("SCHILY.xattr.user.a\0/../b", b"1")]), Accepted),
    kind(
        "xattr with a name of 300 bytes",
        || with("a", &[(&format!("SCHILY.xattr.user.{}", "n".repeat(300)), b"1")]),
        Accepted,
    ),
    kind(
        "xattr of 70 KB",
        || with("a", &[("SCHILY.xattr.user.a", &[b'v'; 70_000])]),
        Refused("an extended attribute of 70000 bytes"),
    ),
    kind(
        "overlayfs's own marks",
        || with("a", &[("SCHILY.xattr.trusted.overlay.redirect", b"/etc")]),
        Accepted,
    ),
    kind(
        "ten thousand xattrs",
        || {
            let names: Vec<_> = (0..10_000).map(|n| format!("SCHILY.xattr.user.{n}")).collect();
            let records: Vec<_> = names.iter().map(|n| (&**n, [b'v'; 20].as_slice())).collect();
            with("a", &records)
        },
        Refused("of extended attributes"),
    ),
    // Sparse files.
    kind(
        "sparse pieces that overlap",
        || {
            with(
                "a",
                &[
                    ("GNU.sparse.major", b"0"),
                    ("GNU.sparse.minor", b"1"),
                    ("GNU.sparse.size", b"10"),
                    ("GNU.sparse.map", b"0,1,0,1"),
                ],
            )
        },
        Refused("overlap or exceed"),
    ),
    kind(
        "sparse pieces beyond the end",
        || {
            with(
                "a",
                &[
                    ("GNU.sparse.major", b"0"),
                    ("GNU.sparse.minor", b"1"),
                    ("GNU.sparse.size", b"10"),
                    ("GNU.sparse.map", b"10,1"),
                ],
            )
        },
        Refused("overlap or exceed"),
    ),
    kind(
        "sparse pieces that wrap",
        || {
            with(
                "a",
                &[
                    ("GNU.sparse.major", b"0"),
                    ("GNU.sparse.minor", b"1"),
                    ("GNU.sparse.size", b"10"),
                    ("GNU.sparse.map", b"18446744073709551615,1"),
                ],
            )
        },
        Refused("overlap or exceed"),
    ),
    kind(
        "sparse file with too little content",
        || {
            with(
                "a",
                &[
                    ("GNU.sparse.major", b"0"),
                    ("GNU.sparse.minor", b"1"),
                    ("GNU.sparse.size", b"10"),
                    ("GNU.sparse.map", b"0,5"),
                ],
            )
        },
        Refused("pieces of 5 bytes and 1 bytes of content"),
    ),
    kind(
        "sparse file of an exabyte",
        || {
            with(
                "a",
                &[
                    ("GNU.sparse.major", b"0"),
                    ("GNU.sparse.minor", b"1"),
                    ("GNU.sparse.size", b"1152921504606846976"),
                    ("GNU.sparse.map", b"0,1"),
                ],
            )
        },
        Refused("entry `a`"),
    ),
    kind(
        "sparse file of 60 GiB",
        || {
            with(
                "a",
                &[
                    ("GNU.sparse.major", b"0"),
                    ("GNU.sparse.minor", b"1"),
                    ("GNU.sparse.size", b"64424509440"),
                    ("GNU.sparse.map", b"0,1"),
                ],
            )
        },
        Accepted,
    ),
    kind(
        "sparse map that does not end",
        || {
            with(
                "a",
                &[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"10")],
            )
        },
        Refused("entry `a`"),
    ),
    kind(
        "sparse file by a link",
        || new().pax(&[("GNU.sparse.size", b"10"), ("GNU.sparse.map", b"0,1")]).link("a", b'2', "b").done(),
        Accepted,
    ),
    // Streams.
    kind("no bytes at all", || new().cut(), Accepted),
    kind("half a header", || new().bytes(&[b'x'; 100]).cut(), Refused("ends in the middle")),
    kind(
        "half a content",
        || new().raw(b"a", b'0', b"x", |h| h[SIZE..SIZE + 12].copy_from_slice(b"00000010000\0")).cut(),
        Refused("in entry `a`: the archive ends in the middle"),
    ),
    kind(
        "zeros in the middle",
        || new().file("a").bytes(&[0; 512]).file("b").done(),
        Refused("after entry `a`: a block of zeros in the middle"),
    ),
    kind("two archives in one", || new().file("a").bytes(&[0; 1024]).file("b").done(), Accepted),
    kind("garbage after the end", || new().file("a").bytes(&[0; 1024]).bytes(&[7; 5000]).cut(), Accepted),
    kind("no tar at all", || output_of("head -c 100000 /dev/urandom"), Refused("no tar header")),
    // Numbers of things.
    kind(
        "a hundred thousand entries",
        || {
            let mut a = new();
            for n in 0..100_000 {
                a = a.entry(n.to_string().as_bytes(), b'0', b"");
            }
            a.done()
        },
        Accepted,
    ),
    kind(
        "a hundred thousand times one name",
        || {
            let mut a = new();
            for _ in 0..100_000 {
                a = a.file("a");
            }
            a.done()
        },
        Accepted,
    ),
    kind(
        "three hundred thousand entries",
        || {
            let mut a = new();
            for n in 0..300_000 {
                a = a.entry(format!("{}/{n}", n / 1000).as_bytes(), b'0', b"");
            }
            a.done()
        },
        Accepted,
    ),
    kind(
        "entries in no order",
        || {
            let mut a = new();
            for n in 0..50_000_u64 {
                let name = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
                a = a.entry(format!("{}/{name}", name % 3000).as_bytes(), b'0', b"x");
            }
            a.done()
        },
        Accepted,
    ),
    kind(
        "a hundred thousand opaque marks on a full folder",
        || {
            let mut a = new();
            for n in 0..20_000 {
                a = a.file(&format!("d/{n}"));
            }
            for _ in 0..100_000 {
                a = a.file("d/.wh..wh..opq");
            }
            a.done()
        },
        Accepted,
    ),
    kind("five hundred folders deep", || with("a", &[("path", "d/".repeat(500).as_bytes())]), Accepted),
];

/// Compressed archives: by this script, with this result.
const STREAMS: &[(&str, &str, Want)] = &[
    ("gzip bomb that is no tar", "head -c 1G /dev/zero | gzip -1", Accepted),
    ("zstd bomb that is no tar", "head -c 1G /dev/zero | zstd -1", Accepted),
    (
        "zstd with a window of 2 GiB",
        "head -c 1M /dev/urandom | zstd --ultra --long=31 --no-check",
        Refused("a window of more than 32 MiB"),
    ),
    // Of a window as large as the content, which is no tar archive.
    (
        "zstd with the largest window",
        "(head -c 1M /dev/zero; head -c 40M /dev/urandom; head -c 40M /dev/zero) | zstd -1 --long=25",
        Accepted,
    ),
    ("zstd with a window of 64 MiB", "head -c 1M /dev/urandom | zstd --long=26", Refused("more than 32 MiB")),
    (
        "xz with the largest window",
        "(head -c 1M /dev/zero; head -c 40M /dev/urandom; head -c 40M /dev/zero) | xz --lzma2=preset=0,dict=32MiB",
        Accepted,
    ),
    ("xz with a window of 64 MiB", "head -c 1M /dev/zero | xz -9", Refused("more than 32 MiB")),
    ("gzip of random bytes", "head -c 1M /dev/urandom | gzip", Refused("no tar header")),
    ("gzip cut short", "head -c 1M /dev/urandom | gzip | head -c 1000", Refused("layer sha256:")),
    ("zstd cut short", "head -c 1M /dev/urandom | zstd | head -c 1000", Refused("layer sha256:")),
    ("xz cut short", "head -c 1M /dev/urandom | xz -0 | head -c 1000", Refused("layer sha256:")),
    ("bzip2 cut short", "head -c 1M /dev/urandom | bzip2 | head -c 1000", Refused("layer sha256:")),
    ("gzip header alone", "printf '\\x1f\\x8b\\x08'", Refused("layer sha256:")),
    ("gzip inside gzip", "head -c 1M /dev/zero | gzip | gzip", Refused("layer sha256:")),
    ("xz that wants 1 GiB", "head -c 1M /dev/urandom | xz --lzma2=dict=1GiB", Refused("more than 32 MiB")),
    ("bzip2 bomb", "head -c 256M /dev/zero | bzip2", Accepted),
    ("xz bomb", "head -c 1G /dev/zero | xz -1", Accepted),
];

#[test]
fn every_kind_ends_in_a_sound_image_or_names_its_entry() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for kind in KINDS {
        count += 1;
        wrong.extend(check(kind.name, &(kind.archive)(), None, &kind.want));
    }
    for (name, script, want) in STREAMS {
        count += 1;
        wrong.extend(check(name, &output_of(script), Some(unknown()), want));
    }
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(count >= 60);
}

fn check(name: &str, archive: &File, flavour: Option<Flavour>, want: &Want) -> Option<String> {
    let is_stream = flavour.is_some();
    let ran = convert(archive, flavour);
    let disk = ran.output.metadata().unwrap().blocks() * 512;
    let costs = ran.peak_bytes > PEAK_MAX || ran.time > TIME_MAX || disk > DISK_MAX;
    let right = match (&ran.answer, want) {
        (Some(Answer::Converted), Accepted) => is_sound(&ran.output),
        // Zeros are an empty archive, and only the digest of so many is wrong.
        (Some(Answer::Failed { text, .. }), Accepted) => {
            is_stream && text.contains("uncompressed it has the digest")
        }
        (Some(Answer::Failed { text, .. }), Refused(part)) => text.contains(part),
        _ => false,
    };
    (costs || !right).then(|| {
        let (peak, time) = (ran.peak_bytes >> 20, ran.time);
        format!("{name}: {:?}, {}, {peak} MiB, {time:?}, {disk} bytes on disk", ran.answer, ran.status)
    })
}

fn is_sound(image: &File) -> bool {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/{}/fd/{}", std::process::id(), image.as_raw_fd());
    let output = std::process::Command::new("fsck.erofs").arg(path).output().unwrap();
    output.status.success()
}

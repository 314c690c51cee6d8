//! What a layer says is what a mounted image shows.

use std::fs;

use tar::EntryType;

use crate::support::{Layer, Place, Said, compare_with_gnu_tar, filter, shell};

/// A layer with something of every kind.
fn everything() -> Vec<u8> {
    let of = |kind, mode| Said { kind, mode, ..Said::default() };
    let long_name = "n".repeat(255);
    let long_path = format!("etc/{long_name}/{long_name}");
    let long_target = format!("/{}", "t/".repeat(2000));
    let big: Vec<u8> = (0..(1 << 20) + 1).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut layer = Layer::new()
        .directory("./")
        .directory("bin/")
        .directory("etc/")
        .directory("dev/")
        .entry("tmp/", &of(EntryType::Directory, 0o1777))
        .entry("bin/su", &Said { mode: 0o6755, owner: (1, 2), content: b"su", ..Said::default() })
        .entry(
            "bin/ping",
            &Said {
                // A value with line feeds, as capabilities may have.
                pax: &[(
                    "SCHILY.xattr.security.capability",
                    b"\x01\0\0\x02\x0a\x20\0\0\0\0\0\0\x0a\0\0\0\0\0\0\0",
                )],
                mode: 0o755,
                content: b"ping",
                ..Said::default()
            },
        )
        .entry(
            "etc/attributes",
            &Said {
                pax: &[
                    ("SCHILY.xattr.user.one", &[b'1'; 1500]),
                    ("SCHILY.xattr.user.two", &[b'2'; 1500]),
                    ("SCHILY.xattr.user.empty", b""),
                    ("SCHILY.xattr.trusted.three", b"\0=\xff"),
                ],
                content: b"x",
                ..Said::default()
            },
        )
        .entry("dev/null", &Said { device: (1, 3), ..of(EntryType::Char, 0o666) })
        .entry("dev/disk", &Said { device: (259, 70_000), ..of(EntryType::Block, 0o660) })
        .entry("dev/pipe", &of(EntryType::Fifo, 0o600))
        .entry("etc/owned", &Said { owner: (3_000_000_000, 4_294_967_294), ..Said::default() })
        .entry("etc/old", &Said { pax: &[("mtime", b"-1000.25")], ..Said::default() })
        .entry("etc/precise", &Said { pax: &[("mtime", b"1700000000.123456789")], ..Said::default() })
        .symlink("lib", "usr/lib")
        .entry(
            "etc/long",
            &Said { pax: &[("linkpath", long_target.as_bytes())], ..of(EntryType::Symlink, 0o777) },
        )
        .entry(
            "x",
            &Said {
                pax: &[("path", format!("etc/{long_name}").as_bytes())],
                ..of(EntryType::Directory, 0o750)
            },
        )
        .entry("x", &Said { pax: &[("path", long_path.as_bytes())], content: b"long", ..Said::default() })
        .entry("x", &Said { pax: &[("path", b"etc/\xff\xfe not text")], content: b"raw", ..Said::default() })
        .hard_link("etc/su-again", "bin/su")
        .hard_link("etc/lib-again", "/lib")
        .file("etc/big", &big)
        .directory("many/");
    for size in [0, 1, 4095, 4096, 4097, 8192] {
        layer = layer.file(&format!("etc/size-{size}"), &big[..size]);
    }
    // Around the names `.` and `..`, which a directory's data holds too.
    for name in ["!", "-", "+x", ".+", ".-x", ".a", "..a", "...", "/ "] {
        layer = layer.file(&format!("many/{name}"), name.as_bytes());
    }
    for number in 0..3000 {
        layer = layer.file(&format!("many/{number}-{}", "m".repeat(number % 60)), b"");
    }
    layer.bytes()
}

#[test]
fn one_layer_looks_as_gnu_tar_unpacks_it() {
    let place = Place::new();
    let layers = [everything()];
    let image = place.import_layers(&layers);
    compare_with_gnu_tar(&place, &image, &layers);
}

#[test]
fn upper_layers_change_lower_ones() {
    let place = Place::new();
    let upper = Layer::new()
        .directory("./")
        .directory("bin/")
        .file("bin/.wh.ping", b"")
        .file("bin/su", b"replaced, so its other name keeps the old content")
        .directory("etc/")
        .hard_link("etc/old-again", "etc/old")
        .file("etc/.wh.big", b"")
        .directory("many/")
        .file("many/.wh..wh..opq", b"")
        .file("many/new", b"new")
        .directory("sub/")
        .hard_link("sub/su", "etc/su-again");
    let top = Layer::new()
        .directory("./")
        .directory("sub/")
        .file("sub/.wh.su", b"")
        .file("dev/.wh.null", b"")
        .entry("dev/", &Said { kind: EntryType::Directory, mode: 0o700, owner: (7, 8), ..Said::default() })
        .file("dev/null", b"a file now");
    let layers = [everything(), upper.bytes(), top.bytes()];
    let image = place.import_layers(&layers);
    compare_with_gnu_tar(&place, &image, &layers);
}

#[test]
fn sparse_files_of_every_format_keep_their_holes() {
    for format in
        ["--format=gnu", "--format=posix --sparse-version=1.0", "--format=posix --sparse-version=0.1"]
    {
        let place = Place::new();
        let script = "mkdir \"$1/tree\"; cd \"$1/tree\"
            truncate -s 40M hollow
            for at in 0 1 5 300 301 9999; do printf data-%s $at | dd of=hollow bs=4096 seek=$at conv=notrunc status=none; done
            truncate -s 1M empty; printf end | dd of=tail bs=1 seek=1000003 status=none";
        shell(script, &[&place.path("")]);
        shell(&format!("tar {format} -S -C \"$1/tree\" -cf \"$1/sparse.tar\" ."), &[&place.path("")]);
        let layers = [fs::read(place.path("sparse.tar")).unwrap()];
        assert!(layers[0].len() < 1 << 20, "GNU tar left the holes out");
        let image = place.import_layers(&layers);
        compare_with_gnu_tar(&place, &image, &layers);
        let used = shell("stat -c %b \"$1\"", &[&image.erofs]).trim().parse::<u64>().unwrap() * 512;
        assert!(used < 2 << 20, "{used} bytes on disk for {format}");
    }
}

#[test]
fn zeros_become_holes() {
    let place = Place::new();
    let layers = [Layer::new().directory("./").file("zeros", &vec![0; 32 << 20]).bytes()];
    let image = place.import_layers(&layers);
    compare_with_gnu_tar(&place, &image, &layers);
    let used = shell("stat -c %b \"$1\"", &[&image.erofs]).trim().parse::<u64>().unwrap() * 512;
    assert!(used < 1 << 20, "{used} bytes on disk");
}

#[test]
fn the_same_image_gives_the_same_bytes() {
    let (one, two) = (Place::new(), Place::new());
    let layers = [everything(), Layer::new().file(".wh.many", b"").file("new", b"n").bytes()];
    let (first, second) = (one.import_layers(&layers), two.import_layers(&layers));
    assert_eq!(first.id, second.id);
    shell("cmp \"$1\" \"$2\"", &[&first.erofs, &second.erofs]);
}

#[test]
fn what_an_upper_layer_deletes_takes_no_room() {
    let place = Place::new();
    let big = filter(&["head", "-c", "8388608", "/dev/urandom"], b"");
    let lower = Layer::new().file("a", &big).file("b", &big).file("c", b"c").bytes();
    let upper = Layer::new().file(".wh.a", b"").file("b", b"short").bytes();
    let image = place.import_layers(&[lower, upper]);
    let used = shell("stat -c %b \"$1\"", &[&image.erofs]).trim().parse::<u64>().unwrap() * 512;
    assert!(used < 1 << 20, "{used} bytes on disk");
    let got = shell(
        "mkdir \"$2\"; mount -t erofs \"$1\" \"$2\"; ls \"$2\"; cat \"$2/b\"",
        &[&image.erofs, &place.path("m")],
    );
    assert_eq!(got, "b\nc\nshort");
}

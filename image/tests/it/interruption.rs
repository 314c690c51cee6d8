//! Imports that are killed, and imports that meet.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::Barrier;
use std::time::Duration;

use hull_image::{Existing, ExportTo, Findings, Reference};

use crate::support::{Layer, Place, converter, example, filter, oci_image, shell, write_layout};

fn layers() -> [Vec<u8>; 2] {
    [Layer::new().file("a", &[7; 100_000]).bytes(), Layer::new().file(".wh.a", b"").file("b", b"b").bytes()]
}

#[test]
fn two_at_once_convert_once() {
    let place = Place::new();
    write_layout(&place.path("layout"), &oci_image(&layers()), &[]);
    let reference = Reference::parse(&format!("oci:{}", place.path("layout").display())).unwrap();
    const COUNT: usize = 8;
    let start = Barrier::new(COUNT);
    let converted = std::thread::scope(|scope| {
        let import = || {
            start.wait();
            place.store().import(&reference).unwrap().converted
        };
        let threads: Vec<_> = (0..COUNT).map(|_| scope.spawn(import)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).filter(|converted| *converted).count()
    });
    assert_eq!(converted, 1);
    assert_eq!(fs::read_dir(place.path("store/tmp")).unwrap().count(), 0);
}

#[test]
fn a_full_disk_is_called_that_and_leaves_no_half_image() {
    let place = Place::new();
    let big = filter(&["head", "-c", "3000000", "/dev/urandom"], b"");
    write_layout(&place.path("layout"), &oci_image(&[Layer::new().file("big", &big).bytes()]), &[]);
    // Room for the blob, but not for the image too.
    let script = "mkdir \"$1\"; mount -t tmpfs -o size=5M none \"$1\"
        \"$2\" \"$4\" \"$1/store\" import \"oci:$3\" 2>&1 && exit 1; ls \"$1\"/store/{tmp,erofs,manifests}";
    let got = shell(script, &[&place.path("small"), &example("store"), &place.path("layout"), &converter()]);
    assert!(got.contains("(free some space, or remove images") && got.contains("No space left"), "{got}");
    let left = got.lines().filter(|line| line.starts_with("sha256-") || line.ends_with("-0"));
    assert_eq!(left.count(), 0, "{got}");
}

/// Kills an import at its first, second, third, … call of each kind, until one gets through.
#[test]
fn killed_anywhere_leaves_only_what_the_next_one_removes() {
    let layers = layers();
    let image = oci_image(&layers);
    let mut kills = 0;
    for call in ["mkdir", "flock", "fsync", "rename", "pwrite64", "write", "fallocate", "ftruncate", "unlink"]
    {
        for nth in 1.. {
            let place = Place::new();
            write_layout(&place.path("layout"), &image, &[]);
            let reference = format!("oci:{}", place.path("layout").display());
            let ended = Command::new("strace")
                .args(["-f", "-o", "/dev/null", "-e", &format!("trace={call}")])
                .args(["-e", &format!("inject={call}:signal=KILL:when={nth}")])
                .arg(example("store"))
                .args([
                    converter().as_os_str(),
                    place.path("store").as_os_str(),
                    "import".as_ref(),
                    reference.as_ref(),
                ])
                .output()
                .unwrap();
            if ended.status.success() {
                assert!(nth > 1, "an import calls {call}");
                break;
            }
            // strace counts for each process: it may have been the one that reads archives.
            let text = String::from_utf8_lossy(&ended.stderr);
            let in_converter = ended.status.code() == Some(1) && text.contains("hull-converter");
            assert!(in_converter || ended.status.signal() == Some(9), "{call} {nth}: {text}");
            kills += 1;
            let store = place.store();
            assert_eq!(store.check().unwrap().broken, [""; 0], "killed at {call} {nth}");
            let left: Vec<_> = fs::read_dir(place.path("store/tmp")).unwrap().collect();
            assert!(left.is_empty(), "killed at {call} {nth}: {left:?}");
            let again = store.import(&Reference::parse(&reference).unwrap()).unwrap();
            shell("fsck.erofs \"$1\"", &[&again.image.erofs]);
        }
    }
    assert!(kills > 30, "only {kills} kills");
}

/// Likewise for what leaves the store.
#[test]
fn killed_while_removing_or_exporting_leaves_nothing_that_contradicts_itself() {
    let image = oci_image(&layers());
    let cases = [
        ("gc", ["unlink", "fsync", "flock"]),
        ("remove", ["unlink", "fsync", "flock"]),
        ("export", ["write", "fsync", "renameat2"]),
    ];
    let mut kills = 0;
    for (command, call) in cases.into_iter().flat_map(|(command, calls)| calls.map(|call| (command, call))) {
        for nth in 1.. {
            let place = Place::new();
            write_layout(&place.path("layout"), &image, &[]);
            let id = place.import(&format!("oci:{}", place.path("layout").display())).image.id;
            let output = place.path("out.tar");
            let mut killed = Command::new("strace");
            killed.args(["-f", "-o", "/dev/null", "-e", &format!("trace={call}")]);
            killed.args(["-e", &format!("inject={call}:signal=KILL:when={nth}")]);
            killed.arg(example("store")).arg(converter()).arg(place.path("store")).arg(command);
            match command {
                "remove" => drop(killed.arg(id.as_str())),
                "export" => drop(killed.arg(id.as_str()).arg(&output)),
                _ => (),
            }
            let ended = killed.output().unwrap();
            if ended.status.success() {
                assert!(nth > 1, "{command} calls {call}");
                break;
            }
            assert_eq!(ended.status.signal(), Some(9), "{command} {call} {nth}");
            kills += 1;
            let store = place.store();
            assert_eq!(store.check().unwrap().broken, [""; 0], "{command} killed at {call} {nth}");
            if command == "export" {
                if !output.exists() {
                    store.export(&id, &ExportTo::Path(output.clone()), Existing::Keep).unwrap();
                }
                assert_eq!(place.import(output.to_str().unwrap()).image.id, id);
                assert!(!place.path(".out.tar.hull").exists());
            } else {
                store.gc(Duration::ZERO, || Ok::<_, Infallible>(BTreeSet::new())).unwrap();
                assert_eq!(store.check().unwrap(), Findings::default(), "{command} killed at {call} {nth}");
                assert!(store.list().unwrap().is_empty());
            }
        }
    }
    assert!(kills > 15, "only {kills} kills");
}

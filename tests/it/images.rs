//! Images, from every format to the same root; and what is no image.

use std::fs;
use std::io::Write;

use hull_tests::hull::finish;
use hull_tests::image::{Builder, Layer};
use hull_tests::{Flavour, Hull, Image};

/// Images of the tests are signed by nobody.
const UNSIGNED: &str = "--insecure-options=image";

pub(crate) fn every_format_gives_the_same_root(flavour: Flavour) {
    let hull = Hull::new();
    let builder = || {
        let upper =
            Layer::default().file("etc/.wh.group", 0o644, b"").file("etc/upper", 0o600, b"second layer\n");
        Builder::standard().layer(upper)
    };
    let images = [builder().oci(), builder().oci_archive(), builder().docker_archive()];
    let script = "cat /etc/upper; ls /etc; stat -c '%a %u:%g %s %F' /etc/upper /bin/sh /bin/busybox /tmp";
    let said: Vec<String> = images
        .iter()
        .map(|image| finish(hull.run_command(flavour, image, &["/bin/sh", "-c", script])).success())
        .collect();
    assert!(said[0].starts_with("second layer\n") && !said[0].contains("group"), "{}", said[0]);
    assert_eq!(said[0], said[1]);
    assert_eq!(said[0], said[2]);
    // An ACI has no layers, and its arguments follow its own.
    let aci = Builder::standard().aci();
    assert_eq!(finish(hull.run_command(flavour, &aci, &["and", "me"])).success(), "from the image and me\n");
}

#[test]
fn a_reader_that_goes_away_breaks_no_command() {
    let hull = Hull::new();
    hull.hull(&["fetch", UNSIGNED, &Image::standard().reference()]).success();
    for words in [["image", "list"].as_slice(), &["image", "list", "--format=json"], &["version"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = hull.command(words).stdout(writer).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{words:?}: {output:?}");
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let output = hull.command(words).stdout(full).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(254) && stderr.contains("No space left"), "{words:?}: {stderr}");
    }
}

#[test]
fn the_second_run_of_an_image_converts_nothing() {
    let hull = Hull::new();
    for image in [Builder::standard().oci(), Builder::standard().docker_archive(), Builder::standard().aci()]
    {
        let prepare = || {
            let reference = image.reference();
            hull.hull(&["prepare", "--stage1=fly", UNSIGNED, &reference, "--", "/bin/true"]).success();
            let dir = fs::read_dir(hull.dir().join("images/erofs")).unwrap();
            let mut files: Vec<_> = dir
                .map(|e| e.unwrap())
                .map(|e| (e.file_name(), e.metadata().unwrap().modified().unwrap()))
                .collect();
            files.sort();
            files
        };
        let first = prepare();
        assert_eq!(prepare(), first);
    }
}

/// Prepares a pod of `reference`, expects `words` in the error, and nothing left behind.
fn refuses(hull: &Hull, reference: &str, words: &[&str]) {
    hull.hull(&["prepare", "--stage1=fly", UNSIGNED, reference, "--", "/bin/true"]).failure(words);
    assert_eq!(hull.pods(), Vec::<String>::new());
    for folder in ["erofs", "tmp"] {
        let left: Vec<_> =
            fs::read_dir(hull.dir().join("images").join(folder)).into_iter().flatten().collect();
        assert!(left.is_empty(), "{folder}: {left:?}");
    }
}

#[test]
fn what_is_no_image_is_refused_with_its_reason() {
    let hull = Hull::new();
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    refuses(&hull, "/nowhere/image", &["/nowhere/image"]);
    refuses(&hull, "oci:/nowhere/image", &["/nowhere/image"]);
    refuses(&hull, &file("empty", b""), &["empty"]);
    refuses(&hull, &file("text", b"this is no image\n"), &["text"]);
    refuses(&hull, &dir.path().display().to_string(), &[&dir.path().display().to_string()]);
    refuses(&hull, "docker://library/redis", &["docker://"]);
    refuses(&hull, "sha256-0123456789", &["sha256-0123456789"]);
}

#[test]
fn a_truncated_archive_is_refused() {
    let hull = Hull::new();
    for image in
        [Builder::standard().oci_archive(), Builder::standard().docker_archive(), Builder::standard().aci()]
    {
        let whole = fs::read(image.path()).unwrap();
        fs::write(image.path(), &whole[..whole.len() / 2]).unwrap();
        refuses(&hull, &image.reference(), &["busybox"]);
    }
}

#[test]
fn a_corrupt_layer_is_refused() {
    let hull = Hull::new();
    let image = Builder::standard().oci();
    let blobs = fs::read_dir(image.path().join("blobs/sha256")).unwrap().map(|e| e.unwrap().path());
    let largest = blobs.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let mut bytes = fs::read(&largest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::File::create(&largest).unwrap().write_all(&bytes).unwrap();
    refuses(&hull, &image.reference(), &["digest"]);
}

#[test]
fn another_architecture_is_refused() {
    let hull = Hull::new();
    refuses(&hull, &Builder::standard().architecture("arm64").oci().reference(), &["arm64", "amd64"]);
    refuses(
        &hull,
        &Builder::standard().architecture("arm64").docker_archive().reference(),
        &["arm64", "amd64"],
    );
}

#[test]
fn an_image_without_a_command_says_what_to_add() {
    let hull = Hull::new();
    let reference = Image::standard().reference();
    hull.hull(&["run", "--stage1=fly", &reference]).failure(&["empty \"exec\"", "--exec"]);
    assert_eq!(hull.pods(), Vec::<String>::new());
}

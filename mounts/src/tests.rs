//! In mount namespaces of the tests' own, which need root; one thread each.

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::*;

fn here(path: &Path) -> File {
    OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path).unwrap()
}

/// Runs `test` with a directory `source`, in which `sub` is another mount, and a directory `target`.
fn apart(test: impl FnOnce(&Path, &Path) + Send) {
    let dir = tempfile::tempdir().unwrap();
    let (source, target) = (dir.path().join("source"), dir.path().join("target"));
    let world = || {
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS).expect("these tests need root");
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        for path in [&source, &target] {
            fs::create_dir(path).unwrap();
        }
        tmpfs(&source);
        mount(None::<&str>, &source, None::<&str>, MsFlags::MS_SHARED, None::<&str>).unwrap();
        for name in ["sub", "later"] {
            fs::create_dir(source.join(name)).unwrap();
        }
        tmpfs(&source.join("sub"));
        fs::write(source.join("top"), "top").unwrap();
        fs::write(source.join("sub/deep"), "deep").unwrap();
        test(&source, &target);
    };
    std::thread::scope(|scope| scope.spawn(world).join().unwrap());
}

fn tmpfs(path: &Path) {
    mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
}

fn put(source: &Path, target: &Path, extent: Extent, with: Restrictions) {
    let tree = Tree::clone_of(here(source).as_fd(), extent).unwrap();
    tree.restrict(with).unwrap();
    tree.attach(here(target).as_fd()).unwrap();
}

fn is_read_only(path: &Path) -> bool {
    fs::write(path, "x").is_err_and(|why| why.kind() == ErrorKind::ReadOnlyFilesystem)
}

#[test]
fn read_only_reaches_every_mount_below() {
    apart(|source, target| {
        put(source, target, Extent::All, Restrictions { read_only: true, no_devices: true });
        assert_eq!(fs::read_to_string(target.join("sub/deep")).unwrap(), "deep");
        assert!(is_read_only(&target.join("top")) && is_read_only(&target.join("sub/deep")));
        assert!(!is_read_only(&source.join("top")), "the source is as it was");
    });
}

#[test]
fn mounts_below_come_along_if_they_are_meant() {
    apart(|source, target| {
        put(source, target, Extent::One, Restrictions::default());
        assert!(target.join("top").exists() && !target.join("sub/deep").exists());
        tmpfs(&source.join("later"));
        fs::write(source.join("later/word"), "").unwrap();
        assert!(!target.join("later/word").exists(), "what comes later stays out too");
    });
    apart(|source, target| {
        put(source, target, Extent::All, Restrictions::default());
        tmpfs(&source.join("later"));
        fs::write(source.join("later/word"), "").unwrap();
        assert!(target.join("later/word").exists());
    });
}

#[test]
fn what_was_looked_at_is_what_is_mounted() {
    apart(|source, target| {
        let (from, to) = (here(&source.join("sub")), here(target));
        // Whoever owns the paths puts others in their places.
        fs::rename(target, target.with_file_name("elsewhere")).unwrap();
        std::os::unix::fs::symlink("/etc", target).unwrap();
        Tree::clone_of(from.as_fd(), Extent::One).unwrap().attach(to.as_fd()).unwrap();
        assert!(target.with_file_name("elsewhere").join("deep").exists());
        assert!(!Path::new("/etc/deep").exists());
    });
}

#[test]
fn a_file_is_no_directory() {
    apart(|source, target| {
        fs::write(target.join("file"), "").unwrap();
        put(&source.join("top"), &target.join("file"), Extent::One, Restrictions::default());
        assert_eq!(fs::read_to_string(target.join("file")).unwrap(), "top");
        let tree = Tree::clone_of(here(&source.join("top")).as_fd(), Extent::One).unwrap();
        assert_eq!(tree.attach(here(target).as_fd()).unwrap_err().kind(), ErrorKind::InvalidInput);
    });
}

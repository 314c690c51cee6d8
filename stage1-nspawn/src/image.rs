//! Mounting an image, an EROFS file system in a file.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};

use crate::sys;

/// How often another process may take the loop device that we were about to use.
const LOOP_TRIES_MAX: usize = 64;

const FLAGS: MsFlags = MsFlags::MS_RDONLY.union(MsFlags::MS_NODEV);

/// Mounts the image read-only, without its device nodes.
pub(crate) fn mount_image(image: &Path, target: &Path) -> io::Result<()> {
    match mount(Some(image), target, Some("erofs"), FLAGS, None::<&str>) {
        // Before Linux 6.12, or without CONFIG_EROFS_FS_BACKED_BY_FILE, only devices can be mounted.
        Err(Errno::ENOTBLK) => mount_over_loop(image, target),
        other => Ok(other?),
    }
}

/// The same over a loop device, which goes away with the mount.
fn mount_over_loop(image: &Path, target: &Path) -> io::Result<()> {
    let backing = File::open(image)?;
    let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
    for _ in 0..LOOP_TRIES_MAX {
        let path = format!("/dev/loop{}", sys::free_loop_device(&control)?);
        let device = File::open(&path)?;
        match sys::configure_loop_device(&device, &backing) {
            Err(why) if why.raw_os_error() == Some(libc::EBUSY) => continue,
            other => other?,
        }
        // The device is ours as long as it is open; from then on the mount holds it.
        return Ok(mount(Some(path.as_str()), target, Some("erofs"), FLAGS, None::<&str>)?);
    }
    Err(io::Error::new(io::ErrorKind::ResourceBusy, "no loop device stays free"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use nix::mount::umount;

    use super::*;

    fn check(mount_it: impl Fn(&Path, &Path) -> io::Result<()>) {
        let dir = tempfile::tempdir().unwrap();
        let (tree, image, target) =
            (dir.path().join("tree"), dir.path().join("image"), dir.path().join("target"));
        fs::create_dir(&tree).unwrap();
        fs::create_dir(&target).unwrap();
        fs::write(tree.join("word"), "hello").unwrap();
        let made = Command::new("mkfs.erofs").arg("--quiet").args([&image, &tree]).status();
        assert!(made.expect("erofs-utils is installed").success());
        mount_it(&image, &target).unwrap();
        let read = fs::read_to_string(target.join("word"));
        let written = fs::write(target.join("word"), "bye");
        umount(&target).unwrap();
        assert_eq!(read.unwrap(), "hello");
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::ReadOnlyFilesystem);
        assert!(!fs::read_to_string("/proc/mounts").unwrap().contains(dir.path().to_str().unwrap()));
        let backs = |entry: io::Result<fs::DirEntry>| {
            fs::read_to_string(entry.unwrap().path().join("loop/backing_file"))
                .is_ok_and(|file| Path::new(file.trim()) == image)
        };
        assert!(!fs::read_dir("/sys/block").unwrap().any(backs), "a loop device is left");
    }

    #[test]
    fn an_image_is_mounted_read_only() {
        check(mount_image);
    }

    #[test]
    fn a_loop_device_goes_with_its_mount() {
        check(mount_over_loop);
    }
}

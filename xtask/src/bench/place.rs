//! Everything that takes part, copied into memory: neither the lab's slow root nor a disk is to be measured.
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use hull_errors::Doing;

use super::image;
use crate::error::{Error, Kind, Result};
use crate::lab::Archive;
use crate::tool;

/// A tmpfs on every Linux with glibc, shm_overview(7).
const MEMORY: &str = "/dev/shm";

const BUSYBOX: &str = "/bin/busybox";
const QEMU: &str = "/usr/bin/qemu-system-x86_64";
/// The firmware of QEMU's microvm, by the name that it looks for.
const FIRMWARE: &str = "qboot.rom";
const FIRMWARE_FOLDER: &str = "/usr/share/qemu";

/// What hull needs to run a VM.
const PROGRAMS: [&str; 5] = ["hull", "hull-converter", "hull-kvm", "hull-agent", "vmlinux"];

/// PID 1 of QEMU's guest. It does less than the agent: no /proc, no users, no limits, nobody to report
/// to. The kernel makes a variable of the word `app=wait` on its command line.
const INIT: &str = "\
#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
exec </dev/hvc0 >/dev/hvc0 2>&1
/bin/busybox mount -t erofs -o ro /dev/vda /lower
/bin/busybox mount -t tmpfs layer /layer
/bin/busybox mkdir /layer/upper /layer/work
/bin/busybox mount -t overlay -o lowerdir=/lower,upperdir=/layer/upper,workdir=/layer/work root /root
if [ \"$app\" = wait ]; then
    /bin/busybox chroot /root /bin/busybox sh -c '/bin/busybox echo hello; exec /bin/busybox cat'
else
    /bin/busybox chroot /root /bin/busybox echo hello
fi
/bin/busybox reboot -f
";

/// A folder in memory that goes with its owner.
#[derive(Debug)]
pub(super) struct Place {
    folder: PathBuf,
}

impl Place {
    pub(super) fn build(programs: &Path) -> Result<Self> {
        let place = Self { folder: Path::new(MEMORY).join(format!("hull-bench-{}", std::process::id())) };
        let create = |path: &Path| {
            fs::create_dir_all(path).doing(Kind::Failed, || format!("create {}", path.display()))
        };
        for folder in ["bin", "qemu/lib", "root/bin"] {
            create(&place.folder.join(folder))?;
        }
        for program in PROGRAMS {
            copy(&programs.join(program), &place.folder.join("bin").join(program))?;
        }
        copy(Path::new(BUSYBOX), &place.folder.join("root/bin/busybox"))?;
        image::write(&place.folder.join("root"), &place.folder.join("oci"))?;
        place.copy_qemu()?;
        place.write_initramfs()?;
        Ok(place)
    }

    pub(super) fn hull(&self) -> PathBuf {
        self.folder.join("bin/hull")
    }

    pub(super) fn kernel(&self) -> PathBuf {
        self.folder.join("bin/vmlinux")
    }

    /// As hull is told.
    pub(super) fn image(&self) -> String {
        format!("oci:{}", self.folder.join("oci").display())
    }

    /// Where hull keeps images and pods.
    pub(super) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    pub(super) fn qemu(&self) -> PathBuf {
        self.folder.join("qemu/qemu")
    }

    pub(super) fn qemu_firmware(&self) -> PathBuf {
        self.folder.join("qemu")
    }

    pub(super) fn qemu_libraries(&self) -> PathBuf {
        self.folder.join("qemu/lib")
    }

    pub(super) fn initramfs(&self) -> PathBuf {
        self.folder.join("qemu/initramfs")
    }

    /// The image as hull has converted it; only after a run of hull's.
    pub(super) fn erofs(&self) -> Result<PathBuf> {
        let folder = self.data().join("images/erofs");
        let doing = || format!("find the converted image in {}", folder.display());
        let mut entries = fs::read_dir(&folder).doing(Kind::Failed, doing)?;
        let entry = entries.next().ok_or_else(|| Error::new(Kind::Failed, doing()))?;
        Ok(entry.doing(Kind::Failed, doing)?.path())
    }

    fn copy_qemu(&self) -> Result<()> {
        copy(Path::new(QEMU), &self.qemu())?;
        copy(&Path::new(FIRMWARE_FOLDER).join(FIRMWARE), &self.qemu_firmware().join(FIRMWARE))?;
        for library in libraries(&tool::read(Command::new("ldd").arg(QEMU))?) {
            let name = library.file_name().ok_or_else(|| Error::new(Kind::Failed, "read what ldd says"))?;
            copy(library, &self.qemu_libraries().join(name))?;
        }
        Ok(())
    }

    fn write_initramfs(&self) -> Result<()> {
        let busybox = fs::read(BUSYBOX).doing(Kind::Failed, || format!("read {BUSYBOX}"))?;
        let mut archive = Archive::default();
        for folder in ["dev", "lower", "layer", "root", "bin"] {
            archive.folder(folder);
        }
        archive.program("bin/busybox", &busybox);
        archive.program("init", INIT.as_bytes());
        let path = self.initramfs();
        fs::write(&path, archive.finish()).doing(Kind::Failed, || format!("write {}", path.display()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What is left is in memory and has our number in its name.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let doing = || format!("copy {} to {}", from.display(), to.display());
    fs::copy(from, to).doing(Kind::Failed, doing)?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755)).doing(Kind::Failed, doing)
}

/// The paths in lines like `libz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x00007f…)`.
pub(super) fn libraries(ldd: &str) -> Vec<&Path> {
    ldd.lines()
        .filter_map(|line| line.split_once(" => ")?.1.split_whitespace().next())
        .filter(|path| path.starts_with('/'))
        .map(Path::new)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_have_paths() {
        let ldd = "\tlinux-vdso.so.1 (0x00007ffc)\n\tlibz.so.1 => /lib/libz.so.1 (0x00007f12)\n\
                   \tlibx.so => not found\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f13)\n";
        assert_eq!(libraries(ldd), [Path::new("/lib/libz.so.1")]);
    }
}

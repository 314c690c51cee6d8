//! Who competes, and how each is told to run an app.
use std::process::Command;

use super::place::Place;
use crate::error::Result;

/// RAM of each guest, hull's default.
const RAM_MIB: u32 = 256;

/// hull's own kernel arguments (`vmm/src/boot/cmdline.rs`), so that the kernel does the same work.
const KERNEL_LINE: &str = "panic=-1 reboot=t tsc=reliable no_timer_check noreplace-smp random.trust_cpu=on \
    rcupdate.rcu_expedited=1 quiet loglevel=0 8250.nr_uarts=0";

/// The machine without everything that it can be without.
const MACHINE: &str = "microvm,acpi=off,x-option-roms=off,pit=off,pic=off,rtc=off,isa-serial=off";

/// What runs in the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum App {
    /// Says hello and ends.
    Hello,
    /// Says hello, then repeats what it hears.
    Wait,
}

impl App {
    fn words(self) -> &'static [&'static str] {
        match self {
            App::Hello => &["/bin/busybox", "echo", "hello"],
            App::Wait => &["/bin/busybox", "sh", "-c", "/bin/busybox echo hello; exec /bin/busybox cat"],
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contender {
    Hull,
    /// Needs the image that hull has converted.
    Qemu,
}

impl Contender {
    pub(super) fn name(self) -> &'static str {
        match self {
            Contender::Hull => "hull-kvm",
            Contender::Qemu => "qemu-microvm",
        }
    }

    /// Not started yet; standard input and output are the app's.
    pub(super) fn command(self, app: App, place: &Place) -> Result<Command> {
        match self {
            Contender::Hull => Ok(hull(app, place, &[])),
            Contender::Qemu => qemu(app, place),
        }
    }
}

fn hull(app: App, place: &Place, options: &[&str]) -> Command {
    let mut command = Command::new(place.hull());
    command.env_clear().env("HULL_DIR", place.data());
    command.args(options).args([
        "run",
        "--stage1=kvm",
        &format!("--vm-memory={RAM_MIB}"),
        &place.image(),
        "--",
    ]);
    command.args(app.words());
    command
}

/// With `--debug`, hull says on standard error how much of the kernel it copied.
pub(super) fn hull_debug(place: &Place) -> Command {
    hull(App::Hello, place, &["--debug"])
}

fn qemu(app: App, place: &Place) -> Result<Command> {
    let mut command = Command::new(place.qemu());
    command.env_clear().env("LD_LIBRARY_PATH", place.qemu_libraries());
    let app = match app {
        App::Hello => "",
        App::Wait => " app=wait",
    };
    let options: [(&str, &str); 15] = [
        ("-M", MACHINE),
        ("-L", &place.qemu_firmware().display().to_string()),
        ("-accel", "kvm"),
        ("-cpu", "host"),
        ("-smp", "1"),
        ("-m", &format!("{RAM_MIB}M")),
        ("-display", "none"),
        ("-kernel", &place.kernel().display().to_string()),
        ("-initrd", &place.initramfs().display().to_string()),
        ("-append", &format!("{KERNEL_LINE}{app}")),
        ("-chardev", "stdio,id=console,signal=off"),
        ("-device", "virtio-serial-device"),
        ("-device", "virtconsole,chardev=console"),
        ("-drive", &format!("id=image,if=none,format=raw,readonly=on,file={}", place.erofs()?.display())),
        ("-device", "virtio-blk-device,drive=image"),
    ];
    command.args(["-nodefaults", "-no-user-config", "-no-reboot"]);
    command.args(options.iter().flat_map(|(name, value)| [name, value]));
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words of a string constant in the source of hull's VMM.
    fn words(constant: &str) -> Vec<&'static str> {
        let source = include_str!("../../../vmm/src/boot/cmdline.rs");
        let text = source.split_once(&format!("const {constant}: &str = \"")).unwrap().1;
        text.split_once("\";").unwrap().0.split_whitespace().filter(|word| *word != "\\").collect()
    }

    #[test]
    fn both_kernels_are_told_the_same() {
        let mut hull = [words("ALWAYS"), words("SILENT")].concat();
        let mut qemu: Vec<&str> = KERNEL_LINE.split_whitespace().collect();
        hull.sort_unstable();
        qemu.sort_unstable();
        assert_eq!(hull, qemu);
    }
}

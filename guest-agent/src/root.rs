//! The root directory of an app: its image under a writable layer, and what every program expects in
//! `/proc`, `/sys`, `/dev` and `/etc`.
//!
//! The agent makes the layers ([`assemble`]); the app's own process, in a mount namespace of its own,
//! does the rest ([`furnish`], [`enter`]), so that no app's mounts are seen by another.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown};
use std::path::Path;

use hull_agent_protocol::message::AgentFault;
use hull_agent_protocol::{AppSpec, ImageSource};
use hull_errors::Doing;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, fstat, makedev, mkdirat, mknodat};
use nix::unistd::{UnlinkatFlags, chdir, pivot_root, symlinkat, unlinkat, write};

use crate::inside::{Place, Root, is_directory, is_regular};
use crate::{Error, volumes};

/// Holds the shared memory of the pod's apps, in the agent's working directory.
pub(crate) const SHARED_MEMORY: &str = "shm";

/// Major and minor numbers of the character devices that every app has (kernel
/// `Documentation/admin-guide/devices.txt`).
const DEVICES: [(&str, u64, u64); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

const DEVICE_LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// What would change the machine, or the host where the kernel is the host's. `/sys` is read-only as
/// a whole.
const READ_ONLY: [&str; 5] = ["proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger"];

/// What tells an app more about the machine than it needs, or has been a way out: rkt's list, and what
/// other runtimes hide by now.
const HIDDEN: [&str; 18] = [
    "proc/acpi",
    "proc/asound",
    "proc/config.gz",
    "proc/kallsyms",
    "proc/kcore",
    "proc/keys",
    "proc/kmem",
    "proc/latency_stats",
    "proc/mem",
    "proc/sched_debug",
    "proc/scsi",
    "proc/timer_list",
    "proc/timer_stats",
    "sys/devices/virtual/powercap",
    "sys/firmware",
    "sys/hypervisor",
    "sys/module",
    "sys/power",
];

/// Where the agent keeps an app: `apps/NAME`, relative to its working directory.
#[derive(Debug)]
pub(crate) struct AppDir(String);

impl AppDir {
    fn join(&self, name: &str) -> String {
        format!("{}/{name}", self.0)
    }

    /// The app's root, before anything is mounted in it.
    pub(crate) fn root(&self) -> String {
        self.join("rootfs")
    }

    /// The app's own pseudo-terminals.
    pub(crate) fn terminals(&self) -> String {
        self.join("pts")
    }
}

/// Mounts the app's layers. Options name paths relative to the working directory, so that whatever
/// characters lie above it cannot be taken for options.
pub(crate) fn assemble(index: usize, app: &AppSpec) -> Result<AppDir, Error> {
    let doing = || format!("assemble the root of app {}", app.name);
    let image = image(index, &app.image)?;
    let dir = AppDir(format!("apps/{}", app.name));
    let build = || -> io::Result<()> {
        fs::create_dir(&dir.0)?;
        let size = app.upper_size_bytes.map_or_else(String::new, |bytes| format!(",size={bytes}"));
        mount_new("tmpfs", &dir.0, MsFlags::MS_NODEV, &format!("mode=755{size}"))?;
        for name in ["upper", "work", "rootfs", "pts"] {
            fs::create_dir(dir.join(name))?;
        }
        let (bottom, upper) = (fs::metadata(&image)?, dir.join("upper"));
        chown(&upper, Some(bottom.uid()), Some(bottom.gid()))?;
        fs::set_permissions(&upper, bottom.permissions())?;
        // An upper layer that lives no longer than the machine needs no index, and data that is only
        // half copied up gains nothing in memory.
        let layers = format!(
            "lowerdir={image},upperdir={upper},workdir={},index=off,metacopy=off,xino=auto",
            dir.join("work")
        );
        mount_new("overlay", &dir.root(), MsFlags::MS_NODEV, &layers)?;
        let options = "newinstance,gid=5,mode=620,ptmxmode=666";
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
        mount_new("devpts", &dir.terminals(), flags, options)
    };
    build().doing(AgentFault::Machine, doing)?;
    Ok(dir)
}

/// Gives the directory with the image's read-only root.
fn image(index: usize, image: &ImageSource) -> Result<String, Error> {
    match image {
        ImageSource::Mounted { path } => Ok(path.clone()),
        ImageSource::Device { path } => {
            let target = format!("images/{index}");
            let flags = MsFlags::MS_RDONLY | MsFlags::MS_NODEV;
            let mounted = fs::create_dir(&target).and_then(|()| {
                Ok(mount(Some(path.as_str()), target.as_str(), Some("erofs"), flags, None::<&str>)?)
            });
            mounted.doing(AgentFault::Machine, || format!("mount image {path}"))?;
            Ok(target)
        }
    }
}

pub(crate) fn mount_new(kind: &str, target: &str, flags: MsFlags, options: &str) -> io::Result<()> {
    Ok(mount(Some(kind), target, Some(kind), flags, Some(options))?)
}

/// What an app's root depends on beyond its image.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Furniture<'a> {
    pub(crate) terminal: bool,
    pub(crate) cgroup: bool,
    /// Whether the kernel's files are hidden and write-protected.
    pub(crate) protect: bool,
    /// The text of `/etc/hosts`, in place of the image's.
    pub(crate) hosts: Option<&'a str>,
    /// Likewise of `/etc/resolv.conf`.
    pub(crate) resolver: Option<&'a str>,
    /// Absent where the app shares the host's name.
    pub(crate) hostname: Option<&'a str>,
}

/// Mounts and writes what the image cannot bring. Call it in a mount namespace of the app's own.
pub(crate) fn furnish(dir: &AppDir, with: Furniture<'_>) -> Result<Root, Error> {
    // Nothing that follows may reach the namespace this one was copied from; what the host mounts in a volume
    // later comes in.
    let slave = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    mount(None::<&str>, "/", None::<&str>, slave, None::<&str>)
        .doing(AgentFault::Machine, || "keep the app's mounts private".into())?;
    let root = Root::open(&dir.root()).doing(AgentFault::Machine, || "open the app's root".into())?;
    let on = |name: &'static str| move || format!("mount /{name} in the app's root");
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let proc = place(&root, "proc")?;
    proc.mount("proc", quiet, "").doing(AgentFault::Machine, on("proc"))?;
    let sys = place(&root, "sys")?;
    let read_only = if with.protect { MsFlags::MS_RDONLY } else { MsFlags::empty() };
    sys.mount("sysfs", quiet | read_only, "").doing(AgentFault::Machine, on("sys"))?;
    let dev = place(&root, "dev")?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    dev.mount("tmpfs", flags, "mode=755,size=64m").doing(AgentFault::Machine, on("dev"))?;
    devices(&root, dir, with.terminal).doing(AgentFault::Machine, || "fill the app's /dev".into())?;
    protect(&root, with).doing(AgentFault::Machine, || "protect the app's /proc and /sys".into())?;
    names(&root, with).doing(AgentFault::Machine, || "write the app's /etc".into())?;
    Ok(root)
}

fn place(root: &Root, name: &'static str) -> Result<Place, Error> {
    root.mount_point(name).map_err(|why| match why {
        Errno::ELOOP | Errno::ENOTDIR => Error::new(
            AgentFault::Pod,
            format!("/{name} of the image is not a directory; nothing is mounted on it"),
        ),
        why => Error::because(AgentFault::Machine, format!("open /{name} of the app's root"), why),
    })
}

fn devices(root: &Root, dir: &AppDir, terminal: bool) -> io::Result<()> {
    let dev = root.exactly("dev", OFlag::O_PATH | OFlag::O_DIRECTORY)?;
    for (name, major, minor) in DEVICES {
        mknodat(&dev, name, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(major, minor))?;
    }
    for (name, target) in DEVICE_LINKS {
        symlinkat(target, &dev, name)?;
    }
    for name in ["pts", "shm", "mqueue"] {
        mkdirat(&dev, name, Mode::from_bits_truncate(0o755))?;
    }
    root.mount_point("dev/pts")?.bind(Path::new(&dir.terminals()))?;
    root.mount_point("dev/shm")?.bind(Path::new(SHARED_MEMORY))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    match root.mount_point("dev/mqueue")?.mount("mqueue", flags, "") {
        // A kernel without POSIX message queues: an app that wants them finds out by itself.
        Err(Errno::ENODEV) | Ok(()) => (),
        Err(why) => return Err(why.into()),
    }
    if terminal {
        mknodat(&dev, "console", SFlag::S_IFREG, Mode::from_bits_truncate(0o600), 0)?;
        let console = Place(root.exactly("dev/console", OFlag::O_PATH)?);
        console.bind(Path::new(&format!("{}/0", dir.terminals())))?;
    }
    Ok(())
}

fn protect(root: &Root, with: Furniture<'_>) -> io::Result<()> {
    if !with.protect {
        return own_cgroup_only(root, with.cgroup);
    }
    let null = Place(root.exactly("dev/null", OFlag::O_PATH)?);
    for path in READ_ONLY {
        if let Some(found) = find(root, path)? {
            found.bind_itself()?;
            let top = Place(root.exactly(path, OFlag::O_PATH)?);
            let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
            top.remount(quiet | MsFlags::MS_RDONLY)?;
        }
    }
    for path in HIDDEN {
        if let Some(found) = find(root, path)? {
            match is_directory(&fstat(&found.0)?) {
                true => found.mount("tmpfs", EMPTY, EMPTY_OPTIONS)?,
                false => found.bind_place(&null)?,
            }
        }
    }
    own_cgroup_only(root, with.cgroup)
}

const EMPTY: MsFlags =
    MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC).union(MsFlags::MS_RDONLY);
const EMPTY_OPTIONS: &str = "mode=555,size=4k,nr_inodes=1";

/// Hides `/sys/fs`, all but the app's own cgroup: many runtimes size themselves by its limits.
fn own_cgroup_only(root: &Root, cgroup: bool) -> io::Result<()> {
    let Some(found) = find(root, "sys/fs")? else { return Ok(()) };
    if !cgroup {
        return Ok(found.mount("tmpfs", EMPTY, EMPTY_OPTIONS)?);
    }
    let writable = EMPTY.difference(MsFlags::MS_RDONLY);
    found.mount("tmpfs", writable, "mode=555,size=4k,nr_inodes=4")?;
    root.mount_point("sys/fs/cgroup")?.mount("cgroup2", EMPTY, "")?;
    Place(root.exactly("sys/fs", OFlag::O_PATH)?).remount(EMPTY)?;
    Ok(())
}

fn find(root: &Root, path: &str) -> nix::Result<Option<Place>> {
    match root.exactly(path, OFlag::O_PATH) {
        Ok(found) => Ok(Some(Place(found))),
        Err(Errno::ENOENT) => Ok(None),
        Err(why) => Err(why),
    }
}

/// Writes the pod's name, and the addresses that every machine has where the image brings none.
fn names(root: &Root, with: Furniture<'_>) -> io::Result<()> {
    let hostname = with.hostname;
    match root.exactly("etc", OFlag::O_PATH | OFlag::O_DIRECTORY) {
        Err(Errno::ENOENT) => drop(root.mount_point("etc")?),
        // A file or a link where /etc belongs is the image's own choice.
        Err(Errno::ENOTDIR | Errno::ELOOP) => return Ok(()),
        other => drop(other?),
    }
    let name = hostname.unwrap_or_default();
    let hosts = format!("127.0.0.1\tlocalhost {name}\n::1\tlocalhost {name}\n").replace(" \n", "\n");
    match with.hosts {
        Some(text) => write_instead(root, "etc", "hosts", text)?,
        None => write_unless(root, "etc/hosts", &hosts, |size| size > 0)?,
    }
    if let Some(text) = with.resolver {
        write_instead(root, "etc", "resolv.conf", text)?;
    }
    match hostname {
        Some(name) => write_unless(root, "etc/hostname", &format!("{name}\n"), |_| false),
        None => Ok(()),
    }
}

/// Writes a file in place of whatever the image has there: often a link to a file of another program's.
fn write_instead(root: &Root, dir: &str, name: &str, text: &str) -> io::Result<()> {
    let dir = root.exactly(dir, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
    match unlinkat(&dir, name, UnlinkatFlags::NoRemoveDir) {
        Err(Errno::ENOENT) | Ok(()) => (),
        Err(why) => return Err(why.into()),
    }
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let file = openat(&dir, name, flags, Mode::from_bits_truncate(0o644))?;
    std::fs::File::from(file).write_all(text.as_bytes())
}

/// Writes a file, unless there is one whose size is to be kept, or something that is no file.
fn write_unless(root: &Root, path: &str, text: &str, keep: impl Fn(i64) -> bool) -> io::Result<()> {
    match root.exactly(path, OFlag::O_PATH) {
        Err(Errno::ENOENT) => (),
        Err(Errno::ELOOP) => return Ok(()),
        Err(why) => return Err(why.into()),
        Ok(found) => {
            let stat = fstat(&found)?;
            if !is_regular(&stat) || keep(stat.st_size) {
                return Ok(());
            }
        }
    }
    let file = root.exactly(path, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC)?;
    write(&file, text.as_bytes())?;
    Ok(())
}

/// Makes the app's root this process's root, and lets go of every other mount.
pub(crate) fn enter(dir: &AppDir) -> Result<Root, Error> {
    let swap = || -> nix::Result<Root> {
        chdir(dir.root().as_str())?;
        // The old root ends up on top of the new one, where it is unmounted: pivot_root(2), NOTES.
        pivot_root(".", ".")?;
        umount2(".", MntFlags::MNT_DETACH)?;
        chdir("/")?;
        Root::open("/")
    };
    swap().doing(AgentFault::Machine, || "enter the app's root".into())
}

/// Lets nothing be written to the root that this process is in; mounts in it stay as they are.
pub(crate) fn make_read_only() -> nix::Result<()> {
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | MsFlags::MS_NODEV;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)
}

/// Makes the directories that apps are assembled in, in the working directory.
pub(crate) fn lay_out() -> io::Result<()> {
    for name in ["apps", "images", volumes::HERE, SHARED_MEMORY] {
        match fs::DirBuilder::new().mode(0o755).create(name) {
            // Stage1 may have mounted images and volumes there.
            Err(why) if why.kind() == io::ErrorKind::AlreadyExists => (),
            other => other?,
        }
    }
    mount_new("tmpfs", SHARED_MEMORY, MsFlags::MS_NOSUID | MsFlags::MS_NODEV, "mode=1777")
}

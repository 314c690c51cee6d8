//! What the agent is told about a pod: plain data, every decision already taken.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Everything the agent needs to know about a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PodSpec {
    /// The pod's UTS host name.
    pub hostname: String,
    /// The text of every app's `/etc/hosts`; absent: the image's own, else the loopback names.
    pub hosts: Option<String>,
    /// The text of every app's `/etc/resolv.conf`; absent: the image's own.
    pub resolver: Option<String>,
    /// The interfaces of a machine that has its own; elsewhere stage1 has connected the pod already.
    pub interfaces: Vec<InterfaceSpec>,
    /// `(name, value)` as in `/proc/sys`, dots between the parts.
    pub sysctls: Vec<(String, String)>,
    /// A limit that this machine cannot set is a warning; otherwise the pod fails.
    pub lenient: bool,
    /// What apps may mount, by [`VolumeSpec::name`].
    pub volumes: Vec<VolumeSpec>,
    /// Programs of classic BPF that [`AppSpec::seccomp`] names by index; each instruction is the eight bytes
    /// of a `struct sock_filter` (kernel `include/uapi/linux/filter.h`), little endian.
    pub seccomp: Vec<Vec<u64>>,
    /// What the agent tells apps that ask for it, if they may ask.
    pub metadata: Option<Box<Metadata>>,
    /// At most [`PodSpec::APPS_MAX`]; an app's number is its index here.
    pub apps: Vec<AppSpec>,
}

impl PodSpec {
    /// Most apps in one pod.
    pub const APPS_MAX: usize = 256;
    /// Most volumes in one pod.
    pub const VOLUMES_MAX: usize = 128;
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InterfaceSpec {
    /// Which one: its hardware address, as `02:00:00:00:00:01`.
    pub mac: String,
    /// Largest packet, in bytes; absent: as it is.
    pub mtu: Option<u32>,
    pub addresses: Vec<NetSpec>,
    /// All that there are; those to gateways' own addresses come before those that need them.
    pub routes: Vec<RouteSpec>,
}

/// An address and how many of its first bits are the network's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetSpec {
    pub address: IpAddr,
    pub prefix: u8,
}

/// A route by an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteSpec {
    pub destination: NetSpec,
    /// Absent: whoever is on the interface's link.
    pub gateway: Option<IpAddr>,
}

/// What the metadata service knows (appc spec 0.8.11, `spec/ace.md`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    /// Part of the URL: who does not know it is told nothing.
    pub token: String,
    pub uuid: String,
    /// The pod manifest, JSON.
    pub manifest: String,
    pub annotations: Vec<(String, String)>,
    pub apps: Vec<AppMetadata>,
}

/// Likewise, of an app.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppMetadata {
    pub name: String,
    pub annotations: Vec<(String, String)>,
    pub image_id: String,
    /// JSON.
    pub image_manifest: String,
}

/// Files that outlive an app's root, or come from outside of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeSpec {
    /// An appc AC name, unique in the pod.
    pub name: String,
    pub source: VolumeSource,
}

/// Where the agent finds a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum VolumeSource {
    /// Made by the agent in memory, as old as the pod.
    Empty { mode: u32, uid: u32, gid: u32, size_bytes: Option<u64> },
    /// A file or directory that stage1 has mounted already.
    Mounted { path: String },
    /// A virtio-fs device with this tag (virtio 1.2, 5.11.4): the directory that it shares, or a file in it.
    Shared { tag: String, read_only: bool, file: Option<String> },
    /// A device node, for the app to find at the mount's target.
    Device { path: String, read_only: bool },
}

/// A volume in an app's root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MountSpec {
    /// The name of one of [`PodSpec::volumes`].
    pub volume: String,
    /// Absolute path in the app's root; created where the image lacks it.
    pub target: String,
    pub read_only: bool,
    /// Mounts below the source come along.
    pub recursive: bool,
    /// An empty volume begins with what the image has at the target.
    pub copy_up: bool,
}

/// What an app may use. Nothing given, nothing limited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    pub memory_bytes: Option<u64>,
    /// Thousandths of a processor.
    pub cpu_millis: Option<u32>,
    /// As cgroup version 1 counts: 1024 is everybody's share.
    pub cpu_shares: Option<u64>,
    pub pids: Option<u32>,
    /// Bytes a second, reads and writes each, on every block device of the app.
    pub block_bytes_per_second: Option<u64>,
    /// Requests a second, reads and writes each.
    pub block_requests_per_second: Option<u64>,
    /// Bits a second that the app may send.
    pub network_bits_per_second: Option<u64>,
    /// -1000 to 1000, `/proc/PID/oom_score_adj` (proc(5)).
    pub oom_score_adj: Option<i32>,
    pub resources: Vec<ResourceLimit>,
}

/// A limit of setrlimit(2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResourceLimit {
    /// As in setrlimit(2): `RLIMIT_NOFILE`.
    pub name: String,
    pub soft: u64,
    pub hard: u64,
}

/// What happens when an app's main process has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    #[default]
    Never,
    /// It is started again where its code is not 0 or a signal ended it, at most so often.
    OnFailure { max: Option<u32> },
    /// It is started again unless it was asked to stop.
    Always,
}

/// One app of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppSpec {
    /// An appc AC name: lower-case letters, digits and single dashes.
    pub name: String,
    /// Where the image's read-only root is.
    pub image: ImageSource,
    /// Limit of what the app may write to its root, in bytes; absent: half the machine's memory.
    pub upper_size_bytes: Option<u64>,
    /// The app may write to its volumes only.
    pub read_only_root: bool,
    /// Mounted in this order.
    pub mounts: Vec<MountSpec>,
    /// Program and arguments, never empty. A program without a slash is searched in the app's `PATH`.
    pub exec: Vec<String>,
    /// Commands that run one after the other before the app, as root in the app's root; a failure is the app's.
    pub pre_start: Vec<Vec<String>>,
    /// Commands that run likewise after the app, however it ended.
    pub post_stop: Vec<Vec<String>>,
    /// `(name, value)`, complete: the agent adds nothing but `PATH`, `HOME`, `USER`, `LOGNAME`,
    /// `SHELL`, `AC_APP_NAME` and (with a terminal) `TERM` where they are absent.
    pub environment: Vec<(String, String)>,
    /// A user name, a numeric id, or an absolute path whose owner is meant.
    pub user: String,
    /// Likewise for the group; absent: the user's primary group, else 0.
    pub group: Option<String>,
    /// Numeric groups added to those of `/etc/group`.
    pub supplementary_gids: Vec<u32>,
    /// Absolute path in the app's root. Created where the image lacks it.
    pub working_directory: String,
    /// Names as in capabilities(7), `CAP_` included. The app's bounding set; the effective set too if
    /// the user is 0.
    pub capabilities: Vec<String>,
    /// Index of the app's system call filter in [`PodSpec::seccomp`].
    pub seccomp: Option<u16>,
    /// Sets `no_new_privs` (prctl(2)).
    pub no_new_privileges: bool,
    /// Hides and write-protects the kernel's files that change or betray the machine.
    pub protect_paths: bool,
    pub limits: Limits,
    pub restart: Restart,
    /// The signal that asks the app to end.
    pub stop_signal: i32,
    /// How the app's descriptors 0, 1 and 2 are connected.
    pub streams: StandardStreams,
}

impl AppSpec {
    /// Most mounts of one app.
    pub const MOUNTS_MAX: usize = 128;

    /// An app of user 0 without rights, limits, mounts or events.
    pub fn new(name: &str, image: ImageSource, exec: &[&str], streams: StandardStreams) -> Self {
        Self {
            name: name.into(),
            image,
            upper_size_bytes: None,
            read_only_root: false,
            mounts: vec![],
            exec: exec.iter().map(ToString::to_string).collect(),
            pre_start: vec![],
            post_stop: vec![],
            environment: vec![],
            user: "0".into(),
            group: None,
            supplementary_gids: vec![],
            working_directory: "/".into(),
            capabilities: vec![],
            seccomp: None,
            no_new_privileges: false,
            protect_paths: true,
            limits: Limits::default(),
            restart: Restart::Never,
            stop_signal: SIGTERM,
            streams,
        }
    }
}

/// signal(7).
const SIGTERM: i32 = 15;

/// Where the agent finds the read-only root of an app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum ImageSource {
    /// An EROFS file system on a block device (`/dev/vda`), for the agent to mount.
    Device { path: String },
    /// A directory that stage1 has mounted already.
    Mounted { path: String },
}

/// Channel numbers of an app's standard streams; unique in the pod, never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum StandardStreams {
    /// Three pipes. The host ends `stdin` with an empty frame; the agent ends `stdout` and `stderr` so.
    /// Without `stdin` the app reads `/dev/null`.
    Pipes { stdin: Option<u32>, stdout: u32, stderr: u32 },
    /// One pseudo-terminal; its channel carries both directions.
    Terminal { channel: u32, size: TerminalSize },
}

impl StandardStreams {
    /// The channel of the bytes to the app.
    pub fn input(self) -> Option<u32> {
        match self {
            Self::Pipes { stdin, .. } => stdin,
            Self::Terminal { channel, .. } => Some(channel),
        }
    }

    /// The channels of the bytes from the app.
    pub fn outputs(self) -> impl Iterator<Item = u32> {
        let outputs = match self {
            Self::Pipes { stdout, stderr, .. } => [Some(stdout), Some(stderr)],
            Self::Terminal { channel, .. } => [Some(channel), None],
        };
        outputs.into_iter().flatten()
    }
}

/// As `struct winsize` of tty_ioctl(4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TerminalSize {
    pub rows: u16,
    pub columns: u16,
}

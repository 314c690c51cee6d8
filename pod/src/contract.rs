//! What stage0 hands to a stage1: the file `stage1.json` in the pod directory.
//!
//! stage0 executes the stage1 in place, with the pod directory as working directory, the pod's id as the
//! only argument and the pod's lock as the open descriptor whose number is in [`LOCK_FD`]. The manifest
//! says what the pod is; this file says what machine it gets.

use std::path::PathBuf;

use hull_network::Networking;
use serde::{Deserialize, Serialize};

use crate::PodId;

/// The environment variable with the number of the inherited lock descriptor.
pub const LOCK_FD: &str = "HULL_LOCK_FD";

/// The only argument with which `hull-kvm` says what its jail lacks on this host, a line each, instead of running a
/// pod. It fails, and says why, where the jail cannot be built.
pub const WALLS: &str = "walls";

/// The version of this file and of the way it is handed over.
pub const VERSION: u32 = 1;

/// The contract.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contract {
    pub version: u32,
    pub pod: PodId,
    pub flavour: Flavour,
    /// The UTS host name of the pod.
    pub hostname: String,
    /// The text of every app's `/etc/hosts`; absent: the image's own, else the loopback names.
    #[serde(default)]
    pub hosts: Option<String>,
    /// The text of every app's `/etc/resolv.conf`; absent: the image's own.
    #[serde(default)]
    pub resolver: Option<String>,
    /// The EROFS image of each app, absolute, in the manifest's order.
    pub roots: Vec<PathBuf>,
    /// The static agent binary, absolute.
    pub agent: PathBuf,
    /// For a VM only.
    pub machine: Option<Machine>,
    /// The only app is connected to the user's terminal.
    pub interactive: bool,
    /// Nobody waits for the pod: its stage1 belongs to no session but its own.
    #[serde(default)]
    pub detached: bool,
    /// Longest log file of an app, in bytes; absent: [`crate::log::FILE_MAX`].
    #[serde(default)]
    pub log_bytes: Option<u64>,
    /// The pod shares the System V IPC objects and POSIX message queues of whoever starts it.
    #[serde(default)]
    pub parents_ipc: bool,
    /// Apps may ask what their pod is.
    #[serde(default)]
    pub metadata: Option<MetadataService>,
    /// An isolator that cannot be applied is a warning.
    #[serde(default)]
    pub lenient: bool,
    /// What networks the pod is in.
    #[serde(default)]
    pub network: Networking,
    /// Which protections the user does without.
    #[serde(default)]
    pub waived: Waived,
    /// Kernel messages and stage1's own steps go to standard error.
    pub debug: bool,
}

/// What the pod's metadata service needs beside the manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetadataService {
    /// The file with the host's key, absolute.
    pub key: PathBuf,
    /// Part of its URL.
    pub token: String,
    /// The image manifest of each app, JSON, in the manifest's order.
    pub images: Vec<String>,
}

/// Protections that a pod goes without: `--insecure-options`, in rkt's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Waived {
    /// Apps have every capability, unless an isolator says otherwise.
    pub capabilities: bool,
    /// The kernel's files are neither hidden nor write-protected.
    pub paths: bool,
    /// No system call is filtered, whatever the isolators say.
    pub seccomp: bool,
}

/// The size and the kernel of a VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// An ELF `vmlinux`, absolute.
    pub kernel: PathBuf,
    pub vcpus: u8,
    pub ram_mib: u32,
    /// Whom its VMM may be.
    #[serde(default)]
    pub ids: IdRange,
}

/// User ids that VMMs run under, one of its own each; their group ids are the same numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdRange {
    pub first: u32,
    pub count: u32,
}

impl Default for IdRange {
    /// Above all that distributions and systemd hand out (its UIDS-GIDS.md: containers end at 0x6fffffff), and above
    /// what jailed converters take.
    fn default() -> Self {
        Self { first: 0x7100_0000, count: 1 << 16 }
    }
}

impl IdRange {
    /// Whether all of its numbers are ids of somebody, and none is root's. The highest number is nobody's
    /// (`setresuid(2)`).
    pub fn is_valid(self) -> bool {
        self.first > 0 && self.count > 0 && self.first.checked_add(self.count).is_some()
    }
}

/// What a pod is isolated by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flavour {
    /// A virtual machine.
    Kvm,
    /// Namespaces.
    Nspawn,
    /// A chroot in a private mount namespace: packaging, not isolation.
    Fly,
}

impl Flavour {
    /// As `--stage1=` spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Nspawn => "nspawn",
            Self::Fly => "fly",
        }
    }

    /// The file name of the stage1 that provides it.
    pub fn binary(self) -> &'static str {
        match self {
            Self::Kvm => "hull-kvm",
            Self::Nspawn | Self::Fly => "hull-nspawn",
        }
    }
}

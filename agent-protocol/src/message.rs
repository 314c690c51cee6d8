//! The control messages, both directions.

use serde::{Deserialize, Serialize};

use crate::frame::FRAME_MAX;
use crate::{Frame, Violation};

/// The version both ends say first. A host refuses an agent of another version: both come from one
/// release.
pub const VERSION: u32 = 1;

/// The vsock port on the host (context id 2) that the agent of a VM pod connects to.
pub const AGENT_PORT: u32 = 1024;

/// The I/O port in a VM pod whose first written byte ends the machine: 0 where the agent has said
/// [`FromAgent::Finished`], anything else where it gave up.
pub const DOORBELL_PORT: u16 = 0x600;

/// The channel of the control messages; every other channel carries an app's bytes.
pub const CONTROL_CHANNEL: u32 = 0;

/// What the host says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum ToAgent {
    /// The pod to run. Said once, first.
    Start(PodSpec),
    /// Delivers a signal to the main process of every app that runs.
    Signal { signal: i32 },
    /// Ends the pod: `signal` (or each app's own stop signal) now, `SIGKILL` after the grace.
    /// Said again, the shorter grace wins.
    Stop { signal: Option<i32>, grace_ms: u32 },
    /// A terminal of the user changed its size.
    Resize { channel: u32, size: TerminalSize },
    /// The host has consumed `bytes` of a channel; the agent may send as many more.
    Credit { channel: u32, bytes: u32 },
}

/// What the agent says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum FromAgent {
    /// Said once, first, without being asked.
    Hello { version: u32 },
    /// The app's program runs: its `execve` has succeeded.
    Started { app: u16 },
    /// The app could not be started; the pod ends. `app` is absent where the pod itself failed.
    Failed { app: Option<u16>, fault: AgentFault, text: String },
    /// The app's main process ended and every byte of its streams has been sent.
    Exited { app: u16, outcome: Outcome },
    /// Nothing follows: every app has ended, its files are synced, the machine goes away. The host
    /// closes the link when it has read this; the agent of a VM waits for that before it ends the
    /// machine, lest the message go down with it.
    Finished,
    /// The agent has consumed `bytes` of a channel; the host may send as many more.
    Credit { channel: u32, bytes: u32 },
}

/// Whose fault a failed start is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AgentFault {
    /// The image or the command line asks for something that is not there: a command, a user.
    Pod,
    /// The machine could not provide what every pod needs: a mount, a cgroup.
    Machine,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The argument of `exit(2)`, low eight bits.
    Code(u8),
    /// The number of the signal that killed it.
    Signal(u8),
}

/// Everything the agent needs to know about a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PodSpec {
    /// The pod's UTS host name.
    pub hostname: String,
    /// At most [`PodSpec::APPS_MAX`]; an app's number is its index here.
    pub apps: Vec<AppSpec>,
}

impl PodSpec {
    /// Most apps in one pod.
    pub const APPS_MAX: usize = 256;
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
    /// Program and arguments, never empty. A program without a slash is searched in the app's `PATH`.
    pub exec: Vec<String>,
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
    /// Sets `no_new_privs` (prctl(2)).
    pub no_new_privileges: bool,
    /// The signal that asks the app to end.
    pub stop_signal: i32,
    /// How the app's descriptors 0, 1 and 2 are connected.
    pub streams: StandardStreams,
}

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

/// As `struct winsize` of tty_ioctl(4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TerminalSize {
    pub rows: u16,
    pub columns: u16,
}

/// A control message of either direction.
pub trait Message: Serialize + for<'de> Deserialize<'de> {
    /// Appends the message to `out` as one frame.
    ///
    /// # Errors
    /// A message longer than [`FRAME_MAX`] (an environment of more than a mebibyte, say).
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), Violation> {
        let json = serde_json::to_vec(self).map_err(|e| Violation(format!("encode message: {e}")))?;
        if json.len() > FRAME_MAX {
            return Err(Violation(format!("message of {} bytes, at most {FRAME_MAX} fit", json.len())));
        }
        Frame { channel: CONTROL_CHANNEL, payload: json }.encode(out);
        Ok(())
    }

    /// Reads a message from the payload of a control frame.
    ///
    /// # Errors
    /// Anything that is not exactly one known message.
    fn decode(payload: &[u8]) -> Result<Self, Violation> {
        serde_json::from_slice(payload).map_err(|e| Violation(format!("malformed control message: {e}")))
    }
}

impl Message for ToAgent {}
impl Message for FromAgent {}

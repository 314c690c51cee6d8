//! The control messages, both directions.

use serde::{Deserialize, Serialize};

use crate::frame::FRAME_MAX;
use crate::spec::{PodSpec, StandardStreams, TerminalSize};
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

/// The first channel of processes that join an app ([`ToAgent::Exec`]). These end while what was meant for
/// them is on its way, so the agent drops what comes on one that it does not know.
pub const PROCESS_CHANNEL_FIRST: u32 = 1 << 16;

/// Most processes that are in a pod's apps at a time beside what these start themselves.
pub const PROCESSES_MAX: usize = 64;

/// Longest content that is signed, and longest signature, in bytes.
pub const SIGNED_MAX: usize = 64 << 10;

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
    /// Runs one more program in an app that runs, with the app's user, rights and limits. `process` is new;
    /// the channels too, from [`PROCESS_CHANNEL_FIRST`] on.
    Exec { process: u32, app: u16, exec: Vec<String>, streams: StandardStreams },
    /// Writes the files of an app that runs to the standard output of such a process, as [`crate::export`] has them.
    Export { process: u32, app: u16, streams: StandardStreams },
    /// The answer to [`FromAgent::Sign`].
    Signed { request: u32, signature: String },
    /// The answer to [`FromAgent::Verify`].
    Verified { request: u32, valid: bool },
    /// Delivers a signal to such a process; one that has ended minds nothing.
    SignalProcess { process: u32, signal: i32 },
}

/// What the agent says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum FromAgent {
    /// Said once, first, without being asked.
    Hello { version: u32 },
    /// The app's program runs: its `execve` has succeeded.
    Started {
        app: u16,
        /// Of the app's main process, as the machine counts.
        pid: u32,
    },
    /// The app could not be started; the pod ends. `app` is absent where the pod itself failed.
    Failed { app: Option<u16>, fault: AgentFault, text: String },
    /// The app's main process ended and every byte of its streams has been sent.
    Exited { app: u16, outcome: Outcome },
    /// The app's main process ended, and the app is started again in a while, with the same streams.
    Restarting { app: u16, outcome: Outcome, after_ms: u32 },
    /// Something went wrong that ends neither an app nor the pod.
    Warning { text: String },
    /// Nothing follows: every app has ended, its files are synced, the machine goes away. The host
    /// closes the link when it has read this; the agent of a VM waits for that before it ends the
    /// machine, lest the message go down with it.
    Finished,
    /// The program of an [`ToAgent::Exec`] runs.
    ProcessStarted { process: u32 },
    /// It could not be started. Nothing more is said of this process.
    ProcessFailed { process: u32, text: String },
    /// It ended, and every byte of its streams has been sent. Nothing more is said of this process.
    ProcessExited { process: u32, outcome: Outcome },
    /// An app wants bytes signed in the name of the pod; at most [`SIGNED_MAX`].
    Sign { request: u32, content: Vec<u8> },
    /// An app wants to know whether a pod of this host has signed them.
    Verify { request: u32, uuid: String, content: Vec<u8>, signature: String },
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

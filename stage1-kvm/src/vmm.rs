//! The VMM's process, from its start to its burial, as the supervisor sees it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use hull_errors::Doing;
use hull_stage1::{Kind, Pod};
use hull_vmm::{Asked, Filesystem};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::ids::OwnId;
use crate::order::{self, Report, Wanted};
use crate::{Error, limits, plan};

/// The first argument that makes this program the VMM instead of the supervisor. No pod's id looks like it.
pub(crate) const WORD: &str = "vmm";

/// One heap for all threads: a heap of its own for each is address space and system calls for nothing.
const ONE_HEAP: (&str, &str) = ("GLIBC_TUNABLES", "glibc.malloc.arena_max=1");

/// How long the VMM may take to say why its machine ended, and to end. It hands over what its guest has said last
/// within five seconds.
const LAST_WORDS_MAX: Duration = Duration::from_secs(10);

/// A process that runs a machine. Dropping it takes it away.
#[derive(Debug)]
pub(crate) struct Vmm {
    child: Child,
    socket: OwnedFd,
    // Given back when the process is gone: `Drop` runs before fields are dropped.
    _id: Option<OwnId>,
}

impl Vmm {
    /// Starts the process, in the pod's cgroup, and tells it what machine to run. Whether that works, it reports
    /// later.
    pub(crate) fn start(
        pod: &Pod,
        asked: Asked,
        filesystems: Vec<Filesystem>,
        id: Option<OwnId>,
        cgroup: Option<&Path>,
    ) -> Result<Self, Error> {
        let doing = || "start the virtual machine's process".to_owned();
        let (socket, theirs) = order::pair().doing(Kind::Host, doing)?;
        // Whatever has become of the file: both are of one version.
        let mut command = Command::new("/proc/self/exe");
        command.arg0("hull-vmm").args([WORD, pod.contract.pod.as_str()]);
        command.env_clear().env(ONE_HEAP.0, ONE_HEAP.1).stdin(theirs).stdout(Stdio::null());
        if !pod.contract.debug {
            command.stderr(Stdio::null());
        }
        let child = hull_jail::spawn_alone(&mut command).doing(Kind::Host, doing)?;
        // The command holds the other end too, which must be closed for its death to be noticed.
        drop(command);
        let number = id.as_ref().map(OwnId::number);
        let vmm = Self { child, socket, _id: id };
        if let Some(cgroup) = cgroup {
            limits::put(cgroup, vmm.pid())?;
        }
        match order::give(&vmm.socket, Wanted { asked, filesystems, id: number }) {
            // One that hung up before it heard all has said why.
            Err(why) if why.kind() != io::ErrorKind::BrokenPipe => Err(why).doing(Kind::Host, doing),
            _ => Ok(vmm),
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the machine, whose link has ended, and says how it ended.
    pub(crate) fn why_it_ended(&mut self, pod: &Pod) -> String {
        let patience = Timespec::try_from(LAST_WORDS_MAX).expect("seconds");
        let silent = poll(&mut [PollFd::new(&self.socket.as_fd(), PollFlags::IN)], Some(&patience)) == Ok(0);
        match order::heard(&self.socket) {
            Some(Report::Failed(why)) => why,
            Some(Report::BadKernel(why)) => format!("load guest kernel {}: {why}", plan::kernel(pod)),
            Some(Report::PowerOff { code }) => {
                format!("the agent gave up and switched the machine off (code {code})")
            }
            Some(Report::Reset) => {
                format!("guest kernel {} crashed; --debug shows its last words", plan::kernel(pod))
            }
            Some(Report::Fault(why)) => format!("the virtual machine stopped: {why}"),
            None if silent => "the virtual machine did not say why it stopped, and was taken away".into(),
            None => self.bury().map_or_else(|why| why.to_string(), how_it_ended),
        }
    }

    /// It has nothing more to say.
    fn bury(&mut self) -> io::Result<ExitStatus> {
        // Ended already is as good. It is not reaped yet, so the number is still its own.
        let _ = self.child.kill();
        self.child.wait()
    }
}

impl Drop for Vmm {
    fn drop(&mut self) {
        let _ = self.bury(); // Fails only for one that was waited for.
    }
}

fn how_it_ended(status: ExitStatus) -> String {
    match status.signal() {
        Some(libc::SIGSYS) => {
            "the virtual machine was killed: it made a system call that no VMM makes".into()
        }
        Some(signal) => format!("the virtual machine was killed by signal {signal}"),
        None => format!("the virtual machine's process ended without a word ({status})"),
    }
}

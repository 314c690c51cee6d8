//! From the agent's process to the app's program.
//!
//! The child says on a pipe why it could not execute the program; the pipe closes without a word when
//! it could, because it is close-on-exec.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write, pipe, stdin, stdout};
use std::os::fd::{AsFd, OwnedFd};

use hull_agent_protocol::message::AgentFault;
use hull_agent_protocol::{AppSpec, PodSpec};
use hull_errors::{Doing, chain};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, FcntlArg, OFlag, fcntl, open};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::{Mode, fstat, umask};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{
    AccessFlags, Gid, Pid, Uid, chdir, chroot, dup2_stderr, dup2_stdin, dup2_stdout, execve, faccessat,
    fchdir, fchown, getppid, read, setgroups, setresgid, setresuid, setsid,
};

use crate::cgroup::AppCgroup;
use crate::identity::{Files, Identity, Owner, identify};
use crate::inside::{Root, is_directory};
use crate::machine::Machine;
use crate::root::{AppDir, Furniture};
use crate::streams::AppSide;
use crate::{
    Error, capabilities, environment, export, limits, passwd, processes, program, root, sys, volumes,
};

/// Longest reason that a child gives, in bytes; with its namespace it fits in a pipe without waiting.
const REASON_MAX: usize = 3072;

/// `CAP_SYS_ADMIN` in a set.
const SYS_ADMIN: u64 = 1 << 21;

/// What the child is given.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    pub(crate) app: &'a AppSpec,
    pub(crate) room: Room<'a>,
    pub(crate) task: Task,
    pub(crate) side: &'a AppSide,
    pub(crate) cgroup: Option<&'a AppCgroup>,
    pub(crate) machine: Machine,
    pub(crate) pod: &'a PodSpec,
}

/// What the child does there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// Becomes the program.
    Run,
    /// Runs the app's post-stop commands, and ends. Of its report only the end counts.
    CleanUp,
    /// Writes the app's files to its standard output, and ends.
    Export,
}

/// Where the child goes to.
#[derive(Debug)]
pub(crate) enum Room<'a> {
    /// Namespaces and a root of its own, which it furnishes.
    New(&'a AppDir),
    /// Those of an app that runs.
    Running(&'a Namespaces),
}

/// What makes an app's world. Opened before its program could make another: later, `/proc` would show
/// whatever namespaces the program has chosen to be in, with files of its choice.
#[derive(Debug)]
pub(crate) struct Namespaces {
    mounts: File,
    cgroup: File,
    /// The app's root. The root of the mount namespace is another where the machine's own root is not
    /// (chroot(2)): setns(2) would put us there.
    root: OwnedFd,
}

impl Namespaces {
    fn of(pid: Pid) -> io::Result<Self> {
        let namespace = |name: &str| File::open(format!("/proc/{pid}/ns/{name}"));
        let directory = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root = open(format!("/proc/{pid}/root").as_str(), directory, Mode::empty())?;
        Ok(Self { mounts: namespace("mnt")?, cgroup: namespace("cgroup")?, root })
    }

    fn join(&self) -> nix::Result<()> {
        setns(&self.cgroup, CloneFlags::CLONE_NEWCGROUP)?;
        setns(&self.mounts, CloneFlags::CLONE_NEWNS)?;
        fchdir(&self.root)?;
        chroot(".")?;
        chdir("/")
    }
}

/// A child on its way to its program.
#[derive(Debug)]
pub(crate) struct Launched {
    pub(crate) pid: Pid,
    pub(crate) report: Report,
}

/// Starts a process of the app's. The app's side of the streams must be dropped at last, or they never end.
pub(crate) fn launch(with: &Launch<'_>) -> Result<Launched, Error> {
    let doing = || format!("start a process for app {}", with.app.name);
    let (reader, writer) = pipe().doing(AgentFault::Machine, doing)?;
    let (go_reader, go_writer) = pipe().doing(AgentFault::Machine, doing)?;
    let reader = nonblocking(reader.into()).doing(AgentFault::Machine, doing)?;
    match sys::fork().doing(AgentFault::Machine, doing)? {
        Some(pid) => Ok(Launched { pid, report: Report::new(reader, pid, go_writer) }),
        None => {
            drop((reader, go_writer));
            let why = match with.task {
                Task::Run | Task::CleanUp => {
                    let Err(why) = become_app(with, &writer, go_reader);
                    why
                }
                Task::Export => match begin_export(with) {
                    Ok(()) => {
                        drop(writer);
                        export_and_exit()
                    }
                    Err(why) => why,
                },
            };
            let fault = if *why.kind() == AgentFault::Pod { b'P' } else { b'M' };
            let mut reason = chain(&why);
            reason.truncate(reason.floor_char_boundary(REASON_MAX));
            // If the agent is gone there is nobody to tell.
            let _ = (&writer).write_all(&[&[fault], reason.as_bytes()].concat());
            std::process::exit(127)
        }
    }
}

/// The agent's end of the pipe that a child reports on.
#[derive(Debug)]
pub(crate) struct Report {
    fd: OwnedFd,
    bytes: Vec<u8>,
    pid: Pid,
    /// Until the child was told to go on.
    go: Option<io::PipeWriter>,
    namespaces: Option<Namespaces>,
}

/// What a child came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// Its program runs, in this mount namespace.
    Started {
        namespace: Option<u64>,
    },
    Failed {
        fault: AgentFault,
        text: String,
    },
}

impl Report {
    fn new(fd: OwnedFd, pid: Pid, go: io::PipeWriter) -> Self {
        Self { fd, bytes: vec![], pid, go: Some(go), namespaces: None }
    }

    /// The namespaces that the child has made.
    pub(crate) fn take_namespaces(&mut self) -> Option<Namespaces> {
        self.namespaces.take()
    }

    /// Looks at the namespaces of a child that waits for that, and lets it go on.
    fn look(&mut self) {
        if self.bytes.len() >= NAMESPACE_LEN
            && let Some(mut go) = self.go.take()
        {
            self.namespaces = Namespaces::of(self.pid).ok(); // Without, nobody can join the app.
            let _ = go.write_all(&[0]); // A child that is gone needs no leave.
        }
    }

    /// Reads on; `Some` once the child has executed its program or ended.
    pub(crate) fn read(&mut self) -> Option<Word> {
        let mut chunk = [0; 512];
        loop {
            match read(&self.fd, &mut chunk) {
                Ok(len @ 1..) => {
                    self.bytes.extend_from_slice(&chunk[..len]);
                    self.look();
                }
                Err(Errno::EINTR) => (),
                Err(Errno::EAGAIN) => return None,
                Ok(0) | Err(_) => return Some(parse(&self.bytes)),
            }
        }
    }
}

impl AsFd for Report {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// `N` and a number.
const NAMESPACE_LEN: usize = 9;

fn nonblocking(fd: OwnedFd) -> io::Result<OwnedFd> {
    fcntl(&fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(fd)
}

/// `N` and the eight bytes of a namespace, then nothing, or `P` or `M` and a text.
fn parse(bytes: &[u8]) -> Word {
    let (namespace, rest) = match bytes.split_first() {
        Some((b'N', rest)) => match rest.split_first_chunk::<8>() {
            Some((namespace, rest)) => (Some(u64::from_le_bytes(*namespace)), rest),
            None => (None, rest),
        },
        _ => (None, bytes),
    };
    match rest.split_first() {
        None => Word::Started { namespace },
        Some((fault, text)) => Word::Failed {
            fault: if *fault == b'P' { AgentFault::Pod } else { AgentFault::Machine },
            text: String::from_utf8_lossy(text).into_owned(),
        },
    }
}

/// The steps from a copy of the agent to the app's program. Their order is what keeps the app in:
/// namespaces and mounts while we may do anything, then the root, then the files of the image, which
/// only now cannot lead outside, then the rights, then the program.
fn become_app(with: &Launch<'_>, report: &io::PipeWriter, go: io::PipeReader) -> Result<Infallible, Error> {
    let app = with.app;
    let machine = |what: &'static str| move || what.to_owned();
    follow_agent(with)?;
    setsid().doing(AgentFault::Machine, machine("start a session"))?;
    sys::join_own_session_keyring()
        .or_else(|why| if why.raw_os_error() == Some(libc::ENOSYS) { Ok(()) } else { Err(why) })
        .doing(AgentFault::Machine, machine("make a keyring"))?;
    let inside = match with.room {
        Room::New(dir) => {
            let namespace = isolate(with).doing(AgentFault::Machine, machine("make the app's namespaces"))?;
            let furniture = Furniture {
                terminal: matches!(with.side, AppSide::Terminal { .. }),
                cgroup: with.cgroup.is_some(),
                hostname: with.machine.has_own_name().then_some(with.pod.hostname.as_str()),
                protect: app.protect_paths,
                hosts: with.pod.hosts.as_deref(),
                resolver: with.pod.resolver.as_deref(),
            };
            // Nodes and directories get the modes they are made with.
            umask(Mode::empty());
            let root = root::furnish(dir, furniture)?;
            volumes::mount_all(&root, app, &with.pod.volumes)?;
            let inside = root::enter(dir)?;
            show(namespace, report, go).doing(AgentFault::Machine, machine("show the app's namespaces"))?;
            inside
        }
        Room::Running(namespaces) => {
            // First in, so that no limit of the app's is missed by what follows.
            with.cgroup
                .map_or(Ok(()), AppCgroup::join)
                .doing(AgentFault::Machine, machine("enter the cgroup"))?;
            let joined = namespaces.join().and_then(|()| Root::open("/"));
            joined.doing(AgentFault::Machine, machine("enter the app's namespaces"))?
        }
    };
    let identity = match with.task {
        Task::Run => read_identity(&inside, app)?,
        Task::CleanUp | Task::Export => Identity::root(),
    };
    connect(with.side, identity.uid).doing(AgentFault::Machine, machine("connect the standard streams"))?;
    umask(Mode::from_bits_truncate(0o022));
    work_in(&inside, &app.working_directory)?;
    let is_new = matches!(with.room, Room::New(_));
    if is_new && app.read_only_root {
        root::make_read_only().doing(AgentFault::Machine, machine("write-protect the app's root"))?;
    }
    limits::limit(&app.limits).doing(AgentFault::Machine, machine("set resource limits"))?;
    sys::cloexec_from(3).doing(AgentFault::Machine, machine("keep descriptors from the app"))?;
    if with.task == Task::CleanUp {
        app.post_stop.iter().try_for_each(|command| run_beside(with, "post-stop", command, &inside))?;
        std::process::exit(0);
    }
    if is_new {
        app.pre_start.iter().try_for_each(|command| run_beside(with, "pre-start", command, &inside))?;
    }
    run(with, &app.exec, &identity, &inside)
}

/// Goes to where the app's files are and nothing is mounted on them.
fn begin_export(with: &Launch<'_>) -> Result<(), Error> {
    let machine = |what: &'static str| move || what.to_owned();
    follow_agent(with)?;
    let joined = with.cgroup.map_or(Ok(()), AppCgroup::join);
    joined.doing(AgentFault::Machine, machine("enter the cgroup"))?;
    connect(with.side, 0).doing(AgentFault::Machine, machine("connect the standard streams"))?;
    sys::cloexec_from(3).doing(AgentFault::Machine, machine("close descriptors"))?;
    let Room::New(dir) = with.room else {
        unreachable!("files are exported from the root, not from an app in it")
    };
    let entered = chroot(dir.root().as_str()).and_then(|()| chdir("/"));
    entered.doing(AgentFault::Machine, machine("enter the app's root"))
}

fn export_and_exit() -> ! {
    match export::write_all() {
        Ok(()) => std::process::exit(0),
        Err(why) => {
            // Its own standard error is all that it has.
            let _ = writeln!(io::stderr(), "export the app's files: {why}");
            std::process::exit(1)
        }
    }
}

/// Runs a command to its end before or after the app: as root, in the app's root and with the app's rights.
fn run_beside(with: &Launch<'_>, when: &str, command: &[String], inside: &Root) -> Result<(), Error> {
    let name = command.first().map_or("", String::as_str);
    let doing = || format!("run {when} command {name:?}");
    let Some(pid) = sys::fork().doing(AgentFault::Machine, doing)? else {
        let Err(why) = run(with, command, &Identity::root(), inside);
        // The app's own standard error is all that it has.
        let _ = writeln!(io::stderr(), "{}", chain(&why));
        std::process::exit(127)
    };
    match waitpid(pid, None).doing(AgentFault::Machine, doing)? {
        WaitStatus::Exited(_, 0) => Ok(()),
        WaitStatus::Exited(_, code) => {
            Err(Error::new(AgentFault::Pod, format!("{}: it ended with code {code}", doing())))
        }
        _ => Err(Error::new(AgentFault::Pod, format!("{}: a signal ended it", doing()))),
    }
}

/// Gives up all rights but the app's, and becomes the program.
fn run(
    with: &Launch<'_>,
    command: &[String],
    identity: &Identity,
    inside: &Root,
) -> Result<Infallible, Error> {
    let app = with.app;
    let machine = |what: &'static str| move || what.to_owned();
    let filter = filter(with)?;
    let keep = capabilities::set(&app.capabilities)?;
    drop_rights(identity, keep, app.no_new_privileges, filter.is_some())
        .doing(AgentFault::Machine, || format!("become user {}", identity.name))?;
    // Once more: the change of the user has cleared it.
    follow_agent(with)?;
    sys::default_signals();
    SigSet::empty().thread_set_mask().doing(AgentFault::Machine, machine("unblock signals"))?;
    execute(app, command, identity, inside, filter)
}

/// Ends with the parent process where no pid namespace ends with the agent.
fn follow_agent(with: &Launch<'_>) -> Result<(), Error> {
    if with.machine != Machine::Fly {
        return Ok(());
    }
    let parent = getppid();
    prctl::set_pdeathsig(Signal::SIGKILL).doing(AgentFault::Machine, || "follow the agent".into())?;
    match getppid() == parent {
        true => Ok(()),
        false => Err(Error::new(AgentFault::Machine, "start the app: the agent is gone")),
    }
}

fn filter<'a>(with: &Launch<'a>) -> Result<Option<&'a [u64]>, Error> {
    let Some(index) = with.app.seccomp else { return Ok(None) };
    match with.pod.seccomp.get(usize::from(index)) {
        Some(program) => Ok(Some(program)),
        None => Err(Error::new(AgentFault::Pod, format!("the pod has no system call filter {index}"))),
    }
}

/// The number of the mount namespace that was made.
fn isolate(with: &Launch<'_>) -> io::Result<u64> {
    let mut namespaces = CloneFlags::CLONE_NEWNS;
    if let Some(cgroup) = with.cgroup {
        // First in, so that the namespace's root is the app's own.
        cgroup.join()?;
        namespaces |= CloneFlags::CLONE_NEWCGROUP;
    }
    unshare(namespaces)?;
    processes::own_mount_namespace()
}

/// The agent looks at the namespaces and the root before anything of the image runs in them.
fn show(namespace: u64, mut report: &io::PipeWriter, mut go: io::PipeReader) -> io::Result<()> {
    report.write_all(&[b"N".as_slice(), &namespace.to_le_bytes()].concat())?;
    go.read_exact(&mut [0])
}

fn read_identity(inside: &Root, app: &AppSpec) -> Result<Identity, Error> {
    let file = |path: &str| {
        let bytes = inside.read(path, passwd::FILE_MAX);
        let bytes = bytes.doing(AgentFault::Pod, || format!("read the image's {path}"))?;
        Ok(String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned())
    };
    let files = Files { passwd: file("/etc/passwd")?, group: file("/etc/group")? };
    identify(app, &files, |path| {
        let found = inside.follow(path, OFlag::O_PATH).and_then(fstat);
        let stat = found.doing(AgentFault::Pod, || format!("find the owner of {path} in the image"))?;
        Ok(Owner { uid: stat.st_uid, gid: stat.st_gid })
    })
}

fn connect(side: &AppSide, uid: u32) -> io::Result<()> {
    match side {
        AppSide::Pipes { stdin, stdout, stderr } => {
            match stdin {
                Some(stdin) => dup2_stdin(stdin)?,
                None => dup2_stdin(open("/dev/null", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?)?,
            }
            dup2_stdout(stdout)?;
            dup2_stderr(stderr)?;
        }
        AppSide::Terminal { number, .. } => {
            let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
            let terminal = open(format!("/dev/pts/{number}").as_str(), flags, Mode::empty())?;
            sys::make_controlling(terminal.as_fd())?;
            dup2_stdin(&terminal)?;
            dup2_stdout(&terminal)?;
            dup2_stderr(&terminal)?;
        }
    }
    // The app may open its streams by name (/dev/stdout), whoever it runs as.
    let owner = Some(Uid::from_raw(uid));
    if !matches!(side, AppSide::Pipes { stdin: None, .. }) {
        fchown(stdin(), owner, None)?;
    }
    fchown(stdout(), owner, None)?;
    Ok(fchown(io::stderr(), owner, None)?)
}

fn work_in(inside: &Root, path: &str) -> Result<(), Error> {
    let path = if path.is_empty() { "/" } else { path };
    let dir = inside.make_directories(path);
    dir.and_then(fchdir).doing(AgentFault::Pod, || format!("work in directory {path:?} of the image"))
}

/// Root loads its filter by `CAP_SYS_ADMIN`, and execve(2) takes that away again: it is not in the bounding
/// set. So nothing is left to do after the filter, which need not allow it. Others may load one only if
/// they can gain no privileges.
fn drop_rights(identity: &Identity, keep: u64, no_new_privileges: bool, filtered: bool) -> io::Result<()> {
    sys::bound_capabilities(keep)?;
    let groups: Vec<_> = identity.groups.iter().copied().map(Gid::from_raw).collect();
    setgroups(&groups)?;
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    let no_new_privileges = no_new_privileges || (filtered && identity.uid != 0);
    let for_filter = if filtered && !no_new_privileges { SYS_ADMIN } else { 0 };
    sys::set_capabilities(if identity.uid == 0 { keep | for_filter } else { 0 })?;
    if no_new_privileges {
        prctl::set_no_new_privs()?;
    }
    Ok(())
}

fn execute(
    app: &AppSpec,
    command: &[String],
    identity: &Identity,
    inside: &Root,
    filter: Option<&[u64]>,
) -> Result<Infallible, Error> {
    let variables = environment::complete(app, identity);
    let text = |text: &String| {
        CString::new(text.as_str()).map_err(|_| {
            Error::new(AgentFault::Pod, format!("{text:?} has a NUL byte; no program can be given that"))
        })
    };
    let arguments = command.iter().map(text).collect::<Result<Vec<_>, _>>()?;
    let environment = variables.iter().map(|(name, value)| text(&format!("{name}={value}")));
    let environment = environment.collect::<Result<Vec<_>, _>>()?;
    let command = command.first().map_or("", String::as_str);
    let mut why = Error::new(AgentFault::Pod, not_there(command, environment::path(&variables)));
    for file in program::candidates(command, environment::path(&variables)) {
        match try_execute(&file, &arguments, &environment, inside, filter) {
            Ok(None) => (),
            // Denied here, the next directory may still have one, as execvp(3) does it.
            Ok(Some((Errno::EACCES, text))) => why = Error::new(AgentFault::Pod, text),
            Ok(Some((_, text))) => return Err(Error::new(AgentFault::Pod, text)),
            Err(never) => match never {},
        }
    }
    Err(why)
}

fn not_there(command: &str, path: &str) -> String {
    match command.contains('/') {
        true => format!("command {command:?} is not in the image"),
        false => format!("command {command:?} is not in the image; PATH is {path}"),
    }
}

/// `None`: there is no such file.
fn try_execute(
    file: &str,
    arguments: &[CString],
    environment: &[CString],
    inside: &Root,
    filter: Option<&[u64]>,
) -> Result<Option<(Errno, String)>, Infallible> {
    match inside.follow(&from_here(file), OFlag::O_PATH) {
        // A link of procfs may lead to the agent's own program.
        Err(Errno::ELOOP) => {
            return Ok(Some((Errno::ELOOP, format!("command {file:?} is a link to nowhere"))));
        }
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
        Ok(found) if fstat(&found).is_ok_and(|stat| is_directory(&stat)) => {
            return Ok(Some((Errno::EACCES, format!("command {file:?} is a directory"))));
        }
        // What the user may not look at, execve(2) knows better.
        _ => (),
    }
    let Ok(path) = CString::new(file) else { return Ok(None) };
    // Behind the filter nothing can be asked any more that it may not allow.
    let head = inside.head(&from_here(file), program::HEAD_MAX);
    let allowed = faccessat(AT_FDCWD, path.as_c_str(), AccessFlags::X_OK, AtFlags::AT_EACCESS);
    if let Err(errno) = allowed {
        return Ok(Some((errno, explain(file, errno, &head))));
    }
    if let Some(Err(why)) = filter.map(sys::filter_calls) {
        return Ok(Some((Errno::EINVAL, format!("load the app's system call filter: {why}"))));
    }
    let errno = match execve(&path, arguments, environment) {
        Err(errno) => errno,
        Ok(never) => match never {},
    };
    Ok(Some((errno, explain(file, errno, &head))))
}

fn explain(file: &str, errno: Errno, head: &[u8]) -> String {
    match errno {
        Errno::EACCES => format!("command {file:?} is not executable for the app's user"),
        Errno::ENOEXEC => format!("command {file:?} cannot be executed: {}", program::why_no_format(head)),
        Errno::ENOENT => match program::interpreter(head) {
            Some(name) => format!("command {file:?} needs {name:?}, which is not in the image"),
            None => format!("command {file:?} needs an interpreter that is not in the image"),
        },
        Errno::E2BIG => {
            format!("command {file:?} cannot be executed: arguments and environment are too long")
        }
        errno => format!("command {file:?} cannot be executed: {errno}"),
    }
}

/// A path relative to the working directory, made absolute: [`Root`] starts at the top.
fn from_here(file: &str) -> String {
    if file.starts_with('/') {
        return file.to_owned();
    }
    let here = nix::unistd::getcwd().unwrap_or_default();
    here.join(file).to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_understood() {
        let check = |bytes: &[u8], want: Word| assert_eq!(parse(bytes), want);
        check(b"", Word::Started { namespace: None });
        check(b"N\x07\0\0\0\0\0\0\0", Word::Started { namespace: Some(7) });
        check(b"Pno", Word::Failed { fault: AgentFault::Pod, text: "no".into() });
        check(b"N\x07\0\0\0\0\0\0\0Mno", Word::Failed { fault: AgentFault::Machine, text: "no".into() });
    }
}

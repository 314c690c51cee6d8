//! The installed `hull`, with a data directory of the test's own.

use std::env;
use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::Image;

/// Longest any one command of a test may take; an emulated host boots a guest in two seconds.
const PATIENCE: Duration = Duration::from_secs(90);

/// What a case runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    Kvm,
    Nspawn,
    Fly,
}

impl Flavour {
    /// The option that asks for it.
    pub fn option(self) -> &'static str {
        match self {
            Self::Kvm => "--stage1=kvm",
            Self::Nspawn => "--stage1=nspawn",
            Self::Fly => "--stage1=fly",
        }
    }
}

/// A data directory and the `hull` that uses it. Dropping it collects every pod and fails the test if
/// one cannot be collected.
#[derive(Debug)]
pub struct Hull {
    dir: TempDir,
    settings: TempDir,
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

impl Default for Hull {
    fn default() -> Self {
        Self::new()
    }
}

impl Hull {
    /// A new, empty data directory.
    pub fn new() -> Self {
        let folder =
            || tempfile::Builder::new().prefix("hull-test-").tempdir().expect("a temporary directory");
        Self { dir: folder(), settings: folder() }
    }

    /// The data directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The administrator's settings, empty at first.
    pub fn settings(&self) -> &Path {
        self.settings.path()
    }

    /// `hull ARGS`, not started yet. Nothing that the host is set up for reaches it.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(binaries().join("hull"));
        command.env("HULL_DIR", self.dir()).env("HULL_LOCAL_CONFIG", self.settings());
        command.env("HULL_SYSTEM_CONFIG", self.settings().join("vendor")).env_remove("HULL_USER_CONFIG");
        command.args(args);
        command
    }

    /// `hull run FLAVOUR IMAGE -- ARGS`, not started yet. Images of the tests are signed by nobody.
    pub fn run_command(&self, flavour: Flavour, image: &Image, args: &[&str]) -> Command {
        let mut command = self.command(["run", flavour.option(), "--insecure-options=image"]);
        command.args([&image.reference(), "--"]).args(args);
        command
    }

    /// Runs a shell script in a pod of the standard image.
    pub fn shell(&self, flavour: Flavour, script: &str) -> Ended {
        finish(self.run_command(flavour, &Image::standard(), &["/bin/sh", "-c", script]))
    }

    /// Any other command of hull's.
    pub fn hull(&self, args: &[&str]) -> Ended {
        finish(self.command(args))
    }

    /// Starts a shell script in a pod, in the background.
    pub fn start(&self, flavour: Flavour, script: &str) -> Started {
        self.spawn_command(self.run_command(flavour, &Image::standard(), &["/bin/sh", "-c", script]))
    }

    /// Starts any command of hull's in the background.
    pub fn spawn(&self, args: &[&str]) -> Started {
        self.spawn_command(self.command(args))
    }

    /// Starts any command in the background.
    pub fn spawn_command(&self, mut command: Command) -> Started {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("hull starts");
        Started { child: Some(child) }
    }

    /// The ids of all pods that hull lists.
    pub fn pods(&self) -> Vec<String> {
        let list = self.hull(&["list", "--full", "--no-legend"]).success();
        // A pod's second app has a line of its own, without the pod's id.
        let pods = list.lines().filter(|line| !line.starts_with(' '));
        pods.filter_map(|line| line.split_whitespace().next().map(str::to_owned)).collect()
    }

    /// The value of `key=` in `hull status` of the only pod.
    pub fn status(&self, key: &str) -> Option<String> {
        let pods = self.pods();
        let [pod] = pods.as_slice() else { panic!("one pod, not {pods:?}") };
        let status = self.hull(&["status", pod]).success();
        let prefix = format!("{key}=");
        status.lines().find_map(|line| line.strip_prefix(&prefix).map(str::to_owned))
    }

    /// Collects every pod that has ended.
    pub fn collect(&self) -> Ended {
        self.hull(&["gc", "--grace-period=0s", "--expire-prepared=0s"])
    }
}

impl Drop for Hull {
    fn drop(&mut self) {
        let ended = self.collect();
        if !std::thread::panicking() {
            assert_eq!(ended.code, 0, "gc: {}", ended.stderr());
        }
    }
}

/// A pod that runs in the background; killed on drop.
#[derive(Debug)]
pub struct Started {
    child: Option<Child>,
}

impl Started {
    /// The process that `hull run` has become.
    pub fn pid(&self) -> Pid {
        let id = self.child.as_ref().expect("only `wait` takes the child").id();
        Pid::from_raw(i32::try_from(id).expect("a process id"))
    }

    /// Sends a signal to it.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("the pod runs");
    }

    /// Reads its standard output until `text` has come.
    pub fn await_output(&mut self, text: &str) {
        use std::io::Read;
        let child = self.child.as_mut().expect("only `wait` takes the child");
        let _watchdog = Watchdog::over(child.id());
        let stdout = child.stdout.as_mut().expect("piped");
        let mut got = Vec::new();
        let mut byte = [0];
        while !got.ends_with(text.as_bytes()) {
            if stdout.read(&mut byte).expect("read the pod's output") == 0 {
                let mut stderr = String::new();
                let _ = child.stderr.as_mut().map(|e| e.read_to_string(&mut stderr)); // For the message only.
                panic!("the pod ended before it said {text:?}: {:?} {stderr}", String::from_utf8_lossy(&got));
            }
            got.push(byte[0]);
        }
    }

    /// Likewise; `again` is done until it has come, whatever comes before.
    pub fn await_output_while(&mut self, text: &str, mut again: impl FnMut()) {
        use std::io::Read;
        let child = self.child.as_mut().expect("only `wait` takes the child");
        let _watchdog = Watchdog::over(child.id());
        let stdout = child.stdout.as_mut().expect("piped");
        let mut got = Vec::new();
        while !got.ends_with(text.as_bytes()) {
            let mut fds =
                [nix::poll::PollFd::new(std::os::fd::AsFd::as_fd(stdout), nix::poll::PollFlags::POLLIN)];
            if nix::poll::poll(&mut fds, 50u8).expect("poll a pipe") == 0 {
                again();
                continue;
            }
            let mut byte = [0];
            assert_eq!(stdout.read(&mut byte).expect("read output"), 1, "it ended before it said {text:?}");
            got.push(byte[0]);
        }
    }

    /// Stops reading its standard output.
    pub fn close_output(&mut self) {
        drop(self.child.as_mut().and_then(|child| child.stdout.take()));
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Ended {
        let child = self.child.take().expect("taken once");
        ended(child)
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill(); // Ended already is as good.
            let _ = child.wait();
        }
    }
}

impl Ended {
    /// Standard output as text.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Standard output of a command that must succeed.
    #[track_caller]
    pub fn success(self) -> String {
        assert_eq!(self.code, 0, "stdout: {} stderr: {}", self.stdout(), self.stderr());
        self.stdout()
    }

    /// Checks that hull itself failed and that each word of `words` is in what it said.
    #[track_caller]
    pub fn failure(self, words: &[&str]) -> String {
        let said = self.stderr();
        assert_eq!(self.code, 254, "stdout: {} stderr: {said}", self.stdout());
        for word in words {
            assert!(said.contains(word), "{word:?} is not in {said:?}");
        }
        said
    }
}

/// Runs a command to its end.
#[track_caller]
pub fn finish(mut command: Command) -> Ended {
    command.stdin(Stdio::null());
    ended(piped(&mut command))
}

/// Runs a command to its end with `input` on its standard input.
#[track_caller]
pub fn finish_with_input(mut command: Command, input: Vec<u8>) -> Ended {
    command.stdin(Stdio::piped());
    let mut child = piped(&mut command);
    let mut stdin = child.stdin.take().expect("piped");
    // A reader that leaves early is the test's business, told by its output.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let ended = ended(child);
    writer.join().expect("the writer only writes");
    ended
}

fn piped(command: &mut Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap_or_else(|why| panic!("start {command:?}: {why}; build first: cargo xtask test"))
}

fn ended(child: Child) -> Ended {
    let _watchdog = Watchdog::over(child.id());
    let Output { status, stdout, stderr } = child.wait_with_output().expect("wait for a child");
    Ended { code: code(status), stdout, stderr }
}

fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| -status.signal().unwrap_or(0))
}

/// Kills a process that is too slow; a hanging pod fails its test instead of hanging the suite.
#[derive(Debug)]
pub(crate) struct Watchdog(#[expect(dead_code, reason = "dropping it calls the dog off")] mpsc::Sender<()>);

impl Watchdog {
    pub(crate) fn over(pid: u32) -> Self {
        let (sender, receiver) = mpsc::channel::<()>();
        std::thread::spawn(move || {
            if receiver.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
                eprintln!("process {pid} did not end within {PATIENCE:?}: killed");
                let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL); // Ended just now is fine.
            }
        });
        Self(sender)
    }
}

/// Waits until `condition` holds, at most [`PATIENCE`].
#[track_caller]
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::yield_now();
    }
}

/// Where the built binaries are.
pub fn binaries() -> PathBuf {
    match env::var_os("HULL_BIN") {
        Some(dir) => dir.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/x86_64-unknown-linux-gnu/release"),
    }
}

//! A machine for the real agent on this host, and a small stage1 at the other end of its link.

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hull_agent_protocol::host::{Event, Host};
use hull_agent_protocol::message::{AgentFault, Message};
use hull_agent_protocol::{
    AppSpec, Decoder, ImageSource, Outcome, PROCESS_CHANNEL_FIRST, PodSpec, StandardStreams, ToAgent, frame,
};

/// Longest time that the agent may stay silent.
const PATIENCE: Duration = Duration::from_secs(20);

/// The applets of the image's busybox.
const APPLETS: &str = "awk cat chroot cut dd dirname echo env false grep head id kill ls mkdir mknod mount \
                       printf ps pwd readlink rm seq setsid sh sleep sort stat stty test touch tr true tty \
                       umount wc yes";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// As stage1 prepares it.
    Nspawn,
    /// The same where the host has no cgroup of version 2.
    NspawnWithoutCgroup,
    Fly,
}

pub const FLAVOURS: [Flavour; 3] = [Flavour::Nspawn, Flavour::NspawnWithoutCgroup, Flavour::Fly];

/// A root with a busybox, two users, and nothing mounted.
pub struct Image(pub tempfile::TempDir);

impl Image {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["bin", "etc", "tmp", "lib"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        fs::copy("/bin/busybox", dir.path().join("bin/busybox")).expect("busybox-static is installed");
        for applet in APPLETS.split_whitespace() {
            symlink("busybox", dir.path().join("bin").join(applet)).unwrap();
        }
        let image = Self(dir);
        image.write("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/srv:/bin/sh\n");
        image.write("etc/group", "root:x:0:\nwww:x:34:\ntape:x:26:web\n");
        image
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }
}

/// An app that runs `command` as root; `image/0` is where the rig mounts the first image.
pub fn app(command: &[&str]) -> AppSpec {
    let image = ImageSource::Mounted { path: "images/0".into() };
    let streams = StandardStreams::Pipes { stdin: Some(1), stdout: 2, stderr: 3 };
    let capabilities =
        ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_SETGID", "CAP_SYS_CHROOT", "CAP_DAC_OVERRIDE"];
    AppSpec {
        capabilities: capabilities.map(String::from).to_vec(),
        ..AppSpec::new("app", image, command, streams)
    }
}

pub fn shell(script: &str) -> AppSpec {
    app(&["/bin/sh", "-c", script])
}

pub fn pod(apps: Vec<AppSpec>) -> PodSpec {
    PodSpec { hostname: "pod-name".into(), apps, ..PodSpec::default() }
}

/// The agent in its machine.
pub struct Rig {
    pub child: Child,
    pub link: UnixStream,
    decoder: Decoder,
    pub host: Host,
    spec: PodSpec,
    cgroup: Option<PathBuf>,
    _scratch: tempfile::TempDir,
}

impl Rig {
    /// Starts the agent with `image` mounted and sends it `spec`.
    pub fn start(flavour: Flavour, image: &Image, spec: PodSpec) -> Self {
        let mut rig = Self::boot(flavour, image, spec);
        let spec = rig.spec.clone();
        rig.say(&ToAgent::Start(spec));
        rig
    }

    pub fn boot(flavour: Flavour, image: &Image, spec: PodSpec) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let (link, agent_end) = UnixStream::pair().unwrap();
        link.set_read_timeout(Some(PATIENCE)).unwrap();
        link.set_write_timeout(Some(PATIENCE)).unwrap();
        let cgroup = (flavour != Flavour::NspawnWithoutCgroup).then(make_cgroup);
        let script = match flavour {
            Flavour::Nspawn | Flavour::NspawnWithoutCgroup => NSPAWN,
            Flavour::Fly => FLY,
        };
        let namespaces = match flavour {
            Flavour::Nspawn => "-mpnuiC",
            Flavour::NspawnWithoutCgroup => "-mpnui",
            Flavour::Fly => "-m",
        };
        // The cgroup is entered before its namespace is made.
        let enter = "[ -z \"$CGROUP\" ] || echo $$ > $CGROUP/cgroup.procs; exec \"$@\"";
        let mut command = Command::new("sh");
        command.args(["-c", enter, "sh", "unshare", namespaces]);
        if flavour != Flavour::Fly {
            command.args(["--fork", "--kill-child"]);
        }
        command.args(["--propagation", "private", "sh", "-e", "-c", script]);
        command
            .env("AGENT", env!("CARGO_BIN_EXE_hull-agent"))
            .env("IMAGE", image.0.path())
            .env("ROOT", scratch.path())
            .env("CGROUP", cgroup.as_deref().unwrap_or(Path::new("")))
            .stdin(Stdio::from(OwnedFd::from(agent_end)));
        let child = command.spawn().expect("these tests need root, util-linux and busybox-static");
        let host = Host::new(&spec);
        Self { child, link, decoder: Decoder::default(), host, spec, cgroup, _scratch: scratch }
    }

    pub fn say(&mut self, message: &ToAgent) {
        let mut bytes = vec![];
        message.encode(&mut bytes).unwrap();
        self.link.write_all(&bytes).unwrap();
    }

    pub fn send(&mut self, channel: u32, bytes: &[u8]) {
        self.host.input_sent(channel, bytes.len());
        let mut framed = vec![];
        frame::encode(channel, bytes, &mut framed);
        self.link.write_all(&framed).unwrap();
    }

    /// The next event; `None` once the agent has closed the link.
    pub fn next(&mut self) -> Option<Event> {
        loop {
            while let Some(frame) = self.decoder.next_frame().unwrap() {
                if let Some(event) = self.host.receive(frame).expect("the agent keeps to the protocol") {
                    return Some(event);
                }
            }
            let mut chunk = [0; 65536];
            match self.link.read(&mut chunk) {
                Ok(0) => return None,
                Ok(len) => self.decoder.push(&chunk[..len]),
                // Our last credit came too late to be read.
                Err(why) if why.kind() == ErrorKind::ConnectionReset && self.host.is_finished() => {
                    return None;
                }
                Err(why) => panic!("waiting for the agent: {why}"),
            }
        }
    }

    /// Asks for one more process in app 0, with channels from `PROCESS_CHANNEL_FIRST` + 3 × its number on.
    pub fn exec(&mut self, process: u32, command: &[&str]) {
        let first = PROCESS_CHANNEL_FIRST + 3 * process;
        let streams = StandardStreams::Pipes { stdin: Some(first), stdout: first + 1, stderr: first + 2 };
        assert!(self.host.exec(process, streams));
        let exec = command.iter().map(ToString::to_string).collect();
        self.say(&ToAgent::Exec { process, app: 0, exec, streams });
    }

    /// Gives credit for output that was taken.
    pub fn taken(&mut self, channel: u32, len: usize) {
        if let Some(bytes) = self.host.consumed(channel, len) {
            self.say(&ToAgent::Credit { channel, bytes });
        }
    }

    /// Reads until the app has written `text` to `channel`.
    pub fn wait_for(&mut self, channel: u32, text: &str) {
        self.wait_for_both((channel, text), (channel, ""));
    }

    /// What comes on `channel`, up to and with `text`.
    pub fn read_until(&mut self, channel: u32, text: &str) -> String {
        let mut got = vec![];
        while !String::from_utf8_lossy(&got).ends_with(text) {
            match self.next() {
                Some(Event::Output { channel: from, bytes }) => {
                    self.taken(from, bytes.len());
                    assert_eq!(from, channel, "{}", String::from_utf8_lossy(&bytes));
                    got.extend(bytes);
                }
                other @ (None
                | Some(Event::Failed { .. } | Event::ProcessFailed { .. } | Event::Finished)) => {
                    panic!("only {:?} came, then {other:?}", String::from_utf8_lossy(&got));
                }
                Some(_) => (),
            }
        }
        String::from_utf8_lossy(&got).into_owned()
    }

    /// Reads until a process could not be started, and says why.
    pub fn wait_for_refusal(&mut self) -> String {
        loop {
            match self.next() {
                Some(Event::ProcessFailed { text, .. }) => return text,
                None | Some(Event::Failed { .. } | Event::Finished) => panic!("nothing was refused"),
                Some(_) => (),
            }
        }
    }

    /// Reads until the process has ended.
    pub fn wait_for_process(&mut self, wanted: u32) -> Outcome {
        loop {
            match self.next() {
                Some(Event::ProcessExited { process, outcome }) if process == wanted => return outcome,
                Some(Event::Output { channel, bytes }) => self.taken(channel, bytes.len()),
                None | Some(Event::Failed { .. } | Event::ProcessFailed { .. } | Event::Finished) => {
                    panic!("process {wanted} did not end");
                }
                Some(_) => (),
            }
        }
    }

    /// Reads until the app has ended.
    pub fn wait_for_exit(&mut self, wanted: u16) {
        loop {
            match self.next() {
                Some(Event::Exited { app, .. }) if app == wanted => return,
                None | Some(Event::Failed { .. } | Event::Finished) => panic!("app {wanted} did not end"),
                Some(_) => (),
            }
        }
    }

    /// Reads until both have come, in whatever order.
    pub fn wait_for_both(&mut self, one: (u32, &str), other: (u32, &str)) {
        let mut got: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
        let has = |got: &BTreeMap<u32, Vec<u8>>, (channel, text): (u32, &str)| {
            got.get(&channel).is_some_and(|bytes| String::from_utf8_lossy(bytes).contains(text))
        };
        while !has(&got, one) || !has(&got, other) {
            match self.next() {
                Some(Event::Output { channel, bytes }) => {
                    self.taken(channel, bytes.len());
                    got.entry(channel).or_default().extend(bytes);
                }
                None | Some(Event::Failed { .. } | Event::Finished) => panic!("only {got:?} came"),
                Some(_) => (),
            }
        }
    }

    /// Takes everything until the agent has finished.
    pub fn finish(mut self) -> Ran {
        let mut ran = Ran::default();
        while let Some(event) = self.next() {
            match event {
                Event::Output { channel, bytes } => {
                    self.taken(channel, bytes.len());
                    ran.output.entry(channel).or_default().extend(bytes);
                }
                Event::OutputEnded { channel } => ran.ended.push(channel),
                Event::Failed { app, fault, text } => ran.failed.push((app, fault, text)),
                Event::Exited { app, outcome } => {
                    ran.exited.insert(app, outcome);
                }
                Event::Finished => ran.finished = true,
                Event::ProcessExited { process, outcome } => {
                    ran.processes.insert(process, outcome);
                }
                Event::Restarting { outcome, .. } => ran.restarts.push(outcome),
                Event::Warning { text } => ran.warnings.push(text),
                Event::Started { .. }
                | Event::Sign { .. }
                | Event::Verify { .. }
                | Event::ProcessStarted { .. }
                | Event::ProcessFailed { .. }
                | Event::InputAllowed { .. } => (),
            }
        }
        ran.code = self.child.wait().unwrap().code();
        ran
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(cgroup) = &self.cgroup {
            let _ = fs::write(cgroup.join("cgroup.kill"), "1");
            let gone = || remove_tree(cgroup).is_ok();
            wait_until("the pod's cgroup is empty", gone);
        }
    }
}

fn remove_tree(cgroup: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(cgroup)?.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
        remove_tree(&entry.path())?;
    }
    fs::remove_dir(cgroup)
}

/// Waits for a condition that nothing announces.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(std::time::Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        std::thread::yield_now();
    }
}

/// What a pod came to.
#[derive(Debug, Default)]
pub struct Ran {
    output: BTreeMap<u32, Vec<u8>>,
    pub ended: Vec<u32>,
    pub failed: Vec<(Option<u16>, AgentFault, String)>,
    pub exited: BTreeMap<u16, Outcome>,
    pub finished: bool,
    pub code: Option<i32>,
    pub processes: BTreeMap<u32, Outcome>,
    /// The ends that were not the last.
    pub restarts: Vec<Outcome>,
    pub warnings: Vec<String>,
}

impl Ran {
    pub fn text(&self, channel: u32) -> String {
        String::from_utf8_lossy(self.bytes(channel)).into_owned()
    }

    pub fn bytes(&self, channel: u32) -> &[u8] {
        self.output.get(&channel).map_or(&[], Vec::as_slice)
    }
}

fn make_cgroup() -> PathBuf {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let top = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let path = fields.nth(1)?;
        (fields.next() == Some("cgroup2")).then(|| PathBuf::from(path))
    });
    let path = top.expect("a cgroup2 mount").join(format!("hull-agent-test-{}-{number}", std::process::id()));
    fs::create_dir(&path).unwrap();
    path
}

/// What stage1 does for nspawn.
const NSPAWN: &str = r#"
mount -t tmpfs tmpfs $ROOT
cd $ROOT
mkdir proc sys dev images images/0
cp $AGENT hull-agent
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t tmpfs tmpfs dev
mknod dev/null c 1 3
mount --bind -o ro $IMAGE images/0
if [ -n "$CGROUP" ]; then
    mount -t cgroup2 cgroup2 sys/fs/cgroup
    set -- --cgroup /sys/fs/cgroup
fi
exec chroot . /hull-agent --machine=nspawn "$@"
"#;

/// What stage1 does for fly.
const FLY: &str = r#"
mount -t tmpfs tmpfs $ROOT
mkdir $ROOT/images $ROOT/images/0
mount --bind -o ro $IMAGE $ROOT/images/0
exec $AGENT --machine=fly --base $ROOT --cgroup $CGROUP
"#;

//! A prepared pod, and the process that it becomes.

use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use hull_network::Networking;
use hull_pod::dir::{CONTRACT, MANIFEST, SUBCGROUP};
use hull_pod::manifest::{App, RuntimeApp, RuntimeImage};
use hull_pod::{Contract, Flavour, Manifest, PodDir, PodId, Pods, contract};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Longest time that anything here may take.
const PATIENCE: Duration = Duration::from_secs(20);

pub const FLAVOURS: [Flavour; 2] = [Flavour::Nspawn, Flavour::Fly];

/// A data directory with one pod in it.
pub struct Rig {
    pub data: tempfile::TempDir,
    pub id: PodId,
    pub path: PathBuf,
    pod: Option<PodDir<hull_pod::dir::Running>>,
}

/// An EROFS image with a busybox, made once.
fn image() -> &'static Path {
    static IMAGE: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = IMAGE.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let (tree, image) = (dir.path().join("tree"), dir.path().join("image.erofs"));
        fs::create_dir_all(tree.join("bin")).unwrap();
        fs::copy("/bin/busybox", tree.join("bin/busybox")).expect("busybox-static is installed");
        for applet in ["cat", "echo", "grep", "head", "ls", "readlink", "setsid", "sh", "sleep", "wc"] {
            symlink("busybox", tree.join("bin").join(applet)).unwrap();
        }
        let made = Command::new("mkfs.erofs").arg("--quiet").args([&image, &tree]).status();
        assert!(made.expect("erofs-utils is installed").success());
        (dir, image)
    });
    path
}

/// The agent of this build; cargo builds only a test's own package.
fn agent() -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        let built =
            Command::new(env!("CARGO")).args(["build", "--quiet", "--package", "hull-agent"]).status();
        assert!(built.unwrap().success());
    });
    Path::new(env!("CARGO_BIN_EXE_hull-nspawn")).with_file_name("hull-agent")
}

impl Rig {
    /// A pod of apps that run these shell scripts.
    pub fn new(flavour: Flavour, scripts: &[&str]) -> Self {
        let data = tempfile::tempdir().unwrap();
        let pods = Pods::open(data.path()).unwrap();
        let id = PodId::random().unwrap();
        let pod = PodDir::create(&pods, id.clone()).unwrap();
        let apps = scripts.iter().enumerate().map(|(index, script)| app(index, script));
        let contract = Contract {
            version: contract::VERSION,
            pod: id.clone(),
            flavour,
            hostname: "pod-name".into(),
            hosts: None,
            resolver: None,
            roots: scripts.iter().map(|_| image().to_owned()).collect(),
            agent: agent(),
            machine: None,
            interactive: false,
            detached: false,
            log_bytes: None,
            parents_ipc: false,
            metadata: None,
            lenient: false,
            network: if flavour == Flavour::Fly { Networking::Host } else { Networking::default() },
            waived: hull_pod::Waived::default(),
            debug: false,
        };
        pod.write_json(MANIFEST, &Manifest::new(apps.collect())).unwrap();
        pod.write_json(CONTRACT, &contract).unwrap();
        let pod = pod.commit().unwrap().start().unwrap();
        let path = pod.path();
        Self { data, id, path, pod: Some(pod) }
    }

    /// What stage0 executes.
    pub fn command(&self) -> Command {
        let number = self.pod.as_ref().expect("the pod was not released").hand_over().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_hull-nspawn"));
        command.arg(self.id.as_str()).env(contract::LOCK_FD, number.to_string()).current_dir(&self.path);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs the pod to its end.
    pub fn run(&mut self) -> Output {
        let output = self.command().output().unwrap();
        self.pod = None;
        output
    }

    /// Starts the pod and waits until it has written `word`.
    pub fn start(&mut self, word: &str) -> Started {
        let child = self.command().spawn().unwrap();
        let mut started = Started { child: Some(child), path: self.path.clone() };
        // Only the child holds the lock from now on.
        self.pod = None;
        let mut got = vec![];
        let output = started.child().stdout.as_mut().unwrap();
        while !String::from_utf8_lossy(&got).contains(word) {
            let mut chunk = [0; 256];
            match output.read(&mut chunk).unwrap() {
                0 => panic!("the pod ended before it said {word:?}: {}", String::from_utf8_lossy(&got)),
                len => got.extend(&chunk[..len]),
            }
        }
        started
    }

    /// The file of the pod directory.
    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path.join(name)).unwrap_or_default()
    }

    /// What is left of the pod on the host, but for its directory.
    pub fn traces(&self) -> Vec<String> {
        let data = self.data.path().to_str().unwrap();
        let mut found = vec![];
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        found.extend(mounts.lines().filter(|line| line.contains(data)).map(|line| format!("mount {line}")));
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let read = |name: &str| fs::read_to_string(entry.path().join(name)).unwrap_or_default();
            // The pod's processes are in its mount namespace, where the roots lie in the pod directory,
            // or they are of its cgroup.
            let command = read("cmdline").replace('\0', " ");
            let theirs = read("cgroup").contains(self.id.as_str()) || command.contains(self.id.as_str());
            if theirs && !read("stat").contains(") Z ") {
                found.push(format!("process {command}"));
            }
        }
        found
    }
}

/// A pod that runs. Killed when dropped, with whatever a failed test would leave.
pub struct Started {
    child: Option<Child>,
    path: PathBuf,
}

impl Started {
    pub fn child(&mut self) -> &mut Child {
        self.child.as_mut().expect("the pod was not waited for")
    }

    pub fn signal(&mut self, signal: Signal) {
        kill(Pid::from_raw(self.child().id().cast_signed()), signal).unwrap();
    }

    pub fn wait(mut self) -> Output {
        let child = self.child.take().expect("a pod is waited for once");
        child.wait_with_output().unwrap()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill(); // Ended already is as good.
            let _ = child.wait();
        }
        let cgroup = fs::read_to_string(self.path.join(SUBCGROUP)).unwrap_or_default();
        if !cgroup.is_empty() {
            let _ = hull_pod::cgroup::remove(cgroup.as_ref()); // The test has its own opinion of that.
        }
    }
}

fn app(index: usize, script: &str) -> RuntimeApp {
    RuntimeApp {
        name: format!("app{index}").parse().unwrap(),
        image: RuntimeImage { name: "busybox".into(), id: "sha256-0".into(), labels: vec![] },
        app: App {
            exec: ["/bin/sh", "-c", script].map(String::from).to_vec(),
            user: "0".into(),
            group: "0".into(),
            supplementary_gids: vec![],
            working_directory: "/".into(),
            event_handlers: vec![],
            environment: vec![],
            isolators: vec![],
            mount_points: vec![],
            ports: vec![],
            user_annotations: vec![],
            user_labels: vec![],
        },
        read_only_root_fs: false,
        mounts: vec![],
        annotations: vec![],
    }
}

/// Waits for a condition that nothing announces.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        std::thread::yield_now();
    }
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

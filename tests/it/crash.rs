//! Pulling the plug.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use hull_tests::hull::{finish, until};
use hull_tests::{Flavour, Hull, Image, traces};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub(crate) fn a_killed_pod_leaves_nothing_after_gc(flavour: Flavour) {
    let hull = Hull::new();
    let mut pod = hull.start(flavour, "(sleep 1000 &); nohup sleep 1000 & echo ready; exec sleep 1000");
    pod.await_output("ready\n");
    let id = hull.pods().remove(0);
    pod.signal(Signal::SIGKILL);
    assert_eq!(pod.wait().code, -9);
    assert_eq!(hull.status("state").as_deref(), Some("exited"));
    assert!(hull.collect().success().contains(&id));
    assert_eq!(hull.pods(), Vec::<String>::new());
    // The kernel buries the last processes on its own time.
    until("nothing of the pod is left", || traces::of(hull.dir(), &id) == BTreeSet::new());
}

/// Killed as soon as its directory is seen in `run/`: stage1 has hardly begun, and no two runs are hit at the
/// same step.
pub(crate) fn a_pod_killed_at_its_start_leaves_nothing_after_gc(flavour: Flavour) {
    let hull = Hull::new();
    hull.shell(flavour, "true").success();
    hull.collect().success();
    for _ in 0..5 {
        let pod = hull.start(flavour, "exec sleep 1000");
        let run = hull.dir().join("pods/run");
        let first = || std::fs::read_dir(&run).expect("a folder of the store").flatten().next();
        until("the pod is in run/", || first().is_some());
        let id =
            first().expect("it is there until it is collected").file_name().into_string().expect("a UUID");
        pod.signal(Signal::SIGKILL);
        assert_eq!(pod.wait().code, -9);
        hull.collect().success();
        assert_eq!(hull.pods(), Vec::<String>::new());
        until("nothing of the pod is left", || traces::of(hull.dir(), &id) == BTreeSet::new());
    }
}

pub(crate) fn a_prepared_pod_runs_once(flavour: Flavour) {
    let hull = Hull::new();
    let reference = Image::standard().reference();
    let script = "echo ready; exec sleep 1000";
    let prepared =
        hull.hull(&["prepare", flavour.option(), &reference, "--", "/bin/sh", "-c", script]).success();
    let id = prepared.trim().to_owned();
    assert_eq!(hull.status("state").as_deref(), Some("prepared"));
    let mut pod = hull.spawn(&["run-prepared", &id]);
    pod.await_output("ready\n");
    finish(hull.command(["run-prepared", &id])).failure(&[&id, "running"]);
    pod.signal(Signal::SIGTERM);
    assert_eq!(pod.wait().code, 128 + 15);
    finish(hull.command(["run-prepared", &id])).failure(&[&id, "exited"]);
}

/// System calls that change something for others: files, mounts, namespaces, processes, sockets.
const CHANGES: [&str; 30] = [
    "mkdir",
    "mkdirat",
    "rename",
    "renameat2",
    "unlink",
    "unlinkat",
    "link",
    "linkat",
    "symlinkat",
    "mknod",
    "mknodat",
    "flock",
    "execve",
    "unshare",
    "setns",
    "mount",
    "umount2",
    "pivot_root",
    "open_tree",
    "move_mount",
    "fsmount",
    "mount_setattr",
    "clone",
    "clone3",
    "fork",
    "vfork",
    "socketpair",
    "bind",
    "write",
    "sendmsg",
];

/// Most kills at one call. In a VM each costs the boot of a machine, and what is different there is done by then.
fn kills_max(flavour: Flavour) -> usize {
    if flavour == Flavour::Kvm { 2 } else { 40 }
}

/// Every process of the pod, stage0's and stage1's among them, is killed at its first, second, third … call of each
/// kind, until there is none that comes so far.
pub(crate) fn a_kill_at_any_change_leaves_nothing_after_gc(flavour: Flavour) {
    let hull = Hull::new();
    hull.shell(flavour, "true").success();
    hull.collect().success();
    let calls: Vec<_> = CHANGES.into_iter().filter(|call| is_known(call)).collect();
    let mut kills = 0;
    for call in calls {
        for count in 1..=kills_max(flavour) {
            if !run_with_kill(&hull, flavour, call, count) {
                break;
            }
            kills += 1;
            check_nothing_is_left(&hull, &format!("{call} {count}"));
        }
    }
    // Otherwise the tracer has not done what it was told.
    assert!(kills > if flavour == Flavour::Kvm { 10 } else { 30 }, "{kills} kills");
}

/// Not every machine has every call.
fn is_known(call: &str) -> bool {
    let mut strace = Command::new("strace");
    strace.args(["-qq", &format!("--trace={call}"), "-o", "/dev/null", "true"]);
    strace.output().expect("strace is installed: cargo xtask test does it").status.success()
}

/// Runs a pod; whether anything was killed.
fn run_with_kill(hull: &Hull, flavour: Flavour, call: &str, count: usize) -> bool {
    let log = tempfile::NamedTempFile::new().expect("a temporary file");
    let pod = hull.run_command(flavour, &Image::standard(), &["/bin/true"]);
    let mut strace = Command::new("strace");
    // Not with --seccomp-bpf: strace 6.1 miscounts then.
    strace.args(["-f", "-qq", &format!("--trace={call}")]);
    strace.arg(format!("--inject={call}:signal=KILL:when={count}")).arg("-o").arg(log.path());
    strace.arg(pod.get_program()).args(pod.get_args());
    for (name, value) in pod.get_envs() {
        match value {
            Some(value) => strace.env(name, value),
            None => strace.env_remove(name),
        };
    }
    finish(strace);
    fs::read_to_string(log.path()).expect("strace's log").contains("killed by SIGKILL")
}

fn check_nothing_is_left(hull: &Hull, after: &str) {
    hull.collect().success();
    let left: Vec<_> = directories(&hull.dir().join("pods")).collect();
    for pod in &left {
        // One that was killed before it could lock its new directory has left that, and nothing in it; gc takes it
        // once nobody can be about to.
        let is_embryo = pod.parent().is_some_and(|place| place.ends_with("embryo"));
        assert!(
            is_embryo && fs::read_dir(pod).is_ok_and(|mut of| of.next().is_none()),
            "after {after}: {left:?}"
        );
        fs::remove_dir(pod).expect("it is empty");
    }
    let traces = || traces::of(hull.dir(), "hull-test-no-pod");
    until(&format!("nothing is left after {after}"), || traces() == BTreeSet::new());
}

/// The directories of the pods.
fn directories(pods: &Path) -> impl Iterator<Item = std::path::PathBuf> {
    let places = fs::read_dir(pods).expect("the folder of the pods").flatten();
    places.flat_map(|place| fs::read_dir(place.path()).expect("a place")).flatten().map(|pod| pod.path())
}

/// Numbers that are different each time; a failure names the seed.
struct Dice(u64);

impl Dice {
    fn new() -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock");
        Self(u64::from(now.subsec_nanos()) << 16 | u64::from(std::process::id()))
    }

    /// Below `end` (Knuth's MMIX generator).
    fn roll(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("31 bits") % end
    }
}

/// Together two hundred: any process of a pod, at any time of its life.
pub(crate) fn random_kills_leave_nothing_after_gc(flavour: Flavour) {
    let rounds = match flavour {
        Flavour::Kvm => 12,
        Flavour::Nspawn => 108,
        Flavour::Fly => 80,
    };
    let hull = Hull::new();
    hull.shell(flavour, "true").success();
    hull.collect().success();
    let mut dice = Dice::new();
    for round in 0..rounds {
        let seed = dice.0;
        let pod = hull.start(
            flavour,
            "(sleep 1000 &) ; nohup sh -c 'sleep 1000' & for n in 1 2 3; do (true); done; exec sleep 1000",
        );
        let after =
            Duration::from_micros(dice.roll(if flavour == Flavour::Kvm { 2_000_000 } else { 60_000 }) as u64);
        let start = Instant::now();
        until("it is time", || start.elapsed() >= after);
        let all = family(pod.pid().as_raw());
        let victim = all[dice.roll(all.len())];
        let _ = kill(Pid::from_raw(victim), Signal::SIGKILL); // It may have ended just now.
        pod.signal(Signal::SIGTERM);
        pod.signal(Signal::SIGTERM);
        pod.wait();
        check_nothing_is_left(&hull, &format!("round {round}, seed {seed}"));
    }
}

/// A process and its descendants.
fn family(top: i32) -> Vec<i32> {
    let mut all = vec![top];
    let mut next = 0;
    while let Some(pid) = all.get(next) {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        all.extend(children.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
        next += 1;
    }
    all
}

pub(crate) fn many_may_clean_up_at_once(flavour: Flavour) {
    let hull = Hull::new();
    for _ in 0..3 {
        hull.shell(flavour, "true").success();
    }
    let mut running = hull.start(flavour, "echo ready; exec sleep 1000");
    running.await_output("ready\n");
    let pods = hull.pods();
    let collect = ["gc", "--grace-period=0s", "--expire-prepared=0s"];
    let mut all: Vec<_> = (0..3).map(|_| hull.spawn(&collect)).collect();
    all.extend(pods.iter().flat_map(|pod| [hull.spawn(&["rm", pod]), hull.spawn(&["stop", "--force", pod])]));
    for one in all {
        let ended = one.wait();
        let said = ended.stderr();
        // Who comes too late is told so, whatever another was just doing to the pod.
        let late = ["running", "being deleted", "taken by another", "held by another", "no pod"];
        assert!(ended.code == 0 || late.iter().any(|why| said.contains(why)), "{said}");
    }
    running.wait();
    hull.collect().success();
    assert_eq!(hull.pods(), Vec::<String>::new());
    check_nothing_is_left(&hull, "all of them");
}

/// After a reboot a pod's files name processes that are others, and nobody holds its lock.
pub(crate) fn a_pod_of_before_the_reboot_is_garbage(flavour: Flavour) {
    let hull = Hull::new();
    let mut pod = hull.start(flavour, "echo ready; exec sleep 1000");
    pod.await_output("ready\n");
    let id = hull.pods().remove(0);
    let dir = hull.dir().join("pods/run").join(&id);
    pod.signal(Signal::SIGKILL);
    pod.wait();
    fs::write(dir.join("pid"), std::process::id().to_string()).expect("a file of the pod");
    fs::write(dir.join("status.json.part"), "{").expect("a file of the pod");
    fs::write(dir.join("subcgroup"), "/sys/fs/cgroup/of/before").expect("a file of the pod");
    assert_eq!(hull.status("state").as_deref(), Some("exited"));
    hull.hull(&["stop", "--force", &id]).success();
    hull.hull(&["exec", &id, "true"]).failure(&["not running"]);
    assert!(hull.collect().success().contains(&id));
    check_nothing_is_left(&hull, "the reboot");
}

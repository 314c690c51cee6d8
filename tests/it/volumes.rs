//! Volumes: what a pod keeps, shares and gets of the host's, whatever its machine.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use hull_tests::hull::{Ended, finish};
use hull_tests::image::{Builder, Layer};
use hull_tests::{Flavour, Hull, Image};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A directory of the host's with `file` in it.
fn host_directory() -> TempDir {
    let dir = tempfile::Builder::new().prefix("hull-volume-").tempdir().expect("a temporary directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("our own directory");
    fs::write(dir.path().join("file"), "of the host\n").expect("our own directory");
    dir
}

fn of_host(name: &str, path: &Path, more: &str) -> String {
    format!("--volume={name},kind=host,source={}{more}", path.display())
}

/// Runs a script in the standard image, with options.
fn run(hull: &Hull, flavour: Flavour, options: &[&str], script: &str) -> Ended {
    run_image(hull, flavour, &Image::standard(), options, script)
}

fn run_image(hull: &Hull, flavour: Flavour, image: &Image, options: &[&str], script: &str) -> Ended {
    let mut command = hull.command(["run", flavour.option(), "--insecure-options=image"]);
    command.args(options).args([&image.reference(), "--exec=/bin/sh", "--", "-c", script]);
    finish(command)
}

/// Mounts `v` of the host's at `/data` and runs a script there.
fn with_data(flavour: Flavour, source: &Path, more: &str, script: &str) -> Ended {
    let volume = of_host("v", source, more);
    run(&Hull::new(), flavour, &[&volume, "--mount=volume=v,target=/data"], &format!("cd /data; {script}"))
}

pub(crate) fn a_directory_of_the_hosts_is_shared(flavour: Flavour) {
    let dir = host_directory();
    let script = "cat file; echo of the pod > new; mkdir -p a/b; chown 7:8 new; chmod 640 new; id -u";
    assert_eq!(with_data(flavour, dir.path(), "", script).success(), "of the host\n0\n");
    assert_eq!(fs::read_to_string(dir.path().join("new")).expect("the pod made it"), "of the pod\n");
    let new = fs::metadata(dir.path().join("new")).expect("the pod made it");
    assert_eq!((new.uid(), new.gid(), new.mode() & 0o777), (7, 8, 0o640));
    assert!(dir.path().join("a/b").is_dir());
}

pub(crate) fn a_read_only_volume_stays_so(flavour: Flavour) {
    let dir = host_directory();
    let script = "echo x > file; echo x > new; mkdir sub; rm file; chmod 777 file; \
                  mount -o remount,rw /data; mount -o remount,rw,bind /data; echo x > file; cat file";
    // Whoever may mount in a namespace may also undo what a mount says; the machine's other side is another matter.
    let caps = if flavour == Flavour::Kvm {
        "--caps-retain=CAP_SYS_ADMIN,CAP_DAC_OVERRIDE,CAP_MKNOD"
    } else {
        "--caps-retain=CAP_DAC_OVERRIDE"
    };
    let volume = of_host("v", dir.path(), ",readOnly=true");
    let options =
        [volume.as_str(), "--mount=volume=v,target=/data", caps, "--seccomp=mode=retain,@appc.io/all"];
    let ended = run(&Hull::new(), flavour, &options, &format!("cd /data; {script}"));
    assert_eq!(ended.stdout(), "of the host\n", "{}", ended.stderr());
    assert!(ended.stderr().contains("Read-only file system"), "{}", ended.stderr());
    assert_eq!(fs::read_dir(dir.path()).expect("our own directory").count(), 1);
    assert_eq!(fs::metadata(dir.path().join("file")).expect("still there").mode() & 0o777, 0o644);
}

pub(crate) fn a_file_is_a_volume_too(flavour: Flavour) {
    let dir = host_directory();
    let file = dir.path().join("file");
    let volume = of_host("v", &file, "");
    let options = [volume.as_str(), "--mount=volume=v,target=/etc/deep/file"];
    let script = "cat /etc/deep/file; echo changed > /etc/deep/file; ls /etc/deep";
    assert_eq!(run(&Hull::new(), flavour, &options, script).success(), "of the host\nfile\n");
    assert_eq!(fs::read_to_string(&file).expect("still there"), "changed\n");
    let options = [volume.as_str(), "--mount=volume=v,target=/etc"];
    run(&Hull::new(), flavour, &options, "true").failure(&["volume v", "/etc", "directory"]);
    let volume = of_host("v", dir.path(), "");
    let options = [volume.as_str(), "--mount=volume=v,target=/etc/passwd"];
    run(&Hull::new(), flavour, &options, "true").failure(&["volume v", "/etc/passwd", "no directory"]);
}

pub(crate) fn an_empty_volume_is_shared_by_the_apps_and_goes_with_the_pod(flavour: Flavour) {
    let hull = Hull::new();
    let script = "stat -c '%a %u %g' /a/shared; ls /a/shared; echo x > /a/shared/x; [ -d /a ] && echo made";
    let options = ["--volume=v,kind=empty,mode=1750,uid=7,gid=8", "--mount=volume=v,target=/a/shared"];
    for _ in 0..2 {
        assert_eq!(run(&hull, flavour, &options, script).success(), "1750 7 8\nmade\n");
    }
    let options = ["--volume=v,kind=empty", "--mount=volume=v,target=/shared"];
    assert_eq!(run(&hull, flavour, &options, "stat -c '%a %u %g' /shared").success(), "755 0 0\n");
    if flavour == Flavour::Fly {
        return; // Has room for one app.
    }
    let image = Image::standard().reference();
    let mut command = hull.command(["run", flavour.option()]);
    command.args(options).args([&image, "--name=writes", "--", "/bin/sh", "-c"]);
    command.args(["echo word > /shared/part; cd /shared; cat part > whole"]);
    command.args([
        "---",
        &image,
        "--name=reads",
        "--mount=volume=v,target=/elsewhere",
        "--",
        "/bin/sh",
        "-c",
    ]);
    command.args(["until [ -s /elsewhere/whole ]; do :; done; cat /elsewhere/whole /shared/whole"]);
    let ended = finish(command);
    assert_eq!(ended.stdout().matches("]: word\n").count(), 2, "{} {}", ended.stdout(), ended.stderr());
}

pub(crate) fn an_empty_volume_holds_no_more_than_its_size(flavour: Flavour) {
    let options = ["--volume=v,kind=empty,size=1Mi", "--mount=volume=v,target=/v"];
    let script = "dd if=/dev/zero of=/v/fill bs=64k count=64 2>&1 | grep -c 'No space'; stat -c %s /v/fill";
    assert_eq!(run(&Hull::new(), flavour, &options, script).success(), "1\n1048576\n");
}

pub(crate) fn a_root_holds_no_more_than_its_size(flavour: Flavour) {
    let hull = Hull::new();
    let script =
        "dd if=/dev/zero of=/home/fill bs=64k count=64 2>&1 | grep -c 'No space'; stat -c %s /home/fill";
    let size = run(&hull, flavour, &["--rootfs-size=2Mi"], script).success();
    let (full, size) = size.split_once('\n').expect("two lines");
    assert!(full == "1" && size.trim().parse::<u64>().is_ok_and(|size| size <= 2 << 20), "{full} {size}");
    run(&hull, flavour, &["--rootfs-size=lots"], "true").failure(&["--rootfs-size", "64Mi"]);
}

/// An image with a directory `/data` that its makers meant for a volume.
fn image_with_data(points: &Value) -> Builder {
    let layer = Layer::default()
        .directory("data", 0o1777)
        .directory("data/sub", 0o700)
        .file("data/sub/file", 0o640, b"of the image\n")
        .file("data/sub/more", 0o640, &[7; 20_000])
        .symlink("data/link", "sub/file");
    Builder::standard()
        .layer(layer)
        .app(json!({ "mountPoints": points }))
        .config(json!({ "Volumes": { "/data": {} } }))
}

pub(crate) fn a_mount_point_without_a_volume_gets_an_empty_one(flavour: Flavour) {
    let point = json!([{ "name": "data", "path": "/data" }]);
    let image = image_with_data(&point).aci();
    let hull = Hull::new();
    let ended = run_image(&hull, flavour, &image, &[], "ls /data; stat -c %a /data");
    if flavour == Flavour::Fly {
        ended.failure(&["data", "--stage1=fly", "--volume=data"]);
    } else {
        assert_eq!(ended.success(), "755\n");
    }
    let dir = host_directory();
    let volume = of_host("data", dir.path(), "");
    assert_eq!(run_image(&hull, flavour, &image, &[&volume], "ls /data").success(), "file\n");
    let point = json!([{ "name": "data", "path": "/data", "readOnly": true }]);
    let image = image_with_data(&point).aci();
    let ended = run_image(&hull, flavour, &image, &[&volume], "echo x > /data/file; cat /data/file");
    assert!(ended.stderr().contains("Read-only"), "{}", ended.stderr());
    assert_eq!(ended.stdout(), "of the host\n");
    let volume = of_host("data", dir.path(), ",readOnly=false");
    let ended = run_image(&hull, flavour, &image, &[&volume], "echo x > /data/file; cat /data/file");
    assert_eq!(ended.success(), "x\n");
}

pub(crate) fn volumes_of_docker_images_begin_with_the_images_files(flavour: Flavour) {
    let image = image_with_data(&json!([])).oci();
    let hull = Hull::new();
    let script = "cd /data; stat -c '%a %n' . sub sub/file; cat link; readlink link; echo x > sub/file";
    let want = "1777 .\n700 sub\n640 sub/file\nof the image\nsub/file\n";
    let named = "--volume=volume-data,kind=empty,size=2Mi";
    assert_eq!(run_image(&hull, flavour, &image, &[named], script).success(), want);
    if flavour != Flavour::Fly {
        assert_eq!(run_image(&hull, flavour, &image, &[], script).success(), want);
    }
    // What the user brings is the user's, and an ACI's is empty.
    let dir = host_directory();
    let volume = of_host("volume-data", dir.path(), "");
    assert_eq!(run_image(&hull, flavour, &image, &[&volume], "ls /data").success(), "file\n");
    let small = "--volume=volume-data,kind=empty,size=4Ki";
    run_image(&hull, flavour, &image, &[small], "true").failure(&["volume-data", "/data", "No space"]);
}

pub(crate) fn links_in_the_image_lead_within_the_root(flavour: Flavour) {
    let layer = Layer::default()
        .directory("real", 0o755)
        .symlink("inside", "/real")
        .symlink("climbs", "../../../../../../../../etc/hull-test-target")
        .symlink("proc-link", "/proc/1/root/etc")
        .symlink("kernel", "/proc/sys");
    let image = Builder::standard().layer(layer).oci();
    let dir = host_directory();
    let volume = of_host("v", dir.path(), "");
    let at = |target: &str, script: &str| {
        let mount = format!("--mount=volume=v,target={target}");
        run_image(&Hull::new(), flavour, &image, &[&volume, &mount], script)
    };
    assert_eq!(at("/inside", "ls /real").success(), "file\n");
    // Where a link leads nowhere, nothing is made at its end, and nothing of the host's is touched.
    at("/climbs", "true").failure(&["volume v", "/climbs", "link"]);
    assert!(!Path::new("/etc/hull-test-target").exists());
    at("/proc-link", "true").failure(&["volume v", "/proc-link", "link"]);
    for target in ["/proc", "/proc/sys", "/sys/fs", "/kernel", "/dev"] {
        at(target, "true").failure(&["volume v", target]);
    }
    for target in ["/", "relative", "/a/../b"] {
        at(target, "true").failure(&["mount at"]);
    }
}

pub(crate) fn a_source_is_followed_once_and_must_be_there(flavour: Flavour) {
    let dir = host_directory();
    let link = dir.path().join("link");
    fs::create_dir(dir.path().join("real")).expect("our own directory");
    fs::write(dir.path().join("real/word"), "found\n").expect("our own directory");
    symlink("real", &link).expect("our own directory");
    assert_eq!(with_data(flavour, &link, "", "cat word").success(), "found\n");
    with_data(flavour, Path::new("/nowhere/at/all"), "", "true").failure(&["volume v", "/nowhere/at/all"]);
    for (option, words) in [
        ("--volume=v,kind=host,source=relative", ["v", "absolute"]),
        ("--volume=v,kind=nfs,source=/x", ["nfs", "host or empty"]),
        ("--volume=v,kind=host", ["source", "missing"]),
        ("--volume=v,kind=host,source=/tmp,colour=red", ["colour", "recursive"]),
    ] {
        run(&Hull::new(), flavour, &[option, "--mount=volume=v,target=/data"], "true").failure(&words);
    }
    run(&Hull::new(), flavour, &["--mount=volume=w,target=/data"], "true").failure(&["\"w\"", "--volume=w"]);
    let twice = ["--volume=v,kind=empty", "--volume=v,kind=empty", "--mount=volume=v,target=/data"];
    run(&Hull::new(), flavour, &twice, "true").failure(&["volume v", "twice"]);
}

pub(crate) fn the_kernels_own_files_are_no_volumes(flavour: Flavour) {
    if flavour == Flavour::Fly {
        // Its pods manage the host.
        assert_eq!(with_data(flavour, Path::new("/proc"), "", "cat sys/kernel/ostype").success(), "Linux\n");
        return;
    }
    for source in ["/proc", "/proc/sys", "/sys", "/sys/kernel"] {
        let words = ["volume v", &format!("from {source}"), "could change the host"];
        with_data(flavour, Path::new(source), "", "true").failure(&words);
    }
    let dir = host_directory();
    let below = Mounted::new("proc", "proc", &dir.path().join("below"));
    with_data(flavour, dir.path(), "", "true").failure(&["volume v", "below", "proc", "recursive=false"]);
    assert_eq!(with_data(flavour, dir.path(), ",recursive=false", "ls below | wc -l").success(), "0\n");
    drop(below);
}

/// A mount of the host's, for as long as it is held.
struct Mounted(PathBuf);

impl Mounted {
    fn new(kind: &str, what: &str, at: &Path) -> Self {
        fs::create_dir_all(at).expect("our own directory");
        mount(&["-t", kind, what, &at.display().to_string()]);
        Self(at.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l"]).arg(&self.0).status(); // The test has said what went wrong.
    }
}

fn mount(args: &[&str]) {
    assert!(Command::new("mount").args(args).status().expect("mount(8)").success(), "mount {args:?}");
}

pub(crate) fn mounts_below_a_source_come_along_unless_told_otherwise(flavour: Flavour) {
    let dir = host_directory();
    let (below, closed) = (dir.path().join("below"), dir.path().join("closed"));
    let _mounts = [Mounted::new("tmpfs", "tmpfs", &below), Mounted::new("tmpfs", "tmpfs", &closed)];
    fs::write(below.join("deep"), "deep\n").expect("our own mount");
    let with = |more: &str, script: &str| with_data(flavour, dir.path(), more, script);
    assert_eq!(with(",recursive=true", "cat below/deep").success(), "deep\n");
    assert_eq!(with(",recursive=false", "ls below").success(), "");
    let default = if flavour == Flavour::Fly { "" } else { "deep\n" };
    assert_eq!(with("", "cat below/deep 2>/dev/null; true").success(), default);
    let ended = with(",recursive=true,readOnly=true", "echo x > below/deep; cat below/deep");
    assert_eq!(ended.stdout(), "deep\n");
    assert!(ended.stderr().contains("Read-only"), "{}", ended.stderr());
    let _ = closed;
}

pub(crate) fn what_the_host_mounts_later_is_seen(flavour: Flavour) {
    let dir = host_directory();
    let top = dir.path().join("top");
    let _top = Mounted::new("tmpfs", "tmpfs", &top);
    mount(&["--make-shared", &top.display().to_string()]);
    fs::create_dir(top.join("late")).expect("our own mount");
    let hull = Hull::new();
    let volume = of_host("v", &top, ",recursive=true");
    let image = Image::standard().reference();
    let script = "echo ready; until [ -e /data/late/word ]; do :; done; cat /data/late/word";
    let mount = "--mount=volume=v,target=/data";
    let mut pod =
        hull.spawn(&["run", flavour.option(), &volume, mount, &image, "--", "/bin/sh", "-c", script]);
    pod.await_output("ready\n");
    let late = top.join("late");
    let _late = Mounted::new("tmpfs", "tmpfs", &late);
    fs::write(late.join("word"), "word\n").expect("our own mount");
    assert_eq!(pod.wait().success(), "word\n");
}

pub(crate) fn a_volume_may_lie_in_another(flavour: Flavour) {
    let (outer, inner) = (host_directory(), host_directory());
    fs::write(inner.path().join("file"), "inner\n").expect("our own directory");
    let volumes = [of_host("outer", outer.path(), ""), of_host("inner", inner.path(), "")];
    let options = [
        "--mount=volume=inner,target=/data/sub/inner",
        volumes[0].as_str(),
        volumes[1].as_str(),
        "--mount=volume=outer,target=/data",
    ];
    let script = "cat /data/file /data/sub/inner/file";
    assert_eq!(run(&Hull::new(), flavour, &options, script).success(), "of the host\ninner\n");
    // It is mounted there; the host sees the directory that was needed for it.
    assert_eq!(fs::read_dir(outer.path().join("sub/inner")).expect("made for the mount").count(), 0);
    let read_only = of_host("outer", host_directory().path(), ",readOnly=true");
    let fresh = host_directory();
    let read_only = read_only.replace(
        read_only.split("source=").nth(1).expect("a source"),
        &format!("{},readOnly=true", fresh.path().display()),
    );
    let options = [options[0], read_only.as_str(), options[2], options[3]];
    run(&Hull::new(), flavour, &options, "true").failure(&["volume inner", "read-only"]);
}

pub(crate) fn of_mounts_on_one_path_the_apps_own_wins(flavour: Flavour) {
    if flavour == Flavour::Fly {
        return; // Has room for one app.
    }
    let hull = Hull::new();
    let (one, two) = (host_directory(), host_directory());
    fs::write(two.path().join("file"), "two\n").expect("our own directory");
    let image = Image::standard().reference();
    let mut command = hull.command(["run", flavour.option(), "--mount=volume=one,target=/data"]);
    command.args([of_host("one", one.path(), ""), image.clone()]);
    command.args(["--name=a", "--", "/bin/cat", "/data/file"]).args(["---", &image, "--name=b"]);
    command.args([of_host("two", two.path(), "").as_str(), "--mount=volume=two,target=/data"]);
    command.args(["--", "/bin/cat", "/data/file"]);
    let out = finish(command).success();
    let said = |app: &str, text: &str| {
        out.lines().any(|line| line.contains(&format!("] {app}[")) && line.ends_with(text))
    };
    assert!(said("a", "of the host") && said("b", "two"), "{out}");
}

pub(crate) fn a_manifest_may_describe_volumes(flavour: Flavour) {
    let hull = Hull::new();
    let dir = host_directory();
    let image = image_with_data(&json!([{ "name": "data", "path": "/data" }])).aci();
    let id = finish({
        let mut command = hull.command(["fetch", "--insecure-options=image", "--full"]);
        command.arg(image.reference());
        command
    });
    let id = id.success().trim().to_owned();
    let manifest = |volumes: Value, mounts: Value, script: &str| {
        let exec = ["/bin/sh", "-c", script];
        let point = json!([{ "name": "data", "path": "/data" }]);
        json!({
            "acVersion": "0.8.11", "acKind": "PodManifest", "volumes": volumes,
            "apps": [{
                "name": "a", "image": { "id": id }, "mounts": mounts,
                "app": { "exec": exec, "user": "0", "group": "0", "mountPoints": point },
            }],
        })
    };
    let run = |manifest: Value| {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        fs::write(file.path(), manifest.to_string()).expect("a temporary file");
        let option = format!("--pod-manifest={}", file.path().display());
        hull.hull(&["run", flavour.option(), &option])
    };
    let host = |read_only: bool| json!([{ "name": "data", "kind": "host", "source": dir.path(), "readOnly": read_only }]);
    assert_eq!(run(manifest(host(false), json!([]), "cat /data/file")).success(), "of the host\n");
    let ended = run(manifest(host(true), json!([]), "echo x > /data/file"));
    assert!(ended.stderr().contains("Read-only"), "{}", ended.stderr());
    let mounts = json!([{ "volume": "data", "path": "/other" }]);
    let empty = json!([{ "name": "data", "kind": "empty", "mode": "0711", "uid": 3, "gid": 4 }]);
    let script = "stat -c '%a %u %g' /other /data";
    assert_eq!(run(manifest(empty, mounts.clone(), script)).success(), "711 3 4\n711 3 4\n");
    let own = json!([{ "volume": "x", "path": "/data", "appVolume": { "name": "x", "kind": "host", "source": dir.path() } }]);
    assert_eq!(run(manifest(json!([]), own, "cat /data/file")).success(), "of the host\n");
    run(manifest(json!([]), mounts, "true")).failure(&["\"data\"", "/other"]);
}

/// The standard image, and a program that tries what files can do.
fn image_with_probe() -> Image {
    let probe = fs::read(env!("CARGO_BIN_EXE_file-probe")).expect("cargo has built it");
    Builder::standard().layer(Layer::default().file("bin/file-probe", 0o755, &probe)).oci()
}

pub(crate) fn files_of_a_volume_are_like_any_others(flavour: Flavour) {
    let dir = host_directory();
    let volume = of_host("v", dir.path(), "");
    let options = [volume.as_str(), "--mount=volume=v,target=/data"];
    // On an emulated host that is busy each costs a tenth of a second.
    let count = if flavour == Flavour::Kvm { 100 } else { 10_000 };
    let script = format!("cd /data; exec file-probe {count}");
    let ended = run_image(&Hull::new(), flavour, &image_with_probe(), &options, &script);
    assert_eq!(ended.success(), "done\n");
    // What was done there was done to the host's files.
    let owned = fs::metadata(dir.path().join("owned")).expect("the probe made it");
    assert_eq!((owned.uid(), owned.gid(), owned.mode() & 0o7777), (1234, 4321, 0o4751));
    let sparse = fs::metadata(dir.path().join("sparse")).expect("the probe made it");
    assert!(sparse.len() == 64 << 20 && sparse.blocks() < 1024, "{} blocks", sparse.blocks());
}

pub(crate) fn nothing_of_a_volume_is_left_when_the_pod_is_killed(flavour: Flavour) {
    let hull = Hull::new();
    let dir = host_directory();
    let mounts = || fs::read_to_string("/proc/self/mountinfo").expect("procfs").lines().count();
    let before = mounts();
    let volume = of_host("v", dir.path(), "");
    let image = Image::standard().reference();
    let mut pod = hull.spawn(&[
        "run",
        flavour.option(),
        &volume,
        "--volume=e,kind=empty",
        "--mount=volume=v,target=/data",
        "--mount=volume=e,target=/empty",
        &image,
        "--",
        "/bin/sh",
        "-c",
        "echo ready; exec sleep 1000",
    ]);
    pod.await_output("ready\n");
    pod.signal(nix::sys::signal::Signal::SIGKILL);
    drop(pod);
    hull.collect().success();
    assert_eq!(mounts(), before);
    assert!(hull.pods().is_empty());
    chown(dir.path(), Some(0), Some(0)).expect("the directory is as free as before");
    assert_eq!(fs::read_to_string(dir.path().join("file")).expect("still there"), "of the host\n");
}

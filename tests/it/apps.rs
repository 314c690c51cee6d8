//! Several apps in one pod, and what is said to each of them.

use hull_tests::hull::{Ended, finish, until};
use hull_tests::image::{Builder, Image};
use hull_tests::{Flavour, Hull};
use serde_json::{Value, json};

/// Runs a pod of the standard image, once for each list of words behind it.
fn run(hull: &Hull, flavour: Flavour, options: &[&str], apps: &[&[&str]]) -> Ended {
    let image = Image::standard().reference();
    let mut command = hull.command(["run", flavour.option()]);
    command.args(options);
    for (index, words) in apps.iter().enumerate() {
        command.args((index > 0).then_some("---")).arg(&image).args(*words);
    }
    finish(command)
}

/// The app whose words are `-- sh -c SCRIPT`, with a name.
fn named<'a>(name: &'a str, script: &'a str) -> [&'a str; 5] {
    [name, "--", "/bin/sh", "-c", script]
}

/// What an app said, without the labels of its lines.
fn said(output: &str, app: &str) -> Vec<String> {
    let label = |line: &str| {
        let (label, text) = line.split_once("]: ")?;
        let (time, whose) = label.strip_prefix('[')?.split_once("] ")?;
        let (name, pid) = whose.split_once('[')?;
        let known = time.trim_start().parse::<f64>().is_ok() && pid.parse::<u32>().is_ok_and(|pid| pid > 0);
        Some((name.to_owned(), text.to_owned())).filter(|_| known)
    };
    let lines = output.lines().map(|line| label(line).unwrap_or_else(|| panic!("no label: {line}")));
    lines.filter(|(name, _)| name == app).map(|(_, text)| text).collect()
}

/// A chroot has no room for a second app.
pub(crate) fn refuses_several(flavour: Flavour) -> bool {
    if flavour == Flavour::Fly {
        let both = [&named("--name=a", "true")[..], &named("--name=b", "true")];
        run(&Hull::new(), flavour, &[], &both).failure(&["--stage1=fly", "exactly one app"]);
    }
    flavour == Flavour::Fly
}

pub(crate) fn several_apps_share_a_machine_and_not_their_roots(flavour: Flavour) {
    if refuses_several(flavour) {
        return;
    }
    let hull = Hull::new();
    let script = "for ns in net ipc uts; do readlink /proc/self/ns/$ns; done; hostname; \
                  ls /tmp; echo mine > /tmp/$AC_APP_NAME; cat /tmp/*; echo oops >&2";
    let ended = run(
        &hull,
        flavour,
        &["--hostname=shared"],
        &[&named("--name=a", script), &named("--name=b", script)],
    );
    let (err, out) = (ended.stderr(), ended.success());
    let (a, b) = (said(&out, "a"), said(&out, "b"));
    assert_eq!(a, b);
    assert_eq!(a[3..], ["shared", "mine"]);
    assert_eq!((said(&err, "a"), said(&err, "b")), (vec!["oops".to_owned()], vec!["oops".to_owned()]));
}

pub(crate) fn an_app_that_fails_ends_its_pod(flavour: Flavour) {
    if refuses_several(flavour) {
        return;
    }
    let hull = Hull::new();
    let apps = [&named("--name=waits", "sleep 1000")[..], &named("--name=fails", "exit 3")];
    assert_eq!(
        run(&hull, flavour, &[], &apps).code,
        3,
        "the first that failed, not the first in the manifest"
    );
    assert_eq!((hull.status("app-waits"), hull.status("app-fails")), (Some("143".into()), Some("3".into())));
    let hull = Hull::new();
    let apps = [&named("--name=ends", "true")[..], &named("--name=goes-on", "sleep 0.2; echo end")];
    assert_eq!(said(&run(&hull, flavour, &[], &apps).success(), "goes-on"), ["end"]);
}

pub(crate) fn options_belong_to_the_image_before_them(flavour: Flavour) {
    if refuses_several(flavour) {
        return;
    }
    let hull = Hull::new();
    let script = "id -u; echo $WHO $ALL; grep CapBnd /proc/self/status; touch /x && echo wrote; true";
    let first =
        [&["--user=app", "--environment=WHO=first", "--environment=ALL=no"], &named("--name=a", script)[..]];
    let second = [&["--readonly-rootfs", "--caps-retain=CAP_KILL"], &named("--name=b", script)[..]];
    let ended = run(&hull, flavour, &["--set-env=ALL=yes"], &[&first.concat(), &second.concat()]);
    let out = ended.stdout();
    assert_eq!(said(&out, "a")[..2], ["1000", "first yes"]);
    assert_eq!(said(&out, "b"), ["0", "yes", "CapBnd:\t0000000000000020"]);
    assert!(said(&ended.stderr(), "b")[0].contains("Read-only"), "{}", ended.stderr());
}

pub(crate) fn one_of_several_apps_is_named(flavour: Flavour) {
    if refuses_several(flavour) {
        return;
    }
    let hull = Hull::new();
    let script = "echo up; trap 'exit 0' TERM; while :; do sleep 0.01; done";
    let image = Image::standard().reference();
    let mut command = hull.command(["run", "--detach", flavour.option()]);
    for name in ["--name=a", "--name=b"] {
        command.arg(&image).args(named(name, script)).arg("---");
    }
    let id = finish(command).success().trim().to_owned();
    hull.hull(&["exec", &id, "true"]).failure(&["--app", "a", "b"]);
    assert_eq!(hull.hull(&["exec", "--app=b", &id, "/bin/sh", "-c", "echo $AC_APP_NAME"]).success(), "b\n");
    hull.hull(&["logs", &id]).failure(&["--app"]);
    let apps: Value = serde_json::from_str(&hull.hull(&["list", "--format=json"]).success()).expect("JSON");
    assert_eq!(apps[0]["app_names"], json!(["a", "b"]));
    let list = hull.hull(&["list", "--no-legend"]).success();
    assert_eq!(list.lines().count(), 2, "{list}");
    hull.hull(&["stop", "--wait", &id]).success();
    assert_eq!(hull.hull(&["logs", "--app=b", &id]).success(), "up\n");
    hull.hull(&["run-prepared", "--interactive", &id]).failure(&["not prepared"]);
}

pub(crate) fn the_command_line_limits_an_app(flavour: Flavour) {
    let hull = Hull::new();
    let flags = [
        "--caps-remove=CAP_CHOWN",
        "--oom-score-adj=321",
        "--seccomp=mode=remove,errno=ENOSPC,mkdir,mkdirat",
    ];
    let script = "cat /proc/self/oom_score_adj; chown 7 /tmp; mkdir /tmp/x";
    let words = [&flags[..], &["--", "/bin/sh", "-c", script]].concat();
    let ended = run(&hull, flavour, &[], &[&words]);
    assert_eq!(ended.stdout(), "321\n");
    assert!(ended.stderr().contains("not permitted"), "{}", ended.stderr());
    assert!(ended.stderr().contains("No space left"), "{}", ended.stderr());
    run(&hull, flavour, &[], &[&["--memory=much", "--exec=/bin/true"]]).failure(&["resource/memory", "much"]);
    run(&hull, flavour, &[], &[&["--seccomp=read", "--exec=/bin/true"]]).failure(&["mode=retain"]);
    // What the user says takes the place of what the image says, whichever way each says it.
    let isolator = json!([{ "name": "os/linux/capabilities-remove-set", "value": { "set": ["CAP_KILL"] } }]);
    let image = Builder::standard().app(json!({ "isolators": isolator })).aci();
    let mut command = hull.command(["run", flavour.option(), "--insecure-options=image", &image.reference()]);
    command.args(["--caps-retain=CAP_KILL", "--exec=/bin/grep", "--", "CapBnd", "/proc/self/status"]);
    assert_eq!(finish(command).success(), "CapBnd:\t0000000000000020\n");
}

pub(crate) fn names_are_resolved_as_the_user_says(flavour: Flavour) {
    let hull = Hull::new();
    let cat: [&str; 5] = named("--name=a", "cat /etc/resolv.conf; tail -n1 /etc/hosts");
    let options = ["--dns=192.0.2.1,2001:db8::1", "--dns-search=example.com", "--hosts-entry=192.0.2.7=db"];
    let want = "nameserver 192.0.2.1\nnameserver 2001:db8::1\nsearch example.com\n192.0.2.7\tdb\n";
    assert_eq!(run(&hull, flavour, &options, &[&cat]).success(), want);
    let host = std::fs::read_to_string("/etc/hosts").expect("this machine has one");
    let cat = named("--name=a", "cat /etc/hosts");
    assert_eq!(run(&hull, flavour, &["--hosts-entry=host"], &[&cat]).success(), host);
    run(&hull, flavour, &["--dns=host,192.0.2.1"], &[&cat]).failure(&["--dns=host"]);
    run(&hull, flavour, &["--dns=resolver"], &[&cat]).failure(&["--dns", "IP address"]);
}

pub(crate) fn a_pod_is_made_of_a_manifest(flavour: Flavour) {
    let hull = Hull::new();
    let image = Image::standard().reference();
    let words =
        ["--name=a", "--annotation=example.com/x=y", "--user-label=l=m", "--user=app", "--", "/bin/id", "-u"];
    let mut command = hull.command(["prepare", flavour.option(), &image]);
    command.args(words);
    let id = finish(command).success().trim().to_owned();
    let manifest = hull.hull(&["cat-manifest", &id]).success();
    hull.hull(&["rm", &id]).success();
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let path = file.path().display().to_string();
    let option = format!("--pod-manifest={path}");
    std::fs::write(file.path(), &manifest).expect("a temporary file");
    assert_eq!(hull.hull(&["run", flavour.option(), &option]).success(), "1000\n");
    let described: Value = serde_json::from_str(&manifest).expect("JSON");
    assert_eq!(described["apps"][0]["annotations"][0], json!({ "name": "example.com/x", "value": "y" }));
    assert_eq!(described["apps"][0]["app"]["userLabels"][0], json!({ "name": "l", "value": "m" }));
    // What a pod would not get it is not promised.
    let wrong = |change: fn(&mut Value), words: &[&str]| {
        let mut manifest = described.clone();
        change(&mut manifest);
        std::fs::write(file.path(), manifest.to_string()).expect("a temporary file");
        hull.hull(&["run", flavour.option(), &option]).failure(words);
    };
    wrong(|pod| pod["volumes"] = json!([{ "name": "v", "kind": "nfs" }]), &[&path]);
    wrong(|pod| pod["apps"][0]["image"]["id"] = json!("sha512-0000"), &["sha512-0000"]);
    wrong(|pod| pod["apps"] = json!([]), &["1 to 26 apps"]);
    wrong(|pod| *pod = json!([]), &[&path]);
}

pub(crate) fn an_image_may_clean_up_after_its_app(flavour: Flavour) {
    let hull = Hull::new();
    let run = |handler: &str, app: &str| {
        let handlers = json!([{ "name": "post-stop", "exec": ["/bin/sh", "-c", handler] }]);
        let image = Builder::standard().app(json!({ "eventHandlers": handlers })).aci();
        let mut command =
            hull.command(["run", flavour.option(), "--insecure-options=image", &image.reference()]);
        command.args(["--user=app", "--exec=/bin/sh", "--", "-c", app]);
        finish(command)
    };
    let ended = run("id -u; cat /home/left", "echo left > /tmp/left; exit 3");
    assert_eq!(ended.code, 3, "{}", ended.stderr());
    assert!(ended.stdout().starts_with("0\n"), "{}", ended.stdout());
    assert!(
        ended.stderr().contains("post-stop command \"/bin/sh\": it ended with code 1"),
        "{}",
        ended.stderr()
    );
    assert_eq!(hull.status("app-busybox").as_deref(), Some("3"));
    assert!(hull.status("warning").is_some_and(|text| text.contains("post-stop")));
    hull.collect().success();
    let ended = run("cat /tmp/left", "echo left > /tmp/left; kill -9 $$");
    assert_eq!((ended.code, ended.stdout().as_str()), (128 + 9, "left\n"), "{}", ended.stderr());
}

pub(crate) fn an_app_is_started_again_as_the_user_says(flavour: Flavour) {
    let hull = Hull::new();
    let image = Image::standard().reference();
    let run = |restart: &str, script: &str| {
        hull.hull(&["run", flavour.option(), restart, &image, "--", "/bin/sh", "-c", script])
    };
    let script = "echo x >> /tmp/starts; echo $(wc -l < /tmp/starts); [ $(wc -l < /tmp/starts) = 3 ]";
    assert_eq!(run("--restart=on-failure", script).success(), "1\n2\n3\n");
    assert_eq!(hull.status("restarts-busybox").as_deref(), Some("2"));
    hull.collect().success();
    let ended = run("--restart=on-failure:1", script);
    assert_eq!((ended.code, ended.stdout().as_str()), (1, "1\n2\n"));
    hull.collect().success();
    assert_eq!(run("--restart=never", script).stdout(), "1\n");
    hull.collect().success();
    run("--restart=sometimes", script).failure(&["--restart", "on-failure"]);
    let id =
        hull.hull(&["run", "--detach", flavour.option(), "--restart=always", &image, "--exec=/bin/true"]);
    let id = id.success().trim().to_owned();
    let restarts = || hull.status("restarts-busybox").and_then(|count| count.parse::<u32>().ok());
    until("it was started again and again", || restarts().is_some_and(|count| count > 1));
    hull.hull(&["stop", "--wait", &id]).success();
    assert_eq!(hull.status("app-busybox").as_deref(), Some("0"));
}

pub(crate) fn an_image_may_prepare_its_root(flavour: Flavour) {
    let hull = Hull::new();
    let run = |handler: Value| {
        let image = Builder::standard().app(json!({ "eventHandlers": [handler] })).aci();
        let mut command =
            hull.command(["run", flavour.option(), "--insecure-options=image", &image.reference()]);
        command.args(["--user=app", "--exec=/bin/cat", "--", "/home/by"]);
        finish(command)
    };
    let script = "id -u > /home/by";
    assert_eq!(run(json!({ "name": "pre-start", "exec": ["/bin/sh", "-c", script] })).success(), "0\n");
    run(json!({ "name": "pre-start", "exec": ["/bin/false"] })).failure(&[
        "pre-start",
        "/bin/false",
        "code 1",
    ]);
}

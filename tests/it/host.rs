//! What needs no machine: usage, hosts without KVM, disks without space.

use std::process::Command;

use hull_tests::hull::{binaries, finish};
use hull_tests::{Hull, Image};

#[test]
fn wrong_words_are_usage_errors() {
    let hull = Hull::new();
    assert_eq!(hull.hull(&[]).code, 2);
    hull.hull(&["frobnicate"]).failure(&["frobnicate"]);
    hull.hull(&["run", "--frobnicate", "x"]).failure(&["--frobnicate"]);
    hull.hull(&["run", "--stage1=jail", "x"]).failure(&["jail", "nspawn"]);
    hull.hull(&["run"]).failure(&["IMAGE"]);
    hull.hull(&["run", "--stage1=fly", "--vm-memory=64", &Image::standard().reference(), "--", "/bin/true"])
        .failure(&["--vm-memory"]);
    hull.hull(&["status", "nothing"]).failure(&["nothing"]);
    hull.hull(&["rm", "nothing"]).failure(&["nothing"]);
    assert_eq!(hull.pods(), Vec::<String>::new());
}

#[test]
fn the_version_is_told() {
    assert!(Hull::new().hull(&["version"]).success().starts_with("hull Version: "));
}

/// What bash offers for the last of `words`, but for options.
fn offered(hull: &Hull, words: &[&str]) -> Vec<String> {
    let script = "source <(hull completion bash); COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); COMP_TYPE=9; \
                  $(complete -p hull | grep -o '_[a-z_]*hull' | head -1); printf '%s\\n' \"${COMPREPLY[@]}\"";
    let mut bash = hull.command([""; 0]);
    let path = format!("{}:{}", binaries().display(), std::env::var("PATH").unwrap_or_default());
    let envs: Vec<_> =
        bash.get_envs().map(|(name, value)| (name.to_owned(), value.map(ToOwned::to_owned))).collect();
    bash = Command::new("bash");
    for (name, value) in envs {
        match value {
            Some(value) => bash.env(name, value),
            None => bash.env_remove(name),
        };
    }
    bash.env("PATH", path).args(["-c", script, "bash"]).args(words);
    let offered = finish(bash).success();
    let words = offered.lines().filter(|line| !line.starts_with('-'));
    words.map(|line| line.trim_end().to_owned()).collect()
}

#[test]
fn the_shell_completes_what_is_on_this_host() {
    let hull = Hull::new();
    assert!(offered(&hull, &["hull", "cat-"]).contains(&"cat-manifest".into()));
    assert!(offered(&hull, &["hull", "run", "--stage1", ""]).contains(&"nspawn".into()));
    let image = Image::standard().reference();
    let id = hull
        .hull(&["prepare", "--stage1=fly", "--insecure-options=image", &image, "--", "/bin/true"])
        .success();
    let id = id.trim().to_owned();
    assert_eq!(offered(&hull, &["hull", "run-prepared", ""]), [id.as_str()]);
    assert_eq!(offered(&hull, &["hull", "rm", &id[..4]]), [id.as_str()]);
    assert!(!offered(&hull, &["hull", "stop", ""]).contains(&id), "it does not run");
    let images = hull.hull(&["image", "list", "--no-legend", "--fields=name"]).success();
    assert_eq!(offered(&hull, &["hull", "image", "rm", ""]), [images.trim()]);
    for shell in ["zsh", "fish"] {
        assert!(hull.hull(&["completion", shell]).success().contains("hull"), "{shell}");
    }
}

#[test]
fn a_prepared_pod_shows_what_it_is_made_of() {
    let hull = Hull::new();
    let image = Image::standard().reference();
    let id = hull
        .hull(&["prepare", "--stage1=fly", "--insecure-options=image", &image, "--", "/bin/true", "x"])
        .success();
    let id = id.trim();
    let indented = hull.hull(&["cat-manifest", id]).success();
    let manifest: serde_json::Value = serde_json::from_str(&indented).unwrap();
    assert_eq!(manifest["acKind"], "PodManifest");
    assert_eq!(manifest["apps"][0]["app"]["exec"], serde_json::json!(["/bin/true", "x"]));
    assert!(indented.contains("\n  "), "{indented}");
    let plain = hull.hull(&["cat-manifest", "--pretty-print=false", &id[..8]]).success();
    assert_eq!(
        plain.as_bytes(),
        std::fs::read(hull.dir().join("pods/prepared").join(id).join("pod")).unwrap()
    );
    hull.hull(&["cat-manifest", "nothing"]).failure(&["nothing"]);
}

#[test]
fn every_command_has_a_page() {
    let hull = Hull::new();
    let pages = hull.dir().join("man");
    hull.hull(&["generate-man", &pages.display().to_string()]).success();
    for (page, words) in [("hull", "machine of its own"), ("hull-run", "detach"), ("hull-image-gc", "")] {
        let text = std::fs::read_to_string(pages.join(page).with_extension("1")).expect(page);
        assert!(text.contains(".TH") && text.contains(words), "{page}: {text}");
    }
}

#[test]
fn doctor_names_a_way_out_of_every_failure() {
    let ended = Hull::new().hull(&["doctor", "--format=json"]);
    let report: serde_json::Value = serde_json::from_slice(&ended.stdout).expect("doctor prints JSON");
    let checks = report["checks"].as_array().unwrap();
    assert!(checks.len() > 10, "{report}");
    for check in checks.iter().filter(|check| check["verdict"] != "ok") {
        assert!(check["way_out"].as_str().is_some_and(|text| !text.is_empty()), "{check}");
    }
    // Root's, whatever KVM there is.
    let jail = checks.iter().find(|check| check["name"] == "jail of VMs").expect("a check of that name");
    assert_eq!(jail["verdict"], "ok", "{jail}");
    let kvm = report["usable"].as_array().unwrap().contains(&"kvm".into());
    assert_eq!(ended.code, if kvm { 0 } else { 254 });
}

/// `hull run` without `--stage1`, started by a shell that first changes its own mount namespace.
fn run_after(setup: &str) -> hull_tests::Ended {
    let hull = Hull::new();
    let reference = Image::standard().reference();
    let script = format!("{setup} && exec \"$0\" \"$@\"");
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script]).arg(binaries().join("hull")).args([
        "--dir",
        &hull.dir().display().to_string(),
        "run",
        &reference,
        "--",
        "/bin/true",
    ]);
    let ended = finish(command);
    assert_eq!(hull.pods(), Vec::<String>::new());
    ended
}

#[test]
fn a_host_without_kvm_says_so_and_names_the_flag_that_works() {
    let ended = run_after("mount -t tmpfs none /dev && : > /dev/null");
    ended.failure(&["no /dev/kvm", "--stage1=nspawn"]);
}

#[test]
fn a_kvm_that_may_not_be_opened_is_told_from_one_that_is_not_there() {
    let node = "mount -t tmpfs none /mnt && mknod /mnt/kvm c 10 232 && chmod 600 /mnt/kvm && mount --bind /mnt/kvm /dev/kvm";
    // The binaries, the image and the data directory must stay in reach of a user without rights.
    let ended = run_after(&format!(
        "touch /dev/kvm; {node} && set -- setpriv --bounding-set=-all --inh-caps=-all --reuid=65534 --regid=65534 --clear-groups \"$0\" \"$@\" && exec \"$@\""
    ));
    ended.failure(&["/dev/kvm may not be opened", "kvm", "--stage1=nspawn"]);
}

#[test]
fn a_kvm_that_cannot_run_linux_is_named() {
    let module = "mount -t tmpfs none /sys/module && mkdir /sys/module/kvm_pvm && touch /dev/kvm";
    run_after(module).failure(&["kvm_pvm", "cannot run a stock Linux", "--stage1=nspawn"]);
}

/// What stays of an import that failed are blobs that were found right, for the next try; no half image, no
/// pod.
#[test]
fn a_full_disk_leaves_nothing_half_done() {
    let small = tempfile::tempdir().unwrap();
    let reference = Image::standard().reference();
    let script = format!(
        "mount -t tmpfs -o size=600k none {0} && {1} --dir={0} prepare --stage1=fly {2} -- /bin/true; code=$?; \
         find {0} -type f -not -path '{0}/images/blobs/*' -not -path '{0}/images/lock'; {1} --dir={0} list --no-legend; exit $code",
        small.path().display(),
        binaries().join("hull").display(),
        reference
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script]);
    let ended = finish(command);
    assert_eq!(ended.stdout(), "");
    ended.failure(&["No space left on device"]);
}

#[test]
fn stage1_is_started_by_hull_only() {
    for stage1 in ["hull-kvm", "hull-nspawn"] {
        let mut command = Command::new(binaries().join(stage1));
        command.env_remove("HULL_LOCK_FD").arg("0af9c2d4-7e1b-4c3d-9a5e-0123456789ab");
        finish(command).failure(&["HULL_LOCK_FD", "hull run"]);
    }
}

#[test]
fn settings_are_printed_as_they_are_merged() {
    let hull = Hull::new();
    let folder = hull.settings().join("auth.d");
    std::fs::create_dir_all(&folder).expect("a folder");
    let auth = r#"{"rktKind": "auth", "rktVersion": "v1", "domains": ["example.com"], "type": "basic",
                   "credentials": {"user": "u", "password": "p"}}"#;
    std::fs::write(folder.join("a.json"), auth).expect("a file");
    let said = hull.hull(&["config"]).success();
    let settings: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(settings["stage0"][0]["domains"], serde_json::json!(["example.com"]));
    assert_eq!(settings["stage0"][0]["credentials"]["password"], "p");
    assert_eq!(hull.hull(&["config", "--pretty-print=false"]).success().lines().count(), 1);
    std::fs::write(folder.join("b.json"), "{").expect("a file");
    hull.hull(&["config"]).failure(&["b.json"]);
}

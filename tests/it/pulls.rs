//! Pulls from a registry that is not alone: mirrors, proxies, several platforms, others that pull.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use hull_tests::gate::Gate;
use hull_tests::hull::{Ended, finish, until};
use hull_tests::image::{Builder, Layer};
use hull_tests::registry::{self, Registry};
use hull_tests::terminal::Terminal;
use hull_tests::{Hull, Image};
use nix::sys::signal::Signal;
use serde_json::json;

fn hull(registry: &Registry, hull: &Hull, args: &[&str]) -> Ended {
    finish(registry.command(hull, args))
}

/// Bytes that cannot be compressed.
fn noise(seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761).max(1);
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()
    };
    (0..150_000).flat_map(next).collect()
}

/// An image of three layers more, of 600 kB each.
fn large() -> Image {
    let layer = |seed| Layer::default().file(&format!("etc/noise-{seed}"), 0o644, &noise(seed));
    Builder::standard().layer(layer(1)).layer(layer(2)).layer(layer(3)).oci()
}

/// Settings in which `registry` has a mirror.
fn mirrored(data: &Hull, registry: &Registry, mirror: &Registry, what: &str) {
    let text = format!(
        "[[registry]]\nlocation = \"{}\"\ninsecure = true\n[[registry.mirror]]\nlocation = \"{}\"\n\
         insecure = true\npull-from-mirror = \"{what}\"\n",
        registry.host(),
        mirror.host()
    );
    fs::write(data.settings().join("registries.conf"), text).expect("a new file");
    registry::allow(data.settings(), registry.host());
}

#[test]
fn a_mirror_is_asked_first_and_the_registry_where_it_has_nothing() {
    let (registry, mirror) = (Registry::plain(), Registry::plain());
    let digest = mirror.push(&Image::standard(), "app:1");
    registry.push(&large(), "app:2");
    let name = |rest: &str| format!("docker://{}/app{rest}", registry.host());
    let data = Hull::new();
    mirrored(&data, &registry, &mirror, "all");
    // The registry itself has no such tag.
    let id = hull(&registry, &data, &["fetch", "--full", &name(":1")]).success();
    assert_eq!(id.trim(), digest.replace(':', "-"));
    let ended = hull(&registry, &data, &["fetch", &name(":2")]);
    assert!(ended.stderr().contains(&format!("asking {} instead", registry.host())), "{}", ended.stderr());
    ended.success();
    let said = hull(&registry, &data, &["fetch", &name(":3")]).failure(&[registry.host()]);
    assert!(said.contains("404"), "{said}");
}

#[test]
fn a_mirror_for_digests_is_not_believed_for_tags() {
    let (registry, mirror) = (Registry::plain(), Registry::plain());
    let digest = registry.push(&Image::standard(), "app:1");
    // What the mirror calls so is another image.
    let other = mirror.push(&large(), "app:1");
    assert_eq!(mirror.push(&Image::standard(), "app:2"), digest);
    let data = Hull::new();
    mirrored(&data, &registry, &mirror, "digest-only");
    let fetch = |data: &Hull, rest: &str| {
        let name = format!("docker://{}/app{rest}", registry.host());
        hull(&registry, data, &["fetch", "--full", &name]).success().trim().replace('-', ":")
    };
    assert_eq!(fetch(&data, ":1"), digest);
    // Only the mirror has this one.
    assert_eq!(fetch(&data, &format!("@{other}")), other);
}

#[test]
fn the_image_for_this_host_is_chosen_of_an_index() {
    let (registry, data) = (Registry::plain(), Hull::new());
    registry.allow(data.settings());
    let ours = registry.push(&Image::standard(), "app:ours");
    registry.push(&Builder::standard().architecture("arm64").oci(), "app:arm64");
    registry.push(&Builder::standard().architecture("s390x").oci(), "app:s390x");
    let index = |tag: &str, parts: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        let buildah = |args: &[&str]| {
            let mut command = Command::new("buildah");
            command.arg("--root").arg(folder.path().join("root"));
            command.arg("--runroot").arg(folder.path().join("run")).arg("--storage-driver=vfs").args(args);
            let output = command.output().expect("buildah: cargo xtask test install installs it");
            assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        };
        buildah(&["manifest", "create", "list"]);
        for part in parts {
            let part = format!("docker://{}/app:{part}", registry.host());
            buildah(&["manifest", "add", "--tls-verify=false", "list", &part]);
        }
        let to = format!("docker://{}/app:{tag}", registry.host());
        buildah(&["manifest", "push", "--all", "--quiet", "--tls-verify=false", "list", &to]);
    };
    index("all", &["arm64", "ours", "s390x"]);
    index("others", &["arm64", "s390x"]);
    let name = |tag: &str| format!("docker://{}/app:{tag}", registry.host());
    let id = hull(&registry, &data, &["fetch", "--full", &name("all")]).success();
    assert_eq!(id.trim(), ours.replace(':', "-"));
    let pod = ["run", "--stage1=fly", &name("all"), "--", "/bin/echo", "chosen"];
    assert_eq!(hull(&registry, &data, &pod).success(), "chosen\n");
    let said = ["linux/arm64", "linux/s390x", "linux/amd64"];
    hull(&registry, &data, &["fetch", &name("others")]).failure(&said);
    hull(&registry, &data, &["fetch", &name("arm64")]).failure(&["linux/arm64", "linux/amd64"]);
}

#[test]
fn a_registry_that_wants_a_certificate_is_shown_one() {
    let (registry, data) = (Registry::mutual(), Hull::new());
    registry.push(&Image::standard(), "app:1");
    registry.allow(data.settings());
    let name = format!("docker://{}/app:1", registry.host());
    let fetch = || {
        let mut command = registry.command(&data, &["fetch", &name]);
        command.env_remove("SSL_CERT_FILE");
        finish(command)
    };
    let folder = data.settings().join("certs.d").join(registry.host());
    fetch().failure(&[registry.host(), "certs.d"]);
    registry.certificates(&folder);
    fs::rename(folder.join("client.cert"), folder.join("later")).unwrap();
    fetch().failure(&["client.cert", "missing"]);
    fs::remove_file(folder.join("client.key")).unwrap();
    fetch().failure(&[registry.host()]);
    registry.certificates(&folder);
    fetch().success();
}

#[test]
fn pulls_that_were_killed_are_completed_by_the_next() {
    let (registry, data) = (Registry::plain(), Hull::new());
    registry.push(&large(), "app:1");
    let gate = Gate::new(registry.host(), 200_000);
    registry::reach(data.settings(), &gate.host(), true);
    registry::allow(data.settings(), &gate.host());
    let name = format!("docker://{}/app:1", gate.host());
    let command = || registry.command(&data, &["fetch", "--full", &name]);
    let partials = || {
        let files = fs::read_dir(data.dir().join("images/partial")).into_iter().flatten().flatten();
        files.filter_map(|file| file.metadata().ok()).map(|file| file.len()).collect::<Vec<_>>()
    };
    let started = [data.spawn_command(command()), data.spawn_command(command())];
    until("all layers have begun", || partials().iter().filter(|size| **size > 100_000).count() == 4);
    let arrived: u64 = partials().iter().sum();
    for pull in &started {
        pull.signal(Signal::SIGKILL);
    }
    for pull in started {
        assert_eq!(pull.wait().code, -9);
    }
    gate.open();
    // Two again, and together they bring what is missing.
    let ended =
        [data.spawn_command(command()), data.spawn_command(command())].map(hull_tests::hull::Started::wait);
    let said: String = ended.iter().map(Ended::stderr).collect();
    assert_eq!(said.matches("are there").count(), 4, "{said}");
    assert_eq!(said.matches("fetched layer").count(), 4, "{said}");
    assert!(arrived > 400_000);
    let [first, second] = ended.map(Ended::success);
    assert_eq!(first, second);
    assert_eq!(partials(), Vec::<u64>::new());
    hull(&registry, &data, &["image", "verify", first.trim()]).success();
}

#[test]
fn layers_that_come_at_once_have_a_bar_each() {
    let (registry, data) = (Registry::plain(), Hull::new());
    registry.push(&large(), "app:1");
    let gate = Gate::new(registry.host(), 200_000);
    registry::reach(data.settings(), &gate.host(), true);
    registry::allow(data.settings(), &gate.host());
    let name = format!("docker://{}/app:1", gate.host());
    let mut terminal = Terminal::run(registry.command(&data, &["fetch", &name]), 24, 160);
    let mut layers = BTreeSet::new();
    while layers.len() < 4 {
        let screen = terminal.await_text(" [");
        let shown = screen.trim_end_matches(" [").rsplit("layer ").next().unwrap_or_default().to_owned();
        if shown.len() == 12 && shown.bytes().all(|b| b.is_ascii_hexdigit()) {
            layers.insert(shown);
        }
    }
}

#[test]
fn proxies_are_those_of_the_environment() {
    let registry = Registry::plain();
    registry.push(&Image::standard(), "app:1");
    // A server in Go takes what is meant for a proxy as meant for itself.
    let proxy = Gate::new(registry.host(), u64::MAX);
    let fetch = |host: &str, variables: &[(&str, &str)]| {
        let data = Hull::new();
        registry::reach(data.settings(), host, true);
        registry::allow(data.settings(), host);
        let mut command = registry.command(&data, &["fetch", &format!("docker://{host}/app:1")]);
        command.envs(variables.iter().copied());
        finish(command)
    };
    let address = format!("http://{}", proxy.host());
    // Nobody but the proxy knows this host.
    fetch("registry.invalid:5000", &[("HTTP_PROXY", &address), ("HTTPS_PROXY", &address)]).success();
    let before = proxy.connections();
    assert!(before > 0);
    fetch(registry.host(), &[("HTTP_PROXY", &address), ("HTTPS_PROXY", &address), ("NO_PROXY", "127.0.0.1")])
        .success();
    assert_eq!(proxy.connections(), before);
    fetch(registry.host(), &[("http_proxy", &address)]).success();
    assert!(proxy.connections() > before);
}

#[test]
fn the_users_settings_count_most() {
    let (registry, data) = (Registry::plain(), Hull::new());
    registry.push(&Image::standard(), "app:1");
    registry.reach(data.settings());
    let rejected = json!({ "default": [{ "type": "reject" }] });
    fs::write(data.settings().join("policy.json"), rejected.to_string()).unwrap();
    let name = format!("docker://{}/app:1", registry.host());
    hull(&registry, &data, &["fetch", &name]).failure(&["rejects"]);
    let user = tempfile::tempdir().unwrap();
    registry::allow(user.path(), registry.host());
    let option = format!("--user-config={}", user.path().display());
    hull(&registry, &data, &[&option, "fetch", &name]).success();
    // Where images come from as well: this one leads nowhere.
    registry::reach(user.path(), registry.host(), false);
    let update = ["--pull-policy=update", &name];
    hull(&registry, &data, &[&[&*option, "fetch"], &update[..]].concat()).failure(&["does not speak TLS"]);
}

#[test]
fn what_is_odd_about_settings_is_said_once() {
    let (registry, data) = (Registry::plain(), Hull::new());
    registry.push(&Image::standard(), "app:1");
    registry.push(&large(), "app:2");
    registry.allow(data.settings());
    let path = data.settings().join("auth.d/open.json");
    fs::create_dir(path.parent().unwrap()).unwrap();
    let credentials = json!({ "user": "u", "password": "p" });
    let document = json!({
        "hullKind": "dockerAuth", "hullVersion": "v1", "registries": ["example.com"], "credentials": credentials,
    });
    fs::write(&path, document.to_string()).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let name = |tag: &str| format!("docker://{}/app:{tag}", registry.host());
    let ended = hull(&registry, &data, &["fetch", &name("1"), &name("2")]);
    assert_eq!(ended.stderr().matches("everybody can read it").count(), 1, "{}", ended.stderr());
    ended.success();
}

#[test]
fn a_host_that_does_not_exist_is_not_asked_for_again() {
    let data = Hull::new();
    let settings = data.settings().join("nsswitch.conf");
    fs::write(&settings, "hosts: files\n").unwrap();
    let fetch = data.command(["fetch", "docker://nobody.invalid/app:1"]);
    let mut command = Command::new("unshare");
    // Names are looked for in a file only, so that the answer is certain.
    let script = "mount --bind \"$1\" /etc/nsswitch.conf && shift && exec \"$@\"";
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(&settings);
    command.arg(fetch.get_program()).args(fetch.get_args()).stdin(Stdio::null());
    for (name, value) in fetch.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let said = finish(command).failure(&["nobody.invalid", "Name or service not known"]);
    assert!(!said.contains("trying again"), "{said}");
}

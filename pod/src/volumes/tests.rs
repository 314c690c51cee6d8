//! rkt's rules, case by case.
#![expect(clippy::needless_pass_by_value, reason = "a `json!` is written where it is used")]

use serde_json::{Value, json};

use super::*;

/// A pod of one app with these mount points, mounts and annotations, and these volumes.
fn pod(points: Value, mounts: Value, volumes: Value) -> Manifest {
    let app = json!({
        "name": "a", "image": { "name": "i", "id": "sha512-0" }, "mounts": mounts,
        "app": { "exec": ["/x"], "user": "0", "group": "0", "mountPoints": points },
        "annotations": [{ "name": COPY_UP, "value": "true" }],
    });
    let pod = json!({ "acVersion": "0.8.11", "acKind": "PodManifest", "apps": [app], "volumes": volumes });
    serde_json::from_value(pod).unwrap()
}

/// `VOLUME TARGET [ro] [norec] [copy]` of each mount.
fn mounts(points: Value, mounts: Value, volumes: Value, flavour: Flavour) -> Result<Vec<String>, String> {
    let resolved = resolve(&pod(points, mounts, volumes), flavour).map_err(|why| why.to_string())?;
    let line = |mount: &MountSpec| {
        let words = [(mount.read_only, " ro"), (!mount.recursive, " norec"), (mount.copy_up, " copy")];
        let words: String = words.iter().filter(|(set, _)| *set).map(|(_, word)| *word).collect();
        format!("{} {}{words}", mount.volume, mount.target)
    };
    Ok(resolved.mounts[0].iter().map(line).collect())
}

#[track_caller]
fn check(points: Value, mounts_: Value, volumes: Value, want: &[&str]) {
    assert_eq!(mounts(points, mounts_, volumes, Flavour::Nspawn).unwrap(), want);
}

#[track_caller]
fn check_refused(points: Value, mounts_: Value, volumes: Value, words: &[&str]) {
    let why = mounts(points, mounts_, volumes, Flavour::Nspawn).unwrap_err();
    words.iter().for_each(|word| assert!(why.contains(word), "{why}"));
}

fn point() -> Value {
    json!([{ "name": "data", "path": "/data", "readOnly": true }])
}

fn host(name: &str) -> Value {
    json!({ "name": name, "kind": "host", "source": "/srv" })
}

#[test]
fn a_mount_point_takes_the_volume_of_its_name_or_an_empty_one() {
    check(point(), json!([]), json!([host("data")]), &["data /data ro"]);
    check(point(), json!([]), json!([host("other")]), &["a-data /data ro copy"]);
    check(point(), json!([]), json!([{ "name": "data", "kind": "empty" }]), &["data /data ro copy"]);
}

#[test]
fn the_volume_decides_before_the_mount_point_who_may_write() {
    let open = json!([{ "name": "data", "kind": "host", "source": "/srv", "readOnly": false }]);
    check(point(), json!([]), open, &["data /data"]);
    let other = json!([{ "volume": "v", "path": "/data//." }]);
    check(point(), other, json!([host("v")]), &["v /data ro"]);
    let elsewhere = json!([{ "volume": "v", "path": "/elsewhere" }]);
    let closed =
        json!([{ "name": "v", "kind": "host", "source": "/srv", "readOnly": true, "recursive": false }]);
    check(json!([]), elsewhere, closed, &["v /elsewhere ro norec"]);
}

#[test]
fn of_two_mounts_on_one_path_the_later_counts() {
    let two = json!([{ "volume": "v", "path": "/x" }, { "volume": "w", "path": "/x/" }]);
    check(json!([]), two, json!([host("v"), host("w")]), &["w /x"]);
}

#[test]
fn outer_mounts_come_before_inner_ones() {
    let two = json!([{ "volume": "v", "path": "/x/y/z" }, { "volume": "w", "path": "/x" }]);
    check(json!([]), two, json!([host("v"), host("w")]), &["w /x", "v /x/y/z"]);
}

#[test]
fn an_apps_own_volume_is_nobody_elses() {
    let own = json!([{ "volume": "v", "path": "/x", "appVolume": host("v") }]);
    check(json!([]), own.clone(), json!([]), &["a-v /x"]);
    check_refused(json!([]), own, json!([host("a-v")]), &["a-v", "app a"]);
}

#[test]
fn read_only_as_a_whole_is_what_no_app_may_write_to() {
    let read_only = |mounts: Value, volume: Value| match &resolve(
        &pod(json!([]), mounts, json!([volume])),
        Flavour::Nspawn,
    )
    .unwrap()
    .used[0]
        .kind
    {
        Backing::Host(source) => source.read_only,
        Backing::Empty { .. } => panic!("it is the host's"),
    };
    let mounts = json!([{ "volume": "v", "path": "/x" }, { "volume": "v", "path": "/y" }]);
    assert!(!read_only(mounts.clone(), host("v")));
    assert!(read_only(mounts, json!({ "name": "v", "kind": "host", "source": "/s", "readOnly": true })));
}

#[test]
fn fly_makes_no_volume_by_itself() {
    let why = mounts(point(), json!([]), json!([]), Flavour::Fly).unwrap_err();
    assert!(why.contains("--stage1=fly") && why.contains("--volume=data"), "{why}");
    let found = mounts(point(), json!([]), json!([host("data")]), Flavour::Fly).unwrap();
    assert_eq!(found, ["data /data ro norec"], "recursive where asked for");
}

#[test]
fn what_is_no_volume_is_refused() {
    let at = |path: &str| json!([{ "volume": "v", "path": path }]);
    check_refused(json!([]), at("/x"), json!([]), &["\"v\"", "--volume=v"]);
    check_refused(json!([]), at("/x"), json!([host("v"), host("v")]), &["v", "twice"]);
    check_refused(json!([]), at("/x"), json!([host("V")]), &["\"V\""]);
    for path in ["x", "/", "//.", "/a/../b", "/a\u{0}b", &format!("/{}", "x".repeat(5000))] {
        check_refused(json!([]), at(path), json!([host("v")]), &["app a"]);
    }
    let host = |source: &str| json!([{ "name": "v", "kind": "host", "source": source }]);
    check_refused(json!([]), at("/x"), host("relative"), &["v", "absolute"]);
    let mode = |mode: &str| json!([{ "name": "v", "kind": "empty", "mode": mode }]);
    for text in ["x", "", "99", "+7", "10000"] {
        check_refused(json!([]), at("/x"), mode(text), &["v", "0755"]);
    }
    let size = json!([{ "name": "v", "kind": "empty", "size": "lots" }]);
    check_refused(json!([]), at("/x"), size, &["v", "lots"]);
}

#[test]
fn an_idle_volume_is_said() {
    let warnings = resolve(&pod(json!([]), json!([]), json!([host("v")])), Flavour::Nspawn).unwrap().warnings;
    assert!(warnings[0].contains("volume v"), "{warnings:?}");
}

//! App Container Images that lie on others, from the command line.

use std::fs;
use std::process::Command;

use hull_tests::Hull;
use hull_tests::hull::{Ended, finish};
use hull_tests::image::{Builder, Layer};
use hull_tests::web::Web;
use serde_json::{Value, json};

/// A host that discovery leads to, and a hull that takes what it has.
struct Fixture {
    hull: Hull,
    web: Web,
}

impl Fixture {
    fn new() -> Self {
        let web = Web::new(&["example.com"]);
        let page = "<html><head><meta name=\"ac-discovery\" \
            content=\"example.com https://example.com/{name}-{version}.{ext}\"></head></html>";
        web.put("/?ac-discovery=1", page);
        Self { hull: Hull::new(), web }
    }

    /// Puts `example.com/NAME` there; `more` goes into its manifest.
    fn put(&self, name: &str, more: &Value, layer: Layer) {
        let mut manifest = json!({
            "acKind": "ImageManifest", "acVersion": "0.8.11", "name": format!("example.com/{name}"),
            "labels": [{ "name": "os", "value": "linux" }, { "name": "arch", "value": "amd64" }],
            "app": { "exec": ["/bin/cat", "/etc/text"], "user": "0", "group": "0" },
        });
        for (key, value) in more.as_object().expect("an object") {
            manifest[key] = value.clone();
        }
        let archive = layer.file("manifest", 0o644, manifest.to_string().as_bytes()).finish();
        self.web.put(&format!("/example.com/{name}-latest.aci"), archive);
    }

    fn hull(&self, args: &[&str]) -> Ended {
        let mut command: Command = self.hull.command([&["--insecure-options=image"], args].concat());
        self.web.lead(&mut command);
        finish(command)
    }
}

fn text(content: &str) -> Layer {
    Layer::default().directory("rootfs", 0o755).directory("rootfs/etc", 0o755).file(
        "rootfs/etc/text",
        0o644,
        content.as_bytes(),
    )
}

fn on(name: &str) -> Value {
    json!({ "dependencies": [{ "imageName": format!("example.com/{name}") }] })
}

#[test]
fn an_image_is_extracted_alone_and_rendered_with_what_it_lies_on() {
    let fixture = Fixture::new();
    fixture.put("base", &json!({}), text("base").file("rootfs/etc/base", 0o600, b"of the base"));
    let mut middle = on("base");
    middle["pathWhitelist"] = json!(["/etc/base", "/etc/middle"]);
    fixture.put("middle", &middle, text("middle").file("rootfs/etc/middle", 0o644, b"m"));
    let top = Layer::default().directory("rootfs", 0o755).file("rootfs/top", 0o644, b"top");
    fixture.put("top", &on("middle"), top);
    fixture.hull(&["fetch", "example.com/top,os=linux"]).success();
    let folder = tempfile::tempdir().unwrap();
    let written = |command: &str| {
        let to = folder.path().join(command);
        let to_text = to.display().to_string();
        fixture.hull(&["image", command, "--rootfs-only", "example.com/top", &to_text]).success();
        let mut files = vec![];
        let mut folders = vec![to.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => folders.push(path),
                    false => {
                        let name = path.strip_prefix(&to).unwrap().display().to_string();
                        files.push((name, fs::read_to_string(path).unwrap()));
                    }
                }
            }
        }
        files.sort();
        files
    };
    let files = |list: &[(&str, &str)]| -> Vec<(String, String)> {
        list.iter().map(|(name, content)| (name.to_string(), content.to_string())).collect()
    };
    assert_eq!(written("extract"), files(&[("top", "top")]));
    // The list of the one in the middle hides the text of both that are below, and nothing of the top.
    let rendered = [("etc/base", "of the base"), ("etc/middle", "m"), ("top", "top")];
    assert_eq!(written("render"), files(&rendered));
    // With its manifest beside it, as it came.
    let whole = folder.path().join("whole").display().to_string();
    fixture.hull(&["image", "render", "example.com/top", &whole]).success();
    let manifest: Value = serde_json::from_slice(&fs::read(format!("{whole}/manifest")).unwrap()).unwrap();
    assert_eq!(manifest["dependencies"][0]["imageName"], "example.com/middle");
    assert!(fs::exists(format!("{whole}/rootfs/etc/base")).unwrap());
}

#[test]
fn a_prepared_pod_keeps_the_files_it_was_prepared_with() {
    let fixture = Fixture::new();
    // The base is a whole root; the text is the matter.
    let base = |content: &[u8]| {
        let image = Builder::standard().layer(Layer::default().file("etc/text", 0o644, content)).aci();
        let archive = fs::read(image.path()).unwrap();
        fixture.web.put("/example.com/busybox-latest.aci", archive);
    };
    base(b"old\n");
    fixture.put("top", &on("busybox"), Layer::default().directory("rootfs", 0o755));
    let prepare = || {
        let ended = fixture.hull(&["prepare", "--stage1=fly", "example.com/top,os=linux"]);
        ended.success().trim().to_owned()
    };
    let first = prepare();
    base(b"new\n");
    fixture.hull(&["fetch", "--pull-policy=update", "example.com/top,os=linux"]).success();
    let second = prepare();
    fixture.hull(&["image", "gc", "--grace-period=0s"]).success();
    assert_eq!(fixture.hull(&["run-prepared", &first]).success(), "old\n");
    assert_eq!(fixture.hull(&["run-prepared", &second]).success(), "new\n");
    let trees = || fs::read_dir(fixture.hull.dir().join("images/erofs")).unwrap().count();
    let before = trees();
    fixture.hull.collect().success();
    fixture.hull(&["image", "gc", "--grace-period=1h"]).success();
    assert_eq!(trees(), before - 1, "nobody needs the old one any more");
}

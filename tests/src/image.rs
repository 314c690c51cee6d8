//! Images made by the test itself: OCI layouts around the host's static busybox, and the same image in
//! every other format.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// busybox applets that the standard image links.
const APPLETS: &[&str] = &[
    "cat", "chmod", "chown", "chroot", "cp", "dd", "echo", "env", "false", "grep", "head", "hostname", "id",
    "kill", "ln", "ls", "md5sum", "mkdir", "mknod", "mount", "mv", "nohup", "ps", "pwd", "readlink", "rm",
    "seq", "sh", "sleep", "stat", "stty", "sync", "touch", "tr", "true", "tty", "umount", "wc", "yes",
];

/// An image on disk. The directory goes with it.
#[derive(Debug)]
pub struct Image {
    path: PathBuf,
    prefix: &'static str,
    _dir: Option<TempDir>,
}

impl Image {
    /// busybox with all the applets that the cases use, a user `app` (1000:1000, also in group `extra`),
    /// and no command. Made once.
    pub fn standard() -> Self {
        static STANDARD: OnceLock<Image> = OnceLock::new();
        let image = STANDARD.get_or_init(|| Builder::standard().oci());
        Self { path: image.path.clone(), prefix: image.prefix, _dir: None }
    }

    /// How hull is told about it.
    pub fn reference(&self) -> String {
        format!("{}{}", self.prefix, self.path.display())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// An image in the making.
#[derive(Debug)]
pub struct Builder {
    layers: Vec<Vec<u8>>,
    config: Value,
    app: Value,
    architecture: &'static str,
}

impl Builder {
    /// See [`Image::standard`].
    pub fn standard() -> Self {
        let busybox =
            fs::read("/bin/busybox").expect("busybox-static is installed: cargo xtask test does it");
        let mut layer = Layer::default();
        for dir in ["bin", "etc", "tmp", "home", "proc", "dev"] {
            layer = layer.directory(dir, if dir == "tmp" { 0o1777 } else { 0o755 });
        }
        layer = layer.file("bin/busybox", 0o755, &busybox);
        for applet in APPLETS {
            layer = layer.symlink(&format!("bin/{applet}"), "busybox");
        }
        let layer = layer
            .file("etc/passwd", 0o644, b"root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home:/bin/sh\n")
            .file("etc/group", 0o644, b"root:x:0:\napp:x:1000:\nextra:x:2000:app\n")
            .file("etc/not-a-program", 0o644, b"text\n")
            .file("bin/no-interpreter", 0o755, b"#!/bin/nope\n")
            .file("bin/garbage", 0o755, &[0x7f, 0x45, 0x4c, 0x46, 9, 9, 9]);
        Self { layers: vec![layer.finish()], config: json!({}), app: json!({}), architecture: "amd64" }
    }

    /// Replaces the `config` object of the OCI image configuration.
    pub fn config(mut self, config: Value) -> Self {
        self.config = config;
        self
    }

    /// Adds to the `app` object of an App Container Image's manifest.
    pub fn app(mut self, app: Value) -> Self {
        self.app = app;
        self
    }

    /// Adds a layer on top.
    pub fn layer(mut self, layer: Layer) -> Self {
        self.layers.push(layer.finish());
        self
    }

    /// Claims another architecture.
    pub fn architecture(mut self, architecture: &'static str) -> Self {
        self.architecture = architecture;
        self
    }

    /// As an OCI image layout in a directory.
    pub fn oci(self) -> Image {
        let dir = tempfile::Builder::new().prefix("hull-image-").tempdir().expect("a temporary directory");
        let path = dir.path().join("busybox");
        self.write_oci(&path);
        Image { path, prefix: "oci:", _dir: Some(dir) }
    }

    /// As an OCI image layout in a tar archive.
    pub fn oci_archive(self) -> Image {
        let dir = tempfile::Builder::new().prefix("hull-image-").tempdir().expect("a temporary directory");
        let (tree, path) = (dir.path().join("tree"), dir.path().join("busybox.tar"));
        self.write_oci(&tree);
        let mut tar = tar::Builder::new(File::create(&path).expect("a new file"));
        tar.append_dir_all(".", &tree).expect("archive a layout");
        tar.finish().expect("end of archive");
        Image { path, prefix: "oci-archive:", _dir: Some(dir) }
    }

    /// As `docker save` writes it.
    pub fn docker_archive(self) -> Image {
        let dir = tempfile::Builder::new().prefix("hull-image-").tempdir().expect("a temporary directory");
        let path = dir.path().join("busybox.tar");
        let mut archive = Layer::default();
        let mut names = Vec::new();
        for (index, layer) in self.layers.iter().enumerate() {
            let name = format!("{index}/layer.tar");
            archive = archive.file(&name, 0o644, layer);
            names.push(name);
        }
        let config = serde_json::to_vec(&self.image_config()).expect("plain JSON");
        let config_name = format!("{}.json", hex(&config));
        let manifest = json!([{ "Config": config_name, "RepoTags": ["busybox:latest"], "Layers": names }]);
        let archive = archive.file(&config_name, 0o644, &config).file(
            "manifest.json",
            0o644,
            &serde_json::to_vec(&manifest).expect("plain JSON"),
        );
        fs::write(&path, archive.finish()).expect("a new file");
        Image { path, prefix: "docker-archive:", _dir: Some(dir) }
    }

    /// As an App Container Image of one layer.
    pub fn aci(self) -> Image {
        let dir = tempfile::Builder::new().prefix("hull-image-").tempdir().expect("a temporary directory");
        let path = dir.path().join("busybox.aci");
        let mut manifest = json!({
            "acKind": "ImageManifest", "acVersion": "0.8.11", "name": "example.com/busybox",
            "labels": [{ "name": "os", "value": "linux" }, { "name": "arch", "value": "amd64" }],
            "app": { "exec": ["/bin/echo", "from", "the", "image"], "user": "0", "group": "0" },
        });
        for (name, value) in self.app.as_object().expect("an object") {
            manifest["app"][name] = value.clone();
        }
        let mut target = tar::Builder::new(Vec::new());
        let bytes = serde_json::to_vec(&manifest).expect("plain JSON");
        let mut header = header(tar::EntryType::Regular, 0o644, bytes.len());
        target.append_data(&mut header, "manifest", bytes.as_slice()).expect("append to memory");
        for layer in &self.layers {
            let mut source = tar::Archive::new(layer.as_slice());
            for entry in source.entries().expect("our own archive") {
                let mut entry = entry.expect("our own entry");
                let mut header = entry.header().clone();
                let name = format!("rootfs/{}", entry.path().expect("our own path").display());
                match entry.link_name().expect("our own link") {
                    Some(link) => target.append_link(&mut header, name, link).expect("append"),
                    None => target.append_data(&mut header, name, &mut entry).expect("append"),
                }
            }
        }
        fs::write(&path, target.into_inner().expect("end of archive")).expect("a new file");
        Image { path, prefix: "", _dir: Some(dir) }
    }

    fn image_config(&self) -> Value {
        let diff_ids: Vec<String> =
            self.layers.iter().map(|layer| format!("sha256:{}", hex(layer))).collect();
        json!({
            "architecture": self.architecture, "os": "linux", "config": self.config,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        })
    }

    fn write_oci(&self, path: &Path) {
        let blobs = path.join("blobs/sha256");
        fs::create_dir_all(&blobs).expect("a new directory");
        let blob = |media_type: &str, bytes: &[u8]| {
            fs::write(blobs.join(hex(bytes)), bytes).expect("a new file");
            json!({ "mediaType": media_type, "digest": format!("sha256:{}", hex(bytes)), "size": bytes.len() })
        };
        let layer = "application/vnd.oci.image.layer.v1.tar";
        let layers: Vec<Value> = self.layers.iter().map(|bytes| blob(layer, bytes)).collect();
        let config = serde_json::to_vec(&self.image_config()).expect("plain JSON");
        let config = blob("application/vnd.oci.image.config.v1+json", &config);
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config, "layers": layers,
        });
        let manifest = serde_json::to_vec(&manifest).expect("plain JSON");
        let manifest = blob("application/vnd.oci.image.manifest.v1+json", &manifest);
        let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
        write_json(&path.join("index.json"), &index);
        write_json(&path.join("oci-layout"), &json!({ "imageLayoutVersion": "1.0.0" }));
    }
}

fn write_json(path: &Path, value: &Value) {
    let bytes = serde_json::to_vec(value).expect("plain JSON");
    File::create(path).and_then(|mut file| file.write_all(&bytes)).expect("a new file");
}

/// Lower-case SHA-256 of `bytes`.
pub fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A tar archive in memory.
pub struct Layer(tar::Builder<Vec<u8>>);

impl Default for Layer {
    fn default() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }
}

impl Layer {
    pub fn directory(self, path: &str, mode: u32) -> Self {
        self.entry(path, tar::EntryType::Directory, mode, &[])
    }

    pub fn file(self, path: &str, mode: u32, bytes: &[u8]) -> Self {
        self.entry(path, tar::EntryType::Regular, mode, bytes)
    }

    pub fn symlink(mut self, path: &str, target: &str) -> Self {
        let mut header = header(tar::EntryType::Symlink, 0o777, 0);
        self.0.append_link(&mut header, path, target).expect("append to memory");
        self
    }

    fn entry(mut self, path: &str, kind: tar::EntryType, mode: u32, bytes: &[u8]) -> Self {
        let mut header = header(kind, mode, bytes.len());
        self.0.append_data(&mut header, path, bytes).expect("append to memory");
        self
    }

    /// The archive.
    pub fn finish(self) -> Vec<u8> {
        self.0.into_inner().expect("end of archive")
    }
}

/// An entry of root's, from 1970.
fn header(kind: tar::EntryType, mode: u32, len: usize) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(len as u64);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

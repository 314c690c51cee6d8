//! Writes a folder as an OCI image layout of one layer (OCI image specification 1.1, image-layout.md).
use std::fs;
use std::path::Path;
use std::process::Command;

use hull_errors::Doing;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::error::{Kind, Result};
use crate::tool;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// The same `root` always gives the same image.
pub(super) fn write(root: &Path, layout: &Path) -> Result<()> {
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).doing(Kind::Failed, || format!("create {}", blobs.display()))?;
    let tar = layout.join("layer.tar");
    let mut command = Command::new("tar");
    command.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mtime=@0", "--create"]);
    tool::run(command.arg("--file").arg(&tar).arg("--directory").arg(root).arg("."))?;
    let layer = fs::read(&tar).doing(Kind::Failed, || format!("read {}", tar.display()))?;
    fs::remove_file(&tar).doing(Kind::Failed, || format!("remove {}", tar.display()))?;
    let layer = blob(&blobs, LAYER, &layer)?;
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": { "Cmd": ["/bin/busybox", "echo", "hello"] },
        "rootfs": { "type": "layers", "diff_ids": [layer["digest"]] },
    });
    let config = blob(&blobs, CONFIG, config.to_string().as_bytes())?;
    let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer] });
    let manifest = blob(&blobs, MANIFEST, manifest.to_string().as_bytes())?;
    put(&layout.join("index.json"), &json!({ "schemaVersion": 2, "manifests": [manifest] }))?;
    put(&layout.join("oci-layout"), &json!({ "imageLayoutVersion": "1.0.0" }))
}

/// Writes it under its digest, and returns its descriptor.
fn blob(blobs: &Path, media_type: &str, bytes: &[u8]) -> Result<Value> {
    let digest: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let path = blobs.join(&digest);
    fs::write(&path, bytes).doing(Kind::Failed, || format!("write {}", path.display()))?;
    Ok(json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes.len() }))
}

fn put(path: &Path, value: &Value) -> Result<()> {
    fs::write(path, value.to_string()).doing(Kind::Failed, || format!("write {}", path.display()))
}

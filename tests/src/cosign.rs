//! Somebody who signs images of registries: the real cosign, with keys of its own and no service on the network.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// A user of cosign.
#[derive(Debug)]
pub struct Cosign {
    program: PathBuf,
    folder: TempDir,
}

impl Default for Cosign {
    fn default() -> Self {
        Self::new()
    }
}

impl Cosign {
    pub fn new() -> Self {
        let path = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let cache = path("HULL_CACHE")
            .or_else(|| path("XDG_CACHE_HOME").map(|path| path.join("hull")))
            .or_else(|| path("HOME").map(|path| path.join(".cache/hull")));
        let program = cache.expect("there is a home").join("debian-sid/usr/bin/cosign");
        assert!(program.is_file(), "no {}: cargo xtask test install brings it", program.display());
        let folder =
            tempfile::Builder::new().prefix("hull-cosign-").tempdir().expect("a temporary directory");
        let config = r#"{"mediaType":"application/vnd.dev.sigstore.signingconfig.v0.2+json"}"#;
        fs::write(folder.path().join("signing.json"), config).expect("a new file");
        Self { program, folder }
    }

    /// Makes a pair of keys and gives the path of the public one.
    pub fn key(&self, name: &str) -> PathBuf {
        self.run(&["generate-key-pair", "--output-key-prefix", name]);
        self.folder.path().join(format!("{name}.pub"))
    }

    /// Signs an image (`HOST/REPOSITORY@DIGEST`) into the tag `sha256-HEX.sig`.
    pub fn sign_tag(&self, key: &str, image: &str) {
        let form = ["--use-signing-config=false", "--new-bundle-format=false", "--tlog-upload=false"];
        self.sign(key, image, &form);
    }

    /// Signs an image into a bundle that refers to it.
    pub fn sign_bundle(&self, key: &str, image: &str) {
        self.sign(key, image, &["--signing-config", "signing.json"]);
    }

    fn sign(&self, key: &str, image: &str, form: &[&str]) {
        let key = format!("{key}.key");
        let fixed = ["sign", "--yes", "--allow-http-registry", "--key", &key];
        self.run(&[&fixed[..], form, &[image]].concat());
    }

    fn run(&self, args: &[&str]) {
        let folder: &Path = self.folder.path();
        let mut command = Command::new(&self.program);
        command.args(args).current_dir(folder).env("HOME", folder).env("COSIGN_PASSWORD", "secret");
        let output = command.stdin(Stdio::null()).output().expect("cosign starts");
        assert!(output.status.success(), "cosign {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

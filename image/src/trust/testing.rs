//! A real registry with real images in it, and real signatures of them by cosign.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::Artifacts;
use crate::digest::{Algorithm, Digest};
use crate::{Error, Kind};

pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const INDEX: &str = "application/vnd.oci.image.index.v1+json";

pub(super) fn sha256(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, bytes)
}

/// Debian's docker-registry, for one test.
pub(super) struct Registry {
    child: Child,
    folder: TempDir,
    pub(super) address: String,
}

impl Registry {
    pub(super) fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let storage = folder.path().join("storage");
        let settings = folder.path().join("registry.yml");
        let text = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:0\n",
            storage.display()
        );
        fs::write(&settings, text).unwrap();
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(&settings)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("run docker-registry (apt-get install docker-registry)");
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        let address = loop {
            let mut line = String::new();
            assert!(log.read_line(&mut line).unwrap() > 0, "docker-registry ended: {said}");
            if let Some((_, rest)) = line.split_once("listening on ") {
                break rest.split(['"', ' ']).next().unwrap().to_owned();
            }
            said.push_str(&line);
        };
        // Nobody reads the rest, and it must not block.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self { child, folder, address }
    }

    /// `HOST:PORT/REPOSITORY`
    pub(super) fn name(&self, repository: &str) -> String {
        format!("{}/{repository}", self.address)
    }

    pub(super) fn artifacts(&self, repository: &str) -> Live<'_> {
        Live { registry: self, repository: repository.to_owned() }
    }

    /// Pushes an image that differs from others by `label`, and yields its manifest's digest.
    pub(super) fn push(&self, repository: &str, tag: &str, label: &str) -> Digest {
        let image = image(label);
        self.push_layout(repository, tag, MANIFEST, &image.manifest, &[&image]);
        sha256(&image.manifest)
    }

    /// Pushes an index of one image; yields the digests of both.
    pub(super) fn push_index(&self, repository: &str, tag: &str, label: &str) -> (Digest, Digest) {
        let image = image(label);
        let platform = sha256(&image.manifest);
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [{
            "mediaType": MANIFEST, "digest": platform, "size": image.manifest.len(),
            "platform": {"os": "linux", "architecture": "amd64"},
        }]});
        let index = serde_json::to_vec(&index).unwrap();
        self.push_layout(repository, tag, INDEX, &index, &[&image]);
        (sha256(&index), platform)
    }

    fn push_layout(&self, repository: &str, tag: &str, media_type: &str, top: &[u8], images: &[&Image]) {
        let layout = TempDir::new_in(self.folder.path()).unwrap();
        let put = |name: &str, bytes: &[u8]| {
            let path = layout.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        };
        let blobs = images.iter().flat_map(|image| [&*image.config, &*image.manifest]);
        for bytes in blobs.chain([top]) {
            put(&format!("blobs/sha256/{}", sha256(bytes).hex()), bytes);
        }
        put("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
        let index = json!({"schemaVersion": 2, "manifests": [{
            "mediaType": media_type, "digest": sha256(top), "size": top.len(),
            "annotations": {"org.opencontainers.image.ref.name": "x"},
        }]});
        put("index.json", &serde_json::to_vec(&index).unwrap());
        let output = Command::new("skopeo")
            .args([
                "--insecure-policy",
                "copy",
                "--quiet",
                "--all",
                "--preserve-digests",
                "--dest-tls-verify=false",
            ])
            .arg(format!("oci:{}:x", layout.path().display()))
            .arg(format!("docker://{}:{tag}", self.name(repository)))
            .output()
            .expect("run skopeo (apt-get install skopeo)");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// The body of an answer; `None` for 404.
    fn get(&self, path: &str) -> Option<Vec<u8>> {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let accept = format!("Accept: {MANIFEST}, {INDEX}");
        let address = &self.address;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n{accept}\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap();
        let (head, body) = (String::from_utf8_lossy(&answer[..end]).into_owned(), &answer[end + 4..]);
        match head.split(' ').nth(1).unwrap() {
            "200" => Some(body.to_vec()),
            "404" => None,
            _ => panic!("GET {path}: {head}"),
        }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

struct Image {
    config: Vec<u8>,
    manifest: Vec<u8>,
}

/// An image without layers.
fn image(label: &str) -> Image {
    let config = json!({
        "os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": []},
        "config": {"Labels": {"label": label}},
    });
    let config = serde_json::to_vec(&config).unwrap();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "layers": [],
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json", "digest": sha256(&config), "size": config.len(),
        },
    });
    Image { config, manifest: serde_json::to_vec(&manifest).unwrap() }
}

/// A repository of the registry, asked by the plainest of clients.
pub(super) struct Live<'a> {
    registry: &'a Registry,
    repository: String,
}

impl Live<'_> {
    fn path(&self, rest: &str) -> String {
        format!("/v2/{}/{rest}", self.repository)
    }
}

impl Artifacts for Live<'_> {
    fn manifest(&self, reference: &str) -> Result<Option<Vec<u8>>, Error> {
        let found = self.registry.get(&self.path(&format!("manifests/{reference}")));
        if let (Some(bytes), Ok(digest)) = (&found, reference.parse::<Digest>()) {
            assert_eq!(sha256(bytes), digest);
        }
        Ok(found)
    }

    fn referrers(&self, subject: &Digest) -> Result<Vec<(Digest, String)>, Error> {
        let asked = self.registry.get(&self.path(&format!("referrers/{subject}")));
        let tag = subject.to_string().replace(':', "-");
        let found = asked.or_else(|| self.registry.get(&self.path(&format!("manifests/{tag}"))));
        let Some(found) = found else { return Ok(Vec::new()) };
        let index: Value = serde_json::from_slice(&found).unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let manifests = index["manifests"].as_array().unwrap().iter();
        Ok(manifests.map(|m| (text(&m["digest"]).parse().unwrap(), text(&m["artifactType"]))).collect())
    }

    fn blob(&self, digest: &Digest, size: u64) -> Result<Vec<u8>, Error> {
        let bytes = self.registry.get(&self.path(&format!("blobs/{digest}")));
        let bytes = bytes.ok_or_else(|| Error::new(Kind::NotFound, format!("get blob {digest}")))?;
        assert_eq!(bytes.len() as u64, size);
        assert_eq!(sha256(&bytes), *digest);
        Ok(bytes)
    }
}

/// A registry that lies, for what no tool would write.
#[derive(Default)]
pub(super) struct Forged {
    pub(super) tags: BTreeMap<String, Vec<u8>>,
    pub(super) referrers: Vec<(Digest, String)>,
    pub(super) blobs: BTreeMap<Digest, Vec<u8>>,
    pub(super) asked: Cell<usize>,
}

impl Forged {
    /// Yields a descriptor.
    pub(super) fn put(&mut self, media_type: &str, bytes: &[u8]) -> Value {
        self.blobs.insert(sha256(bytes), bytes.to_vec());
        json!({"mediaType": media_type, "digest": sha256(bytes), "size": bytes.len()})
    }

    /// A signature in the tag form, as `cosign` stores it.
    pub(super) fn simple(&mut self, payload: &[u8], signature: &str) -> Value {
        let mut layer = self.put("application/vnd.dev.cosign.simplesigning.v1+json", payload);
        layer["annotations"] = json!({"dev.cosignproject.cosign/signature": signature});
        layer
    }

    pub(super) fn tag(&mut self, subject: &Digest, layers: &[Value]) {
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": {}, "layers": layers});
        self.tags.insert(format!("sha256-{}.sig", subject.hex()), serde_json::to_vec(&manifest).unwrap());
    }

    /// A bundle that refers to `subject`.
    pub(super) fn refer(&mut self, subject: &Digest, bundle: &[u8]) {
        let layer = self.put("application/vnd.dev.sigstore.bundle.v0.3+json", bundle);
        self.refer_with(&json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": {}, "layers": [layer],
            "subject": {"mediaType": MANIFEST, "digest": subject, "size": 1},
        }));
    }

    pub(super) fn refer_with(&mut self, manifest: &Value) {
        let bytes = serde_json::to_vec(manifest).unwrap();
        self.put(MANIFEST, &bytes);
        self.referrers.push((sha256(&bytes), "application/vnd.dev.sigstore.bundle.v0.3+json".into()));
    }
}

impl Artifacts for Forged {
    fn manifest(&self, reference: &str) -> Result<Option<Vec<u8>>, Error> {
        self.asked.set(self.asked.get() + 1);
        let by_digest = || self.blobs.get(&reference.parse().ok()?);
        Ok(self.tags.get(reference).or_else(by_digest).cloned())
    }

    fn referrers(&self, _: &Digest) -> Result<Vec<(Digest, String)>, Error> {
        Ok(self.referrers.clone())
    }

    fn blob(&self, digest: &Digest, size: u64) -> Result<Vec<u8>, Error> {
        self.asked.set(self.asked.get() + 1);
        let bytes = self.blobs.get(digest).filter(|bytes| bytes.len() as u64 == size);
        bytes.cloned().ok_or_else(|| Error::new(Kind::Corrupt, format!("get blob {digest}")))
    }
}

/// The real cosign, and its keys.
pub(super) struct Cosign {
    program: PathBuf,
    folder: TempDir,
}

impl Cosign {
    pub(super) fn new() -> Self {
        let path = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let cache = path("HULL_CACHE")
            .or_else(|| path("XDG_CACHE_HOME").map(|path| path.join("hull")))
            .or_else(|| path("HOME").map(|path| path.join(".cache/hull")))
            .unwrap();
        let program = cache.join("debian-sid/usr/bin/cosign");
        assert!(program.is_file(), "no {}: `cargo xtask test install` brings it", program.display());
        let folder = TempDir::new().unwrap();
        let config = r#"{"mediaType":"application/vnd.dev.sigstore.signingconfig.v0.2+json"}"#;
        fs::write(folder.path().join("signing.json"), config).unwrap();
        Self { program, folder }
    }

    #[track_caller]
    fn run(&self, program: &Path, arguments: &[&str]) {
        let output = Command::new(program)
            .args(arguments)
            .current_dir(self.folder.path())
            .env("HOME", self.folder.path())
            .env("COSIGN_PASSWORD", "secret")
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|e| panic!("{}: {e}", program.display()));
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Makes a key of cosign's own kind.
    pub(super) fn generate(&self, name: &str) {
        self.run(&self.program, &["generate-key-pair", "--output-key-prefix", name]);
    }

    /// Makes a key by openssl and imports it.
    pub(super) fn import(&self, name: &str, options: &[&str]) {
        let openssl = Path::new("openssl");
        self.run(openssl, &[&["genpkey", "-out", "openssl.pem", "-algorithm"], options].concat());
        self.run(
            &self.program,
            &["import-key-pair", "--yes", "--key", "openssl.pem", "--output-key-prefix", name],
        );
    }

    pub(super) fn public_key(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.pub"))
    }

    pub(super) fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.folder.path().join(name)).unwrap()
    }

    /// Signs into the tag `sha256-HEX.sig`.
    pub(super) fn sign_tag(&self, key: &str, image: &str, options: &[&str]) {
        let fixed = ["--use-signing-config=false", "--new-bundle-format=false", "--tlog-upload=false"];
        self.sign(key, image, &[&fixed, options].concat());
    }

    /// Signs into a bundle that refers to the image.
    pub(super) fn sign_bundle(&self, key: &str, image: &str, options: &[&str]) {
        self.sign(key, image, &[&["--signing-config", "signing.json"], options].concat());
    }

    fn sign(&self, key: &str, image: &str, options: &[&str]) {
        let key = format!("{key}.key");
        let fixed = ["sign", "--yes", "--allow-http-registry", "--key", &key];
        self.run(&self.program, &[&fixed, options, &[image]].concat());
    }

    /// States something about an image, which is not to sign it.
    pub(super) fn attest(&self, key: &str, image: &str) {
        fs::write(self.folder.path().join("predicate.json"), "{}").unwrap();
        let key = format!("{key}.key");
        let options = ["--signing-config", "signing.json", "--predicate", "predicate.json"];
        let fixed =
            ["attest", "--yes", "--allow-http-registry", "--type", "https://example.com/x", "--key", &key];
        self.run(&self.program, &[&fixed[..], &options, &[image]].concat());
    }

    /// A bundle over bytes.
    pub(super) fn sign_bytes(&self, key: &str, bytes: &[u8]) -> Vec<u8> {
        fs::write(self.folder.path().join("blob"), bytes).unwrap();
        let key = format!("{key}.key");
        let options = ["--signing-config", "signing.json", "--bundle", "bundle.json", "blob"];
        self.run(&self.program, &[&["sign-blob", "--yes", "--key", &key][..], &options].concat());
        self.read("bundle.json")
    }
}

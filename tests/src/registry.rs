//! A real registry of images, Debian's docker-registry, filled by skopeo.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::json;
use tempfile::TempDir;

use crate::web::Certificate;
use crate::{Hull, Image};

/// Who may use a registry that wants to know.
pub const USER: &str = "ann";
pub const PASSWORD: &str = "correct horse";

/// A registry on a free port. It ends when it is dropped.
#[derive(Debug)]
pub struct Registry {
    folder: TempDir,
    child: Child,
    address: String,
    certificate: Option<Certificate>,
}

impl Registry {
    /// Without TLS, for everybody.
    pub fn plain() -> Self {
        Self::start(None)
    }

    /// With TLS, for [`USER`] only.
    pub fn secure() -> Self {
        Self::start(Some(Certificate::new(&["127.0.0.1", "localhost"])))
    }

    fn start(certificate: Option<Certificate>) -> Self {
        let folder =
            tempfile::Builder::new().prefix("hull-registry-").tempdir().expect("a temporary directory");
        let path = |name: &str| folder.path().join(name).display().to_string();
        let mut http = json!({ "addr": "127.0.0.1:0" });
        let mut settings =
            json!({ "version": 0.1, "storage": { "filesystem": { "rootdirectory": path("storage") } } });
        if let Some(certificate) = &certificate {
            let file = |name| certificate.file(name);
            http["tls"] = json!({ "certificate": file("server.pem"), "key": file("key.pem") });
            run(Command::new("htpasswd").args(["-Bbc", &path("users"), USER, PASSWORD]));
            settings["auth"] = json!({ "htpasswd": { "realm": "hull", "path": path("users") } });
        }
        settings["http"] = http;
        // JSON is YAML too.
        fs::write(path("registry.yml"), settings.to_string()).expect("a new file");
        let mut command = Command::new("docker-registry");
        command.args(["serve", &path("registry.yml")]).stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = command
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker-registry is installed: cargo xtask test install does it");
        let address = address(&mut child);
        Self { folder, child, address, certificate }
    }

    /// `127.0.0.1:PORT`
    pub fn host(&self) -> &str {
        &self.address
    }

    /// Puts an image there under `name`, `library/app:1` say, and gives the digest of its manifest.
    pub fn push(&self, image: &Image, name: &str) -> String {
        let digest = self.folder.path().join("digest");
        let mut command = Command::new("skopeo");
        command.args(["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false", "--digestfile"]);
        command.arg(&digest);
        if self.certificate.is_some() {
            command.arg(format!("--dest-creds={USER}:{PASSWORD}"));
        }
        run(command.arg(image.reference()).arg(format!("docker://{}/{name}", self.address)));
        fs::read_to_string(digest).expect("skopeo wrote it")
    }

    /// Settings under which everything here may be fetched.
    pub fn allow(&self, settings: &Path) {
        self.reach(settings);
        let anything = json!([{ "type": "insecureAcceptAnything" }]);
        let policy = json!({ "transports": { "docker": { self.address.as_str(): anything } } });
        fs::write(settings.join("policy.json"), policy.to_string()).expect("a new file");
    }

    /// Settings that say how this registry is spoken to.
    pub fn reach(&self, settings: &Path) {
        let insecure = self.certificate.is_none();
        let text = format!("[[registry]]\nlocation = \"{}\"\ninsecure = {insecure}\n", self.address);
        fs::write(settings.join("registries.conf"), text).expect("a new file");
    }

    /// `hull ARGS` that believes the registry's certificate and has no credentials of the host's.
    pub fn command(&self, hull: &Hull, args: &[&str]) -> Command {
        let mut command = hull.command(args);
        for variable in
            ["REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "DOCKER_CONFIG", "HTTPS_PROXY", "HTTP_PROXY"]
        {
            command.env_remove(variable);
        }
        command.env("HOME", self.folder.path());
        if let Some(certificate) = &self.certificate {
            command.env("SSL_CERT_FILE", certificate.file("authority.pem"));
        }
        command
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill(); // Ended already is as good.
        let _ = self.child.wait();
    }
}

/// Where it listens, as it says when it does.
fn address(child: &mut Child) -> String {
    let mut log = BufReader::new(child.stderr.take().expect("piped"));
    let mut said = String::new();
    loop {
        let mut line = String::new();
        assert!(log.read_line(&mut line).expect("its log") > 0, "docker-registry ended: {said}");
        if let Some((_, rest)) = line.split_once("listening on ") {
            // The log goes on, and must not fill the pipe.
            std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
            let end = rest.find(['"', ',', ' ', '\n']).unwrap_or(rest.len());
            return rest[..end].to_owned();
        }
        said.push_str(&line);
    }
}

fn run(command: &mut Command) {
    let output = command
        .output()
        .unwrap_or_else(|why| panic!("{command:?}: {why}; cargo xtask test install installs it"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

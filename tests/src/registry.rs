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
    access: Access,
}

/// Who may use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Everybody,
    Password,
    Certificate,
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

    /// With TLS, for whoever shows a certificate of its authority. [`Registry::certificates`] has all that takes.
    pub fn mutual() -> Self {
        Self::start_as(Some(Certificate::new(&["127.0.0.1"])), Access::Certificate)
    }

    fn start(certificate: Option<Certificate>) -> Self {
        let access = if certificate.is_some() { Access::Password } else { Access::Everybody };
        Self::start_as(certificate, access)
    }

    fn start_as(certificate: Option<Certificate>, access: Access) -> Self {
        let folder =
            tempfile::Builder::new().prefix("hull-registry-").tempdir().expect("a temporary directory");
        let path = |name: &str| folder.path().join(name).display().to_string();
        let mut http = json!({ "addr": "127.0.0.1:0" });
        let mut settings =
            json!({ "version": 0.1, "storage": { "filesystem": { "rootdirectory": path("storage") } } });
        if let Some(certificate) = &certificate {
            let file = |name| certificate.file(name);
            http["tls"] = json!({ "certificate": file("server.pem"), "key": file("key.pem") });
            if access == Access::Certificate {
                http["tls"]["clientcas"] = json!([file("authority.pem")]);
            }
        }
        if access == Access::Password {
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
        let registry = Self { folder, child, address, certificate, access };
        registry.certificates(&registry.folder.path().join("certificates"));
        registry
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
        if self.access == Access::Password {
            command.arg(format!("--dest-creds={USER}:{PASSWORD}"));
        }
        command.arg("--dest-cert-dir").arg(self.folder.path().join("certificates"));
        run(command.arg(image.reference()).arg(format!("docker://{}/{name}", self.address)));
        fs::read_to_string(digest).expect("skopeo wrote it")
    }

    /// Settings under which everything here may be fetched.
    pub fn allow(&self, settings: &Path) {
        self.reach(settings);
        allow(settings, &self.address);
    }

    /// Settings that say how this registry is spoken to.
    pub fn reach(&self, settings: &Path) {
        reach(settings, &self.address, self.certificate.is_none());
    }

    /// Puts into `folder` what `certs.d` has for a registry: whom to believe, and who to be. Nothing without TLS.
    pub fn certificates(&self, folder: &Path) {
        fs::create_dir_all(folder).expect("a new folder");
        let Some(certificate) = &self.certificate else { return };
        for (ours, theirs) in
            [("ca.crt", "authority.pem"), ("client.cert", "client.pem"), ("client.key", "client-key.pem")]
        {
            fs::copy(certificate.file(theirs), folder.join(ours)).expect("a new file");
        }
    }

    /// `hull ARGS` that believes the registry's certificate and has no credentials of the host's.
    pub fn command(&self, hull: &Hull, args: &[&str]) -> Command {
        let mut command = hull.command(args);
        let of_users = ["REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "DOCKER_CONFIG"];
        let of_proxies = ["HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "ALL_PROXY"];
        for variable in of_users.into_iter().chain(of_proxies) {
            command.env_remove(variable).env_remove(variable.to_lowercase());
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

/// Settings under which everything at `host` may be fetched.
pub fn allow(settings: &Path, host: &str) {
    let anything = json!([{ "type": "insecureAcceptAnything" }]);
    let policy = json!({ "transports": { "docker": { host: anything } } });
    fs::write(settings.join("policy.json"), policy.to_string()).expect("a new file");
}

/// Settings that say how `host` is spoken to.
pub fn reach(settings: &Path, host: &str, insecure: bool) {
    let text = format!("[[registry]]\nlocation = \"{host}\"\ninsecure = {insecure}\n");
    fs::write(settings.join("registries.conf"), text).expect("a new file");
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

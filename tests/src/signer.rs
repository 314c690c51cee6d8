//! Somebody who signs images: gpg with a home of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A user of gpg with one key.
#[derive(Debug)]
pub struct Signer {
    home: TempDir,
    user: String,
}

impl Signer {
    /// Makes an Ed25519 key for `user`, `Ann <ann@example.com>` say.
    pub fn new(user: &str) -> Self {
        // The agent's socket lies in the home, and a socket's path is short.
        let home = tempfile::Builder::new().prefix("hull-gpg-").tempdir().expect("a temporary directory");
        let signer = Self { home, user: user.to_owned() };
        signer.gpg(&["--passphrase=", "--quick-generate-key", user, "ed25519", "sign", "never"]);
        signer
    }

    /// The public key in armour.
    pub fn public_key(&self) -> Vec<u8> {
        self.gpg(&["--armor", "--export", &self.user])
    }

    /// The public key in a file.
    pub fn key_file(&self) -> PathBuf {
        let path = self.home.path().join("public.asc");
        fs::write(&path, self.public_key()).expect("a new file");
        path
    }

    /// The fingerprint, in upper case without spaces.
    pub fn fingerprint(&self) -> String {
        let list = self.gpg(&["--with-colons", "--list-keys", &self.user]);
        let list = String::from_utf8_lossy(&list);
        let line =
            list.lines().find_map(|line| line.strip_prefix("fpr:")).expect("gpg tells the fingerprint");
        line.trim_matches(':').to_owned()
    }

    /// A detached signature of a file, in armour.
    pub fn sign(&self, file: &Path) -> Vec<u8> {
        self.gpg(&["--armor", "--detach-sign", "--output=-", &file.display().to_string()])
    }

    fn gpg(&self, args: &[&str]) -> Vec<u8> {
        let mut command = Command::new("gpg");
        command.env("GNUPGHOME", self.home.path()).args(["--batch", "--pinentry-mode=loopback"]).args(args);
        let output = command.output().expect("gpg is installed: cargo xtask test install does it");
        assert!(output.status.success(), "gpg {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }
}

impl Drop for Signer {
    fn drop(&mut self) {
        // Without its home the agent ends by itself, only later.
        let mut command = Command::new("gpgconf");
        let _ = command.env("GNUPGHOME", self.home.path()).args(["--kill", "gpg-agent"]).status();
    }
}

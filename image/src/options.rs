//! How a fetch is wanted: the choices that a command line offers.

use std::path::PathBuf;

/// When the network is asked for an image that has a name (rkt's `--pull-policy`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PullPolicy {
    /// Only if the store has none of that name.
    #[default]
    New,
    /// Always; what has not changed is not transferred again.
    Update,
    /// Never: from the store or not at all.
    Never,
}

/// What is *not* checked, each named by the user (rkt's `--insecure-options`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Insecure {
    /// Signatures of images.
    pub image: bool,
    /// Certificates of servers.
    pub tls: bool,
    /// Credentials and discovery may go over plain HTTP.
    pub http: bool,
    /// Public keys may come over plain HTTP.
    pub pubkey: bool,
}

/// Everything a user may say about one fetch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FetchOptions {
    pub pull: PullPolicy,
    pub insecure: Insecure,
    /// A detached signature of an ACI, in a file.
    pub signature: Option<PathBuf>,
    /// Keys found by discovery are trusted without a question (rkt's `--trust-keys-from-https`).
    pub trust_keys_from_https: bool,
}

/// Where the settings and the trusted keys are: a later folder overrides an earlier one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingsFolders {
    /// The vendor's: `/usr/lib/hull`.
    pub system: PathBuf,
    /// The administrator's: `/etc/hull`.
    pub local: PathBuf,
    /// Named on the command line (`--user-config`).
    pub user: Option<PathBuf>,
}

impl SettingsFolders {
    /// All there are, the weakest first.
    pub fn in_order(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.system, &self.local].into_iter().chain(&self.user)
    }
}

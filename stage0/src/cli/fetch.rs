//! How an image is wanted, in words.

use std::path::PathBuf;

use crate::complete::any_image;
use clap::{Args, ValueEnum, ValueHint};

/// How an image that is not there is brought.
#[derive(Debug, Args)]
pub(crate) struct FetchWishes {
    /// When the network is asked: if the store has no such image, always, or never
    #[arg(long, value_enum, value_name = "POLICY")]
    pull_policy: Option<Pull>,
    #[arg(long, hide = true, conflicts_with_all = ["pull_policy", "no_store"])]
    store_only: bool,
    #[arg(long, hide = true, conflicts_with = "pull_policy")]
    no_store: bool,
    /// Say nothing while images are fetched
    #[arg(long)]
    pub(crate) quiet: bool,
}

impl FetchWishes {
    /// What was wished; says where that was put in words that are going away.
    pub(crate) fn pull_policy(&self) -> Option<Pull> {
        let deprecated = |option: &str, policy: &str| {
            eprintln!("--{option} is deprecated: use --pull-policy={policy}");
        };
        if self.store_only {
            deprecated("store-only", "never");
            return Some(Pull::Never);
        }
        if self.no_store {
            deprecated("no-store", "update");
            return Some(Pull::Update);
        }
        self.pull_policy
    }
}

/// As `--pull-policy=` spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Pull {
    /// If the store has no such image (default of run and prepare)
    New,
    /// Always; what has not changed is not transferred again (default of fetch)
    Update,
    /// Never: from the store or not at all
    Never,
}

impl From<Pull> for hull_image::PullPolicy {
    fn from(pull: Pull) -> Self {
        match pull {
            Pull::New => Self::New,
            Pull::Update => Self::Update,
            Pull::Never => Self::Never,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct FetchArgs {
    #[command(flatten)]
    pub(crate) wishes: FetchWishes,
    /// Detached signature of an App Container Image
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) signature: Option<PathBuf>,
    /// Print whole ids
    #[arg(long)]
    pub(crate) full: bool,
    /// What to fetch, as `hull run` takes it
    #[arg(value_name = "IMAGE", required = true, add = any_image())]
    pub(crate) images: Vec<String>,
}

//! The words of `hull trust`.

use clap::{Args, ValueHint};

#[derive(Debug, Args)]
pub(crate) struct TrustArgs {
    /// Trust it for images whose name is this, or begins with this and a slash
    #[arg(long, value_name = "PREFIX")]
    pub(crate) prefix: Option<String>,
    /// Trust it for every image
    #[arg(long, conflicts_with = "prefix")]
    pub(crate) root: bool,
    /// Ask nothing
    #[arg(long)]
    pub(crate) skip_fingerprint_review: bool,
    /// Look for keys, and fetch them, over plain HTTP too
    #[arg(long)]
    pub(crate) insecure_allow_http: bool,
    /// Files or URLs of public keys [default: what discovery finds for the prefix]
    #[arg(value_name = "PUBKEY", value_hint = ValueHint::FilePath)]
    pub(crate) keys: Vec<String>,
}

//! The steps that cargo does the work of.
use super::Stream;
use super::tally::{Heard, Tally};
use crate::error::{Error, Kind, Result};
use crate::paths::Paths;
use crate::{build, install, sid, tool};

/// What the tests start or read: busybox is the root of most pods, erofs-utils and GNU tar are
/// the second opinion on images, gpg signs them, a registry has them, strace kills conversions where it hurts, util-linux has unshare.
const PACKAGES: &[&str] = &[
    "apache2-utils",
    "attr",
    "bash",
    "buildah",
    "busybox-static",
    "bzip2",
    "containernetworking-plugins",
    "coreutils",
    "cpio",
    "docker-registry",
    "erofs-utils",
    "gpg",
    "gpg-agent",
    "gpgconf",
    "gzip",
    "iproute2",
    "iptables",
    "libcap2-bin",
    "mmdebstrap",
    "mount",
    "nftables",
    "openssl",
    "skopeo",
    "strace",
    "tar",
    "umoci",
    "util-linux",
    "xz-utils",
    "zstd",
];

pub(super) fn fmt(paths: &Paths) -> Result<()> {
    tool::run(&mut tool::cargo(paths, &["fmt", "--all", "--check"]))
}

pub(super) fn clippy(paths: &Paths) -> Result<()> {
    let words = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
    tool::run(&mut tool::cargo(paths, &words))
}

pub(super) fn install(paths: &Paths) -> Result<()> {
    install::ensure(PACKAGES)?;
    sid::ensure(paths, "cosign", "usr/bin/cosign")?;
    println!("there: {}", PACKAGES.join(" "));
    Ok(())
}

pub(super) fn build(paths: &Paths) -> Result<()> {
    println!("programs and guest kernel: {}", build::installation(paths)?.display());
    Ok(())
}

pub(super) fn units(paths: &Paths, names: &[String], tally: &mut Tally) -> Result<()> {
    let words = ["test", "--workspace", "--exclude", "hull-tests", "--no-fail-fast", "--"];
    let mut cargo = tool::cargo(paths, &words);
    // Where a test could skip what a machine lacks, this makes it fail instead.
    cargo.args(names).env("CI", "true");
    let mut heard = Heard::default();
    let status = Stream::start(cargo)?.finish("", |line| heard.line(line))?;
    let sum = heard.tally();
    *tally += sum;
    match status.success() && sum.failed == 0 {
        true if sum.passed == 0 => Err(Error::new(Kind::Failed, "find a test of that name")),
        true => Ok(()),
        false => Err(Error::new(Kind::Failed, format!("pass the tests ({sum}, cargo: {status})"))),
    }
}

//! Installs the Debian packages that a command needs and this machine lacks.
use std::process::{Command, Stdio};

use hull_errors::Doing;

use crate::error::{Error, Kind, Result};
use crate::tool::{self, say};

/// Makes sure that all `packages` are there. Costs one dpkg-query when they are.
///
/// # Errors
/// Not a Debian, not root, or apt-get failed; the text says what to install by hand.
pub(crate) fn ensure(packages: &[&str]) -> Result<()> {
    let missing = missing(packages)?;
    if missing.is_empty() {
        return Ok(());
    }
    say(format_args!("installing {}", missing.join(" ")));
    if install(&missing).is_ok() {
        return Ok(());
    }
    // The package lists of a fresh machine are empty or old.
    apt_get(&["update"])?;
    install(&missing).doing(Kind::Failed, || {
        format!("install what is missing (by hand: apt-get install {})", missing.join(" "))
    })
}

/// The version of an installed package.
pub(crate) fn version(package: &str) -> Result<String> {
    tool::read(Command::new("dpkg-query").args(["-W", "-f=${Version}", package]))
}

fn missing<'a>(packages: &[&'a str]) -> Result<Vec<&'a str>> {
    // dpkg-query fails when it does not know one of them, and still lists the others.
    let output = Command::new("dpkg-query")
        .args(["-W", "-f=${db:Status-Status} ${Package}\n"])
        .args(packages)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .doing(Kind::Failed, || {
            format!("ask dpkg for {} (this needs Debian or a relative)", packages.join(", "))
        })?;
    let known = String::from_utf8_lossy(&output.stdout);
    Ok(absent(packages, &known))
}

/// Which of `packages` have no line `installed NAME`.
fn absent<'a>(packages: &[&'a str], known: &str) -> Vec<&'a str> {
    let installed: Vec<&str> = known.lines().filter_map(|l| l.strip_prefix("installed ")).collect();
    packages.iter().copied().filter(|p| !installed.contains(p)).collect()
}

fn install(packages: &[&str]) -> Result<()> {
    apt_get(&[&["install", "--yes", "--no-install-recommends"], packages].concat())
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").args(arguments);
    say(format_args!("running {}", tool::shown(&command)));
    tool::run(&mut command)
        .map_err(|e| Error::because(Kind::Failed, "use apt-get (it needs root and the package servers)", e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_installed_counts() {
        let known = "installed flex\nconfig-files bison\nnot-installed bc\n";
        assert_eq!(absent(&["flex", "bison", "bc", "qemu"], known), ["bison", "bc", "qemu"]);
        assert!(absent(&["flex"], known).is_empty());
    }
}

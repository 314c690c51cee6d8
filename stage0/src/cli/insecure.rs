//! `--insecure-options`: what is not checked, in rkt's words.

use clap::ValueEnum;
use hull_image::Insecure;

use crate::{Error, Kind};

/// One word of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum InsecureOption {
    /// Check everything
    None,
    /// Use images without a signature
    Image,
    /// Believe servers whose certificate is wrong
    Tls,
    /// Accepted and ignored
    Ondisk,
    /// Send credentials and do discovery over plain HTTP
    Http,
    /// Fetch public keys over plain HTTP
    Pubkey,
    Capabilities,
    Paths,
    Seccomp,
    /// image, tls, http and pubkey
    AllFetch,
    /// capabilities, paths and seccomp
    AllRun,
    All,
}

/// What a fetch need not check.
pub(crate) fn of_fetch(options: &[InsecureOption]) -> Insecure {
    use InsecureOption::{All, AllFetch};
    let has = |one| options.iter().any(|option| *option == one || matches!(option, All | AllFetch));
    Insecure {
        image: has(InsecureOption::Image),
        tls: has(InsecureOption::Tls),
        http: has(InsecureOption::Http),
        pubkey: has(InsecureOption::Pubkey),
    }
}

/// What protects the host from a pod cannot be switched off: a pod that was told it would be must not run
/// as if it were.
///
/// # Errors
/// Such an option, for a command that runs pods.
pub(crate) fn check_run(options: &[InsecureOption]) -> Result<(), Error> {
    use InsecureOption::{All, AllRun, Capabilities, Paths, Seccomp};
    let asked = options.iter().find(|option| matches!(option, Capabilities | Paths | Seccomp | AllRun | All));
    let Some(asked) = asked.and_then(InsecureOption::to_possible_value) else { return Ok(()) };
    Err(Error::new(
        Kind::User,
        format!(
            "--insecure-options={}: this version runs no pod with less protection than the default; image, tls, \
             http, pubkey and all-fetch, which concern images, are there",
            asked.get_name()
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_may_stand_for_several() {
        let all = Insecure { image: true, tls: true, http: true, pubkey: true };
        let check = |words: &str, want: Insecure| {
            let options: Vec<_> =
                words.split(',').map(|word| InsecureOption::from_str(word, false).unwrap()).collect();
            assert_eq!(of_fetch(&options), want, "{words}");
        };
        check("none,ondisk", Insecure::default());
        check("image", Insecure { image: true, ..Insecure::default() });
        check("tls,pubkey", Insecure { tls: true, pubkey: true, ..Insecure::default() });
        check("http,all-run", Insecure { http: true, ..Insecure::default() });
        check("all-fetch", all);
        check("all", all);
    }

    #[test]
    fn a_pod_keeps_its_protections() {
        for option in InsecureOption::value_variants() {
            let name = option.to_possible_value().unwrap().get_name().to_owned();
            let of_pods = ["capabilities", "paths", "seccomp", "all-run", "all"].contains(&name.as_str());
            assert_eq!(check_run(&[*option]).is_err(), of_pods, "{name}");
        }
    }
}

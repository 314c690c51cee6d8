//! `--insecure-options`: what is not checked, in rkt's words.

use clap::ValueEnum;
use hull_image::Insecure;
use hull_pod::Waived;

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
    /// Give apps every capability
    Capabilities,
    /// Leave the kernel's files as they are
    Paths,
    /// Filter no system calls
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

/// What a pod does without.
pub(crate) fn of_run(options: &[InsecureOption]) -> Waived {
    let has = |one| {
        options
            .iter()
            .any(|option| *option == one || matches!(option, InsecureOption::All | InsecureOption::AllRun))
    };
    Waived {
        capabilities: has(InsecureOption::Capabilities),
        paths: has(InsecureOption::Paths),
        seccomp: has(InsecureOption::Seccomp),
    }
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
    fn a_pod_does_without_what_was_named() {
        for option in InsecureOption::value_variants() {
            let name = option.to_possible_value().unwrap().get_name().to_owned();
            let is = |word: &str| [word, "all-run", "all"].contains(&name.as_str());
            let (capabilities, paths, seccomp) = (is("capabilities"), is("paths"), is("seccomp"));
            assert_eq!(of_run(&[*option]), Waived { capabilities, paths, seccomp }, "{name}");
        }
    }
}

//! Which black-box test runs where.

/// A test in a module named `kvm` starts a VM.
pub(super) fn needs_kvm(name: &str) -> bool {
    name.rsplit("::").skip(1).any(|module| module == "kvm")
}

/// Names from `--list --format=terse`, which has `NAME: test` lines.
pub(super) fn listed(text: &str) -> Vec<String> {
    text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect()
}

/// Whether a test is among those that the user asked for.
pub(super) fn wanted(name: &str, words: &[String]) -> bool {
    words.is_empty() || words.iter().any(|word| name.contains(word))
}

/// Deals the names out to at most `count` hands, none of them empty.
pub(super) fn deal(names: &[String], count: usize) -> Vec<Vec<String>> {
    let count = count.min(names.len());
    let hand = |first| names.iter().skip(first).step_by(count).cloned().collect();
    (0..count).map(hand).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn vms_are_for_modules_named_so() {
        let check = |name, want| assert_eq!(needs_kvm(name), want, "{name}");
        check("kvm::exit_codes_come_back", true);
        check("kvm_only::kvm::a_kernel_that_is_no_kernel_is_refused", true);
        check("nspawn::exit_codes_come_back", false);
        check("host::kvm", false);
        check("host::a_host_without_kvm_says_so", false);
    }

    #[test]
    fn a_list_is_read() {
        assert_eq!(listed("a::b: test\nc: benchmark\nd: test\n\n2 tests, 1 benchmark\n"), ["a::b", "d"]);
    }

    #[test]
    fn words_choose() {
        let check = |words: &str, want| assert_eq!(wanted("kvm::exit_codes", &names(words)), want, "{words}");
        check("", true);
        check("exit", true);
        check("signal exit", true);
        check("signal", false);
    }

    #[test]
    fn every_name_is_dealt_once() {
        let check = |count, given: &str, want: &[&str]| {
            let hands = deal(&names(given), count);
            assert_eq!(hands, want.iter().map(|hand| names(hand)).collect::<Vec<_>>(), "{given}");
        };
        check(2, "a b c d e", &["a c e", "b d"]);
        check(2, "a", &["a"]);
        check(2, "", &[]);
    }
}

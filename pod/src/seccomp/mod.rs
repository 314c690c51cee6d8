//! System call filters: the words of appc's seccomp isolators become programs of classic BPF, which the
//! agent only loads.
//!
//! Every program ends a process that makes calls of another machine's numbering (32-bit x86, x32), where
//! the same number means another call.

mod calls;
mod profiles;
mod rules;

use std::collections::BTreeMap;

use nix::errno::Errno;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, SeccompRule, TargetArch, sock_filter};

/// What an app may call.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    /// Whether the calls are those that are allowed, else those that are not.
    retain: bool,
    calls: BTreeMap<i64, Vec<SeccompRule>>,
    denied: Denial,
}

/// What a call that is not allowed comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denial {
    /// The process ends with `SIGSYS`.
    Kill,
    /// The call fails with this error.
    Errno(i32),
}

/// What a list of words comes to.
#[derive(Clone, Debug)]
pub(crate) struct Read {
    /// Absent: nothing is filtered.
    pub(crate) filter: Option<Filter>,
    /// Words that are neither a call nor a set of calls.
    pub(crate) unknown: Vec<String>,
}

const EVERYTHING: &str = "@appc.io/all";
const NOTHING: &str = "@appc.io/empty";

impl Filter {
    /// What an app gets that says nothing about it: the default set, what belongs to its capabilities, and
    /// for all else `EPERM`.
    pub(crate) fn default_for(capabilities: &[String]) -> Self {
        let mut calls = named("@rkt/default-whitelist").unwrap_or_default();
        for (capability, words) in profiles::OF_CAPABILITIES {
            if capabilities.iter().any(|has| has == capability) {
                calls.extend(numbers(words).map(|call| (call, vec![])));
            }
        }
        if capabilities.iter().any(|has| has == "CAP_SYS_ADMIN") {
            calls.extend(numbers("clone").map(|call| (call, vec![])));
        }
        Self { retain: true, calls, denied: Denial::Errno(Errno::EPERM as i32) }
    }

    /// The calls of `set` and those that no program can do without; the others are denied.
    pub(crate) fn retain(set: &[String], denied: Denial) -> Read {
        if set.iter().any(|word| word == EVERYTHING) {
            return Read { filter: None, unknown: vec![] };
        }
        let (mut calls, unknown) = read(set);
        calls.extend(numbers(profiles::ALWAYS).map(|call| (call, vec![])));
        Read { filter: Some(Self { retain: true, calls, denied }), unknown }
    }

    /// All calls but those of `set`. `@appc.io/empty` alone means the default, as in rkt.
    pub(crate) fn remove(set: &[String], denied: Denial) -> Read {
        if set == [NOTHING] {
            let calls = named("@rkt/default-whitelist").unwrap_or_default();
            return Read { filter: Some(Self { retain: true, calls, denied }), unknown: vec![] };
        }
        let (mut calls, unknown) = read(set);
        // What a set allows with some arguments, it denies with all.
        calls.values_mut().for_each(Vec::clear);
        Read { filter: Some(Self { retain: false, calls, denied }), unknown }
    }

    /// The program, each instruction as [`hull_agent_protocol::PodSpec::seccomp`] has it.
    pub(crate) fn compile(&self) -> Vec<u64> {
        let denied = match self.denied {
            Denial::Kill => SeccompAction::KillProcess,
            Denial::Errno(errno) => SeccompAction::Errno(errno.unsigned_abs()),
        };
        let (others, listed) = match self.retain {
            true => (denied, SeccompAction::Allow),
            false => (SeccompAction::Allow, denied),
        };
        let filter = SeccompFilter::new(self.calls.clone(), others, listed, TargetArch::x86_64);
        let program: Result<BpfProgram, _> = filter.and_then(TryInto::try_into);
        let program = program.expect("two actions, and fewer calls than a program has room for");
        rules::before(self.falls_back()).iter().chain(&program).map(encode).collect()
    }

    /// A C library that may not use clone3(2), whose flags no filter sees, uses clone(2) if it is told
    /// that there is no such call.
    fn falls_back(&self) -> bool {
        self.retain && numbers("clone3").all(|call| !self.calls.contains_key(&call))
    }
}

/// The number of an error as errno(3) names it.
pub(crate) fn errno(name: &str) -> Option<i32> {
    // More than one name has the same number.
    let name = match name {
        "EWOULDBLOCK" => "EAGAIN",
        "EDEADLOCK" => "EDEADLK",
        "ENOTSUP" => "EOPNOTSUPP",
        name => name,
    };
    // Linux has 133 of them; UnknownErrno is nix's own.
    (1..=133).find(|number| {
        let known = Errno::from_raw(*number);
        known != Errno::UnknownErrno && format!("{known:?}") == name
    })
}

fn read(set: &[String]) -> (BTreeMap<i64, Vec<SeccompRule>>, Vec<String>) {
    let (mut calls, mut unknown) = (BTreeMap::new(), vec![]);
    for word in set {
        match (word.as_str(), calls::number(word)) {
            (_, Some(number)) => drop(calls.insert(number.into(), vec![])),
            (NOTHING, _) => (),
            (EVERYTHING, _) => {
                calls.extend((0..=calls::LAST).map(|number| (i64::from(number), vec![])));
            }
            (word, _) => match named(word) {
                // What is said twice is allowed as widely as either time.
                Some(more) => more.into_iter().for_each(|(call, rules)| {
                    calls.entry(call).or_insert(rules);
                }),
                None if calls::is_foreign(word) => (),
                None => unknown.push(word.into()),
            },
        }
    }
    (calls, unknown)
}

/// The calls of a named set.
fn named(name: &str) -> Option<BTreeMap<i64, Vec<SeccompRule>>> {
    let mut calls: BTreeMap<_, _> = numbers(profiles::members(name)?).map(|call| (call, vec![])).collect();
    if name.ends_with("/default-whitelist") && !name.starts_with("@systemd") {
        for (call, rules) in rules::narrow() {
            calls.insert(call, rules);
        }
    }
    Some(calls)
}

fn numbers(words: &str) -> impl Iterator<Item = i64> {
    words.split_whitespace().filter_map(|word| calls::number(word).map(i64::from))
}

/// `struct sock_filter`, little endian.
fn encode(instruction: &sock_filter) -> u64 {
    let [code_low, code_high] = instruction.code.to_le_bytes();
    let [a, b, c, d] = instruction.k.to_le_bytes();
    u64::from_le_bytes([code_low, code_high, instruction.jt, instruction.jf, a, b, c, d])
}

#[cfg(test)]
mod tests;

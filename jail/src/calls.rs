//! The list of system calls that a process may use. Any other, or one of another machine, kills it.

use std::collections::BTreeMap;
use std::sync::Arc;

use hull_errors::Doing;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

use crate::Error;

/// System calls, and where it narrows them what their arguments must be.
#[derive(Clone, Debug, Default)]
pub struct Calls(BTreeMap<i64, Vec<SeccompRule>>);

/// What one argument must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Argument {
    /// This number, of 32 bits.
    Is(u8, u32),
    /// A number without these bits, of 64.
    Lacks(u8, u64),
    /// A number with these bits, of 64.
    Has(u8, u64),
}

impl Calls {
    /// Nothing at all.
    pub fn new() -> Self {
        Self::default()
    }

    /// These, with any arguments.
    #[must_use]
    pub fn allow(mut self, calls: &[libc::c_long]) -> Self {
        self.0.extend(calls.iter().map(|call| (*call, Vec::new())));
        self
    }

    /// This one where all of `arguments` hold; said again, where any of several lists does.
    ///
    /// # Panics
    /// If `arguments` is empty, or names one that no call has.
    #[must_use]
    pub fn allow_if(mut self, call: libc::c_long, arguments: &[Argument]) -> Self {
        let conditions = arguments.iter().map(|argument| argument.condition()).collect();
        let rule = SeccompRule::new(conditions).expect("a list of arguments that is not empty");
        self.0.entry(call).or_default().push(rule);
        self
    }

    /// How many different calls there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The list as the kernel wants it.
    ///
    /// # Errors
    /// It is too long for the kernel.
    pub fn compile(&self) -> Result<Filter, Error> {
        let doing = || "compile a list of system calls".to_owned();
        let filter = SeccompFilter::new(
            self.0.clone(),
            SeccompAction::KillProcess,
            SeccompAction::Allow,
            TargetArch::try_from(std::env::consts::ARCH).doing((), doing)?,
        );
        Ok(Filter(Arc::new(filter.and_then(TryInto::try_into).doing((), doing)?)))
    }
}

/// A list of system calls that can be put before threads.
#[derive(Clone, Debug)]
pub struct Filter(Arc<BpfProgram>);

const DOING: &str = "give up all system calls but those needed";

impl Filter {
    pub(crate) fn shut_for_all_threads(&self) -> Result<(), Error> {
        seccompiler::apply_filter_all_threads(&self.0).doing((), || DOING.into())
    }

    pub(crate) fn shut_for_this_thread(&self) -> Result<(), Error> {
        seccompiler::apply_filter(&self.0).doing((), || DOING.into())
    }
}

impl Argument {
    fn condition(self) -> SeccompCondition {
        use SeccompCmpArgLen::{Dword, Qword};
        let condition = match self {
            Argument::Is(index, value) => SeccompCondition::new(index, Dword, SeccompCmpOp::Eq, value.into()),
            Argument::Lacks(index, bits) => {
                SeccompCondition::new(index, Qword, SeccompCmpOp::MaskedEq(bits), 0)
            }
            Argument::Has(index, bits) => {
                SeccompCondition::new(index, Qword, SeccompCmpOp::MaskedEq(bits), bits)
            }
        };
        condition.expect("system calls have six arguments")
    }
}
